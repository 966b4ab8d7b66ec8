"""Pictures as grids of blocks: cut, moved, mixed, and mapped.

A block of side ``M`` is a vector in the order (channel, row, column), index
``c*M*M + y*M + x``: that of :func:`torch.nn.functional.pixel_unshuffle`, and of a
convolution's weight ``(D, C, M, M).flatten(1)``. Block positions count row by row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

__all__ = [
    "count_blocks",
    "draw_orders",
    "from_blocks",
    "gather_entries",
    "invert_index",
    "map_blocks",
    "map_vectors",
    "mix_patches",
    "move_blocks",
    "pad_to_blocks",
    "picture_index",
    "to_blocks",
]

_CHUNK = 2**16  # entries: pictures of 147 px and more one by one, smaller ones together
_PANEL = 16
_WIDE = {4: torch.complex128, 2: torch.float64, 1: torch.float32}


def count_blocks(height: int, width: int, block: int) -> tuple[int, int]:
    """Return how many blocks cover a picture, down and across; the last may overhang."""
    return -(-height // block), -(-width // block)


def pad_to_blocks(images: Tensor, block: int) -> Tensor:
    """Return ``(B, C, H, W)`` images with zeros at the bottom and right up to whole blocks."""
    height, width = images.shape[-2:]
    below, right = -height % block, -width % block
    return F.pad(images, (0, right, 0, below)) if below or right else images


def to_blocks(images: Tensor, block: int) -> Tensor:
    """Return the blocks of ``(B, C, H, W)`` images as ``(B, C*M*M, H/M, W/M)``."""
    count, channels, height, width = images.shape
    rows, columns = height // block, width // block
    parts = images.reshape(count, channels, rows, block, columns, block)
    return parts.permute(0, 1, 3, 5, 2, 4).reshape(count, -1, rows, columns)


def from_blocks(blocks: Tensor, block: int) -> Tensor:
    """Return the ``(B, C, H, W)`` images of ``(B, C*M*M, H/M, W/M)`` blocks."""
    count, _, rows, columns = blocks.shape
    parts = blocks.reshape(count, -1, block, block, rows, columns)
    return parts.permute(0, 1, 4, 2, 5, 3).reshape(count, -1, rows * block, columns * block)


def map_blocks(images: Tensor, maps: Tensor, block: int) -> Tensor:
    """Apply a linear map to every block.

    Args:
        images: ``(B, C, H, W)``, sides multiples of ``block``.
        maps: ``(P_h, P_w, C'*M*M, C*M*M)``, as for :func:`map_vectors`.
        block: Side ``M``.

    Returns:
        ``(B, C', H, W)``; on the CPU the same bits however pictures are batched.
    """
    if maps.shape[:2] == (1, 1) and images.device.type == "cpu":
        return _convolve_blocks(images, maps[0, 0], block)
    # Not so elsewhere: convolutions on a GPU round to ten bits (TF32) unless told not to.
    size = _chunk_of(images) if images.device.type == "cpu" else len(images)
    mapped = images.new_empty(len(images), maps.shape[2] // block**2, *images.shape[2:])
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        mapped[part] = _map_by_place(images[part], maps, block)
    return mapped


def _map_by_place(images: Tensor, maps: Tensor, block: int) -> Tensor:
    """Multiply every block with its position's matrix, all blocks of one matrix at once."""
    down, across, size_out, size_in = maps.shape
    count, channels, height, width = images.shape
    # Where the period does not divide the grid, zeros complete the last one.
    whole = F.pad(images, (0, -width % (across * block), 0, -height % (down * block)))
    rows, columns = whole.shape[2] // (down * block), whole.shape[3] // (across * block)
    parts = whole.view(count, channels, rows, down, block, columns, across, block)
    classes = parts.permute(3, 6, 1, 4, 7, 0, 2, 5).reshape(down * across, size_in, -1)
    mapped = _multiply(maps.flatten(0, 1), classes)
    parts = mapped.reshape(down, across, -1, block, block, count, rows, columns)
    whole = parts.permute(5, 2, 6, 0, 3, 7, 1, 4).reshape(
        count, size_out // block**2, rows * down * block, columns * across * block
    )
    return whole[..., :height, :width]


def _multiply(matrices: Tensor, columns: Tensor) -> Tensor:
    """Return the batched product; each column's bits do not depend on how many there are."""
    total = columns.shape[2]
    # Products of few columns are summed in another order; enough of them are summed alike.
    return torch.bmm(matrices, F.pad(columns, (0, -total % _PANEL)))[..., :total]


def _convolve_blocks(images: Tensor, matrix: Tensor, block: int) -> Tensor:
    """Multiply every block with one matrix: a convolution that strides by its own side."""
    count, _, height, width = images.shape
    kernels = matrix.view(len(matrix), -1, block, block)
    # How kernels round depends on the form of the batch, so every call gets the same one.
    chunk = _chunk_of(images)
    whole = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -count % chunk)) if count % chunk else images
    mapped = images.new_empty(len(whole), len(matrix) // block**2, height, width)
    for start in range(0, len(whole), chunk):
        part = slice(start, start + chunk)
        blocks = F.conv2d(whole[part], kernels, stride=block)
        mapped[part] = from_blocks(blocks, block)
    return mapped[:count]


def _chunk_of(images: Tensor) -> int:
    """Return how many pictures stay in the cache from cutting to joining."""
    return max(1, _CHUNK // images[0].numel())


def map_vectors(vectors: Tensor, maps: Tensor) -> Tensor:
    """Multiply the vector at every position of a grid with the map of that position.

    Args:
        vectors: ``(B, I, rows, columns)``.
        maps: ``(P_h, P_w, O, I)`` of the same type; position ``(i, j)`` takes
            ``maps[i % P_h, j % P_w]``.

    Returns:
        ``(B, O, rows, columns)``; on the CPU the same bits however pictures are batched.
    """
    down, across, size_out, size_in = maps.shape
    count, _, height, width = vectors.shape
    # Where the period does not divide the grid, zeros complete the last one.
    whole = F.pad(vectors, (0, -width % across, 0, -height % down))
    rows, columns = whole.shape[2] // down, whole.shape[3] // across
    parts = whole.view(count, size_in, rows, down, columns, across)
    classes = parts.permute(3, 5, 1, 0, 2, 4).reshape(down * across, size_in, -1)
    mapped = _multiply(maps.flatten(0, 1), classes)
    parts = mapped.reshape(down, across, size_out, count, rows, columns)
    whole = parts.permute(3, 2, 4, 0, 5, 1).reshape(count, size_out, rows * down, -1)
    return whole[..., :height, :width]


def picture_index(
    sources: Tensor, grid: tuple[int, int], block: int, order: Tensor | None = None
) -> Tensor:
    """Return where each entry of a picture comes from when blocks move and their entries too.

    Args:
        sources: ``(P_h, P_w, C*M*M)`` int64: entry ``k`` of the block at ``(i, j)`` is what was
            entry ``sources[i % P_h, j % P_w, k]``, after blocks have moved.
        grid: Blocks down and across.
        block: Side ``M``.
        order: ``(N,)`` int64: position ``n`` gets the block of position ``order[n]``.

    Returns:
        ``(C*H*W,)`` int64, for :func:`gather_entries`.
    """
    rows, columns = grid
    channels = sources.shape[2] // block**2
    entries = torch.arange(sources.shape[2] * rows * columns)
    blocks = to_blocks(entries.view(1, channels, rows * block, columns * block), block)[0]
    if order is not None:
        blocks = blocks.flatten(1)[:, order].view_as(blocks)
    down = torch.arange(rows) % sources.shape[0]
    across = torch.arange(columns) % sources.shape[1]
    chosen = sources[down][:, across].permute(2, 0, 1)
    return from_blocks(blocks.gather(0, chosen)[None], block).flatten()


def invert_index(index: Tensor) -> Tensor:
    """Return the inverse of a permutation given as int64 indices."""
    inverse = torch.empty_like(index)
    inverse[index] = torch.arange(len(index), device=index.device)
    return inverse


def gather_entries(images: Tensor, index: Tensor) -> Tensor:
    """Return images whose entry ``e`` is what was entry ``index[e]``, of each picture.

    Args:
        images: ``(B, C, H, W)``.
        index: ``(C*H*W,)`` int64 or int32, of which the latter is quicker.
    """
    return images.flatten(1).index_select(1, index).view(images.shape)


def move_blocks(images: Tensor, order: Tensor, block: int) -> Tensor:
    """Return images whose block ``n`` is what was block ``order[n]``.

    Args:
        images: ``(B, C, H, W)`` float32, sides multiples of ``block``.
        order: ``(N,)`` int64 for all pictures, or ``(B, N)``.
        block: Side ``M``.
    """
    count, channels, height, width = images.shape
    rows, columns = height // block, width // block
    # Runs of pixels move as one wide number where its width divides the block's.
    step, wide = next((step, wide) for step, wide in _WIDE.items() if block % step == 0)
    line, run = width // step, block // step
    corners = order // columns * (block * line) + order % columns * run
    corners = corners.view(-1, 1, rows, 1, columns, 1)
    planes = torch.arange(channels, device=order.device).view(channels, 1, 1, 1, 1)
    lines = torch.arange(block, device=order.device).view(block, 1, 1)
    within = torch.arange(run, device=order.device)
    index = (corners + (planes * (height * line) + lines * line + within)).flatten(1)
    runs = images.contiguous().view(wide).view(count, -1)
    return runs.gather(1, index.expand(count, -1)).view(images.dtype).view(images.shape)


def draw_orders(count: int, size: int, generator: Generator) -> Tensor:
    """Return ``(count, size)`` int64: a random order for each picture, drawn one by one.

    Args:
        count: Pictures.
        size: Blocks of each.
        generator: On the CPU. Two batches draw what one batch of both would have drawn.
    """
    return torch.stack([torch.randperm(size, generator=generator) for _ in range(count)])


def mix_patches(images: Tensor, patch: int, side: int) -> Tensor:
    """Return images whose patches are the mean of their sub-patches.

    Args:
        images: ``(B, C, H, W)``, sides multiples of ``patch``.
        patch: Side of a patch.
        side: Sub-patches down and across each patch; divides ``patch``.

    Returns:
        ``(B, C, H/side, W/side)``; patches stay where they are.

    Source:
        Hao et al., Human-imperceptible, Machine-recognizable Images, arXiv 2306.03679 (MI).
    """
    count, channels, height, width = images.shape
    part = patch // side
    down = images.reshape(count, channels, height // patch, side, part * width)
    total = _sum(down.unbind(3))
    across = total.view(count, channels, height // side, width // patch, side, part)
    mean = _sum(across.unbind(4)).div_(side**2)
    return mean.view(count, channels, height // side, width // side)


def _sum(terms: tuple[Tensor, ...]) -> Tensor:
    """Add whole tensors, which is many times quicker than reducing over an inner dimension."""
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total += term
    return total
