"""Find what reads the picture in a network: its stems.

A stem is a convolution (or a matrix product over cut patches) whose input is the picture
itself. Encrypted blocks can be read by any network whose every reader is a stem: a product
with the inverse block map goes into the stem's weights, and the rest of the network never
learns that anything changed. Most networks have one stem; reparametrizable ones (RepVGG,
MobileOne, FastViT) have one in each branch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.core.errors import UnsupportedModelError
from scotoma.models.stem_trace import Reading, watch_picture

__all__ = ["Sides", "Stem", "copy_sharing", "find_stems"]

Sides = tuple[int, int, int, int]
"""Top, bottom, left, right."""


@dataclass(frozen=True, eq=False)
class Stem:
    """One reader of the picture, as the convolution of the picture that it is.

    Args:
        module: Dotted path of the module to replace; empty for the network itself.
        operation: ``convolution``, or ``linear`` for a matrix product over cut patches.
        weight: ``(D, C/groups, kh, kw)`` as applied: standardized, reparametrized, ...
        bias: ``(D,)`` or none.
        stride: Rows and columns from one output to the next.
        padding: Zero rows and columns around the picture that it reads, the network's own
            and the convolution's together; negative where the edge is never read.
        dilation: Rows and columns from one weight to the next.
        groups: Of channels.
        margin: The part of ``padding`` that is around the picture before it gets to the module.
        places: Where the module gets pixels rearranged as cells: pixel ``n = (c, y, x)`` of a
            cell is channel (or column) ``places[n]`` of the module's input.
        cell: Side of these cells; 0 without.
        is_own_weight: ``weight`` is the module's parameter of that name, not derived from it.
    """

    module: str
    operation: str
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: Sides
    dilation: tuple[int, int]
    groups: int
    margin: Sides = (0, 0, 0, 0)
    places: Tensor | None = None
    cell: int = 0
    is_own_weight: bool = False

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the weight."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def is_patch(self) -> bool:
        """Whether it cuts the picture into patches: kernel and stride are equal, no padding."""
        return (
            self.kernel == self.stride
            and self.dilation == (1, 1)
            and not any(self.padding)
            and not any(self.margin)
        )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns that come out for a picture of this size."""
        top, bottom, left, right = self.padding
        spans = (height + top + bottom, width + left + right)
        rows, columns = (
            (span - (kernel - 1) * dilation - 1) // stride + 1
            for span, kernel, dilation, stride in zip(
                spans, self.kernel, self.dilation, self.stride, strict=True
            )
        )
        return rows, columns


def find_stems(network: nn.Module, input_size: tuple[int, int, int]) -> tuple[Stem, ...]:
    """Return every convolution that reads the picture.

    One random picture runs through a copy; the network itself is left alone.

    Args:
        network: Reads ``(B, C, H, W)``.
        input_size: ``(C, H, W)``. Padding that depends on the size ("same") is as for this one.

    Returns:
        The stems, in the order in which they read.

    Raises:
        UnsupportedModelError: Something else reads the picture, or in a way that no block map
            can be put into; the message says which module does what.

    Example:
        >>> import torch
        >>> stem, = find_stems(torch.nn.Conv2d(3, 8, 7, stride=2, padding=3), (3, 32, 32))
        >>> stem.stride, stem.padding
        ((2, 2), (3, 3, 3, 3))
    """
    copied = copy_sharing(network).eval()
    readings = watch_picture(copied, input_size)
    if not readings:
        raise UnsupportedModelError(
            "no convolution or matrix product reads the picture; expected a network that "
            f"computes with its input {input_size}"
        )
    return tuple(_stem_of(reading, copied, input_size) for reading in readings)


def copy_sharing(
    network: nn.Module,
    replacements: Sequence[tuple[nn.Module, nn.Module] | tuple[nn.Parameter, nn.Parameter]] = (),
) -> nn.Module:
    """Return a copy of the network that has the same parameters, but for the replacements.

    Args:
        network: Not changed.
        replacements: Pairs of a module or parameter of ``network`` and what the copy has instead.

    Returns:
        New modules that share their parameters with ``network``; buffers are copies.

    Raises:
        UnsupportedModelError: The network cannot be copied.
    """
    memo: dict[int, object] = {id(kept): kept for kept in network.parameters()}
    memo |= {id(old): new for old, new in replacements}
    try:
        return copy.deepcopy(network, memo)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(
            f"expected a network that copy.deepcopy can copy, got {type(error).__name__}: {error}"
        ) from error


def _stem_of(reading: Reading, network: nn.Module, input_size: tuple[int, int, int]) -> Stem:
    name = f"module {reading.module!r}" if reading.module else "the network itself"
    if not reading.is_whole or reading.entered is None:
        raise UnsupportedModelError(
            f"{name} does more than read the picture by one {reading.operation}; "
            "expected that in a module of its own, which can be replaced"
        )
    module = network.get_submodule(reading.module)
    is_own = _is_same(getattr(module, "weight", None), reading.weight)
    if reading.operation == "convolution":
        margin = _padding_around(reading.entered, input_size)
        inner = _padding_around(reading.source, input_size)
        if margin is not None and inner is not None:
            return _plain_stem(reading, name, margin, inner, is_own)
    if reading.operation == "linear" and not is_own:
        raise UnsupportedModelError(
            f"{name} multiplies the picture's patches with numbers that are not its parameter "
            "'weight' as it is; expected a plain nn.Linear, whose weight can be replaced"
        )
    if reading.entered.numel() == reading.source.numel():
        stem = _cell_stem(reading, input_size)
        if stem is not None:
            return stem
    raise UnsupportedModelError(
        f"{name} gets the picture's pixels rearranged by the network in a way that blocks "
        "cannot follow; expected the picture itself, zero-padded, or cut into equal cells"
    )


