"""Pictures with the statistics of nature: dead leaves on a background of 1/f noise."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

__all__ = ["make_natural", "make_portraits"]


def make_natural(count: int, side: int, *, seed: int, leaves: int = 12) -> Tensor:
    """Return ``(count, 3, side, side)`` float32 in [0, 1]: discs that cover one another."""
    generator = Generator().manual_seed(seed)
    ys, xs = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pictures = torch.empty(count, 3, side, side)
    for number in range(count):
        picture = _pink(side, generator)
        for _ in range(leaves):
            y, x = (torch.rand(2, generator=generator) * side).tolist()
            # Sizes by an inverse power, as objects have at all distances.
            radius = side * 0.06 / float(torch.rand((), generator=generator) ** 0.5 + 0.1)
            colour = torch.rand(3, generator=generator) * 0.5 + torch.rand((), generator=generator)
            inside = (ys - y) ** 2 + (xs - x) ** 2 < radius**2
            picture = torch.where(inside, (colour / 1.5)[:, None, None], picture)
        pictures[number] = picture
    grain = torch.randn(pictures.shape, generator=generator) * 0.01
    return (pictures + grain).clamp(0, 1)


def make_portraits(count: int, side: int, *, seed: int) -> Tensor:
    """Return ``(count, 3, side, side)`` pictures with something like a face in the middle.

    Skin, eyes and mouth vary in place, size and colour within narrow bounds, as in faces
    that a detector has cut out.
    """
    generator = Generator().manual_seed(seed)
    pictures = make_natural(count, side, seed=seed + 1, leaves=3) * 0.3 + 0.3
    ys, xs = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    for number in range(count):
        drawn = torch.rand(10, generator=generator).tolist()
        skin = torch.tensor([0.75, 0.6, 0.5]) * (0.6 + 0.5 * drawn[0])
        wide, tall = 0.25 + 0.06 * drawn[1], 0.33 + 0.06 * drawn[2]
        apart, level = 0.09 + 0.05 * drawn[3], 0.40 + 0.05 * drawn[4]
        mouth, smile = 0.62 + 0.06 * drawn[5], 0.05 + 0.08 * drawn[6]
        picture = pictures[number]
        face = ((xs - 0.5) / wide) ** 2 + ((ys - 0.5) / tall) ** 2 < 1
        picture = torch.where(face, skin[:, None, None], picture)
        for centre in (0.5 - apart, 0.5 + apart):
            eye = (xs - centre) ** 2 + (ys - level) ** 2 < (0.03 + 0.02 * drawn[7]) ** 2
            picture = torch.where(eye, torch.full((3, 1, 1), 0.1 + 0.2 * drawn[8]), picture)
        lips = ((xs - 0.5) / smile) ** 2 + ((ys - mouth) / 0.025) ** 2 < 1
        colour = torch.tensor([0.6, 0.2, 0.2]) * (0.7 + 0.6 * drawn[9])
        pictures[number] = torch.where(lips, colour[:, None, None], picture)
    return pictures.clamp(0, 1)


def _pink(side: int, generator: Generator) -> Tensor:
    """Return ``(3, side, side)`` noise whose amplitude falls as one over frequency."""
    noise = torch.randn(3, side, side, generator=generator)
    rows, columns = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    frequency = (rows**2 + columns**2).sqrt().clamp(min=1 / side)
    shaped = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(side, side))
    shaped = shaped.mean(0, keepdim=True) + 0.3 * shaped
    return 0.45 + 0.18 * (shaped - shaped.mean()) / shaped.std()
