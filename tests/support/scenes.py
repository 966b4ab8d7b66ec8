"""Synthetic photographs: dead leaves under uneven light, smooth and with edges like real ones."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from scotoma.core.keys import Key
from scotoma.core.protocols import Release
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = ["block_brightness", "encrypt", "make_scenes", "pearson"]


def make_scenes(count: int, size: int = 96, *, seed: int = 0) -> Tensor:
    """Return ``(count, 3, size, size)`` float32 pictures in [0, 1]."""
    generator = Generator().manual_seed(seed)
    return torch.stack([_scene(size, generator) for _ in range(count)])


def _scene(size: int, generator: Generator) -> Tensor:
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    picture = torch.full((3, size, size), 0.5)
    for _ in range(60):
        x, y, power, angle, light = torch.rand(5, generator=generator).tolist()
        radius = size * 0.04 * (1 + 12 * power**3)
        there = (row - y * size) ** 2 + (column - x * size) ** 2 < radius**2
        colour = light + 0.15 * torch.randn(3, generator=generator)
        slope = (row - y * size) * (angle - 0.5) / size
        picture = torch.where(there, colour[:, None, None] + slope, picture)
    shade = torch.linspace(0.1, -0.1, size)[:, None]
    grain = 0.01 * torch.randn(3, size, size, generator=generator)
    return (picture + shade + grain).clamp(0, 1)


def encrypt(
    images: Tensor, scheme: str, block: int, *, key: int = 1, **settings: object
) -> Release:
    """Return a release of pictures that were not normalized."""
    protection = open_protection(EncryptSettings(scheme, block=block, **settings))
    return protection.protect(images, Key.from_bytes(bytes([key]) * 32))


def block_brightness(images: Tensor, block: int) -> Tensor:
    """Return ``(..., rows, columns)`` means of blocks."""
    grey = images.mean(-3)
    *lead, height, width = grey.shape
    return grey.reshape(*lead, height // block, block, width // block, block).mean((-3, -1))


def pearson(first: Tensor, second: Tensor) -> float:
    """Return the correlation within pictures, ``(B, ...)`` each, averaged over them."""
    one, two = (part.double().flatten(1) for part in (first, second))
    one, two = (part - part.mean(1, keepdim=True) for part in (one, two))
    return float(((one * two).sum(1) / (one.norm(dim=1) * two.norm(dim=1) + 1e-12)).mean())
