"""Random flips, shifts and erased rectangles of a whole batch at once."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

__all__ = ["augment"]


def augment(
    images: Tensor, *, shift: int, erase_probability: float, generator: Generator
) -> Tensor:
    """Return each picture mirrored or not, shifted, and perhaps with a rectangle erased.

    Args:
        images: ``(B, C, H, W)`` uint8.
        shift: Largest translation along each axis, in pixels; what leaves at one side is
            replaced by the mirror image of the border.
        erase_probability: Chance per picture that a rectangle of 2 % to 33 % of its area
            becomes mid-grey.
        generator: Source of all randomness.

    Returns:
        ``(B, C, H, W)`` uint8, a new tensor.
    """
    count, _, height, width = images.shape
    rows = _positions(count, height, shift, generator)
    columns = _positions(count, width, shift, generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    batch = torch.arange(count)[:, None, None]
    # Advanced indices around a slice put the channels last; bring them back.
    moved = images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    area = 0.02 + 0.31 * torch.rand(count, generator=generator)
    aspect = torch.exp((torch.rand(count, generator=generator) * 2 - 1) * 1.2)
    chosen = torch.rand(count, generator=generator) < erase_probability
    inside_rows = _span(height, (area * aspect).sqrt(), generator)
    inside_columns = _span(width, (area / aspect).sqrt(), generator)
    erased = chosen[:, None, None] & inside_rows[:, :, None] & inside_columns[:, None, :]
    return moved.masked_fill(erased[:, None], 127)


def _positions(count: int, size: int, shift: int, generator: Generator) -> Tensor:
    """Source index of every target index: ``(count, size)``, reflected at the borders."""
    offset = torch.randint(-shift, shift + 1, (count, 1), generator=generator)
    index = (torch.arange(size) + offset).abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


def _span(size: int, fraction: Tensor, generator: Generator) -> Tensor:
    """Boolean ``(count, size)``: a random interval of the given fraction of the side."""
    length = (fraction * size).round().clamp(1, size)
    start = torch.rand(len(fraction), generator=generator) * (size - length + 1)
    index = torch.arange(size)
    first = start.floor()[:, None]
    return (index >= first) & (index < first + length[:, None])