def _is_same(owned: object, used: Tensor) -> bool:
    """Whether a parameter is what was used: the same numbers in the same order, not recomputed."""
    return (
        isinstance(owned, nn.Parameter)
        and owned.untyped_storage()._cdata == used.untyped_storage()._cdata
        and (owned.shape, owned.stride()) == (used.shape, used.stride())
        and bool(owned.storage_offset() == used.storage_offset())
    )


def _plain_stem(reading: Reading, name: str, margin: Sides, inner: Sides, is_own: bool) -> Stem:
    rows, columns = reading.padding
    own = (rows, rows, columns, columns)
    if min(margin) < 0 or any(cut < 0 < pad for cut, pad in zip(inner, own, strict=True)):
        raise UnsupportedModelError(
            f"{name} gets only a part of the picture; expected all of it, so that it can be "
            "read block by block"
        )
    top, bottom, left, right = (cut + pad for cut, pad in zip(inner, own, strict=True))
    return Stem(
        module=reading.module,
        operation=reading.operation,
        weight=reading.weight,
        bias=reading.bias,
        stride=(reading.stride[0], reading.stride[1]),
        padding=(top, bottom, left, right),
        dilation=(reading.dilation[0], reading.dilation[1]),
        groups=reading.groups,
        margin=margin,
        is_own_weight=is_own,
    )


def _padding_around(numbers: Tensor, input_size: tuple[int, int, int]) -> Sides | None:
    """Return how many rows and columns of zeros are around the picture, or none if it is not so."""
    channels, height, width = input_size
    if numbers.ndim != 4 or numbers.shape[1] != channels:
        return None
    rows = numbers[0, 0].any(dim=1).nonzero()
    columns = numbers[0, 0].any(dim=0).nonzero()
    if len(rows) == 0:
        return None
    first = int(numbers[0, 0, rows[0], columns[0]] - 1) % (height * width)
    top, left = int(rows[0]) - first // width, int(columns[0]) - first % width
    bottom = numbers.shape[2] - height - top
    right = numbers.shape[3] - width - left
    picture = _numbers(input_size).view(1, *input_size)
    if torch.equal(F.pad(picture, (left, right, top, bottom)), numbers):
        return top, bottom, left, right
    return None


def _cell_stem(reading: Reading, input_size: tuple[int, int, int]) -> Stem | None:
    """Return the stem of a module that gets the picture cut into cells (space to depth)."""
    channels, height, width = input_size
    features, depth = reading.weight.shape[0], reading.weight.shape[1] * reading.groups
    cell = math.isqrt(depth // channels)
    if depth != channels * cell * cell or height % cell or width % cell:
        return None
    rows, columns = height // cell, width // cell
    if reading.operation == "linear":
        if reading.source.numel() != rows * columns * depth:
            return None
        numbers = reading.source.reshape(rows, columns, depth).permute(2, 0, 1)
    else:
        numbers = reading.source[0]
    places = _places_in_cells(numbers, input_size, cell)
    if places is None or reading.dilation != (1, 1) or reading.groups != 1:
        return None
    weight = reading.weight.view(features, depth, *(reading.weight.shape[2:] or (1, 1)))
    kernel_rows, kernel_columns = weight.shape[2:]
    spread = weight[:, places.to(weight.device)].view(
        features, channels, cell, cell, kernel_rows, kernel_columns
    )
    pad_rows, pad_columns = (cell * pad for pad in reading.padding)
    return Stem(
        module=reading.module,
        operation=reading.operation,
        weight=spread.permute(0, 1, 4, 2, 5, 3).reshape(
            features, channels, kernel_rows * cell, kernel_columns * cell
        ),
        bias=reading.bias,
        stride=(reading.stride[0] * cell, reading.stride[1] * cell),
        padding=(pad_rows, pad_rows, pad_columns, pad_columns),
        dilation=(1, 1),
        groups=1,
        places=places,
        cell=cell,
        is_own_weight=reading.operation == "linear",
    )


def _places_in_cells(numbers: Tensor, input_size: tuple[int, int, int], cell: int) -> Tensor | None:
    """Return the place of each pixel of a cell, given ``(K, rows, columns)`` provenance."""
    channels, height, width = input_size
    if numbers.shape[1:] != (height // cell, width // cell):
        return None
    cells = _numbers(input_size).view(channels, height // cell, cell, width // cell, cell)
    cells = cells.permute(0, 2, 4, 1, 3).reshape(-1, height // cell, width // cell)
    places = torch.searchsorted(numbers[:, 0, 0].sort().values, cells[:, 0, 0].contiguous())
    places = numbers[:, 0, 0].argsort()[places.clamp(max=len(numbers) - 1)]
    return places if torch.equal(numbers[places], cells) else None


def _numbers(input_size: tuple[int, int, int]) -> Tensor:
    return torch.arange(1, math.prod(input_size) + 1, dtype=torch.float64)
