"""What attacks share: a release seen as blocks, and numbers seen as pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Release
from scotoma.ops.blocks import pad_to_blocks, to_blocks

__all__ = [
    "block_side",
    "brightness_guess",
    "enlarged",
    "normalize",
    "plain_blocks",
    "plain_size",
    "release_blocks",
    "unnormalize",
]

_MEAN, _SPREAD = 0.45, 0.25  # of natural pictures' brightness
_ROUNDS = 4
_CHUNK = 64


def plain_size(release: Release) -> tuple[int, int]:
    """Return height and width of the pictures in a release, in pixels."""
    size = release.metadata.get("input_size")
    if size is not None:
        return int(size[1]), int(size[2])
    return release.data.shape[-2], release.data.shape[-1]


def block_side(release: Release) -> int:
    """Return the side of a release's blocks, in pixels.

    Raises:
        NotApplicableError: It is not made of blocks.
    """
    block = release.metadata.get("settings", {}).get("block")
    if block is None:
        raise NotApplicableError(
            f"expected a release of encrypted blocks, got one of scheme "
            f"{release.metadata.get('scheme')!r}; try an attack for that kind"
        )
    return int(block)


def release_blocks(release: Release) -> Tensor:
    """Return the encrypted blocks ``(B, C'*M*M, rows, columns)``, as float64.

    Raises:
        NotApplicableError: The release is not made of whole blocks.
    """
    block, sides = block_side(release), release.data.shape[-2:]
    whole = tuple(-(-side // block) * block for side in plain_size(release))
    if tuple(sides) != whole:
        raise NotApplicableError(
            f"expected a release of {whole} pixels in {block}-pixel blocks, got {tuple(sides)}"
        )
    return to_blocks(release.data.double(), block)


def plain_blocks(images: Tensor, release: Release) -> Tensor:
    """Return blocks of plain pictures as the release's were before they were encrypted.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1].
        release: Tells normalization and block side.

    Returns:
        ``(N, 3*M*M, rows, columns)`` float64, normalized and padded likewise.
    """
    block = block_side(release)
    return to_blocks(pad_to_blocks(normalize(images.double(), release), block), block)


def normalize(images: Tensor, release: Release) -> Tensor:
    """Return pictures in [0, 1] normalized as those in the release were, if they were."""
    mean, std = _normalization(images, release)
    return (images - mean) / std


def unnormalize(images: Tensor, release: Release) -> Tensor:
    """Return guesses of normalized pictures as pictures: float32 in [0, 1], of the plain size.

    Args:
        images: ``(..., 3, H', W')`` as the network reads them, maybe padded; what is not finite
            becomes grey.
        release: Tells mean, standard deviation and size.
    """
    mean, std = _normalization(images, release)
    height, width = plain_size(release)
    plain = (images * std + mean)[..., :height, :width]
    return plain.nan_to_num(_MEAN, 1.0, 0.0).clamp(0, 1).float()


def brightness_guess(thumbnail: Tensor, size: tuple[int, int], block: int | None = None) -> Tensor:
    """Return grey pictures from a map of block brightness whose scale is not known.

    The map gets the mean and spread of natural pictures, over all pictures of the release
    at once (each candidate by itself), and is interpolated so that blocks keep their means.

    Args:
        thumbnail: ``(B, h, w)`` or candidates ``(K, B, h, w)``, brighter is larger.
        size: Height and width of the pictures, in pixels.
        block: Side of a block, in pixels; None if blocks divide the size.

    Returns:
        ``(B, 3, H, W)`` or ``(K, B, 3, H, W)`` float32 in [0, 1]; channels share memory.
    """
    rows, columns = thumbnail.shape[-2:]
    flat = thumbnail.double().nan_to_num(0, 0, 0)
    release = (-3, -2, -1) if flat.ndim > 2 else (-2, -1)
    flat = flat - flat.mean(release, keepdim=True)
    flat = flat / flat.std(release, correction=0, keepdim=True).clamp(min=1e-12)
    flat = (_MEAN + _SPREAD * flat).clamp(0, 1).float().reshape(-1, 1, rows, columns)
    whole = (rows * block, columns * block) if block else size
    picture = torch.cat([enlarged(part, whole) for part in torch.split(flat, _CHUNK)])
    picture = picture[..., : size[0], : size[1]].clamp(0, 1)
    return picture.expand(-1, 3, -1, -1).reshape(*thumbnail.shape[:-2], 3, *size)


def enlarged(flat: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate ``(B, C, h, w)`` so that the mean over each block stays what it was."""
    coarse = flat
    for _ in range(_ROUNDS):
        picture = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
        coarse = coarse + flat - F.adaptive_avg_pool2d(picture, (flat.shape[2], flat.shape[3]))
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)


def _normalization(images: Tensor, release: Release) -> tuple[Tensor, Tensor]:
    mean, std = release.metadata.get("mean"), release.metadata.get("std")
    mean = [0.0, 0.0, 0.0] if mean is None else mean
    std = [1.0, 1.0, 1.0] if std is None else std
    shape = (3, 1, 1)
    return (
        torch.tensor(mean, dtype=images.dtype).view(shape),
        torch.tensor(std, dtype=images.dtype).view(shape),
    )
