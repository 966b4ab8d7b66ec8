"""Encryption written slowly: one block, one value at a time, in NumPy, without the code tested."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from support.tiny_models import make_picture
from torch import Generator, Tensor

from scotoma.core.keys import Key
from scotoma.protections.encrypt.maps import BlockMaps, Layout
from scotoma.protections.encrypt.schemes import Scheme
from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = [
    "KEY",
    "NOISY",
    "OTHER_KEY",
    "correlation",
    "make_images",
    "slow_blocks",
    "slow_mapped",
    "slow_mixed",
    "slow_moved",
]

KEY = Key.from_bytes(bytes(range(32)))
OTHER_KEY = Key.from_bytes(bytes(range(1, 33)))

Picture = NDArray[np.float64]


def make_images(count: int, height: int = 32, width: int = 32, *, seed: int = 0) -> Tensor:
    """Return ``(count, 3, height, width)`` float32 pictures as a network would read them."""
    pictures = [make_picture(seed + number, width, height) for number in range(count)]
    pixels = np.stack(pictures).transpose(0, 3, 1, 2) / 255
    grain = torch.randn(pixels.shape, generator=Generator().manual_seed(seed)) / 100
    return torch.from_numpy((pixels - 0.45) / 0.22).float() + grain


def slow_blocks(picture: Picture, block: int) -> list[list[Picture]]:
    """Return the block vectors of a padded ``(C, H, W)`` picture by row and column."""
    channels, height, width = picture.shape
    rows, columns = -(-height // block), -(-width // block)
    whole = np.zeros((channels, rows * block, columns * block))
    whole[:, :height, :width] = picture
    return [
        [
            whole[:, i * block : (i + 1) * block, j * block : (j + 1) * block].reshape(-1)
            for j in range(columns)
        ]
        for i in range(rows)
    ]


def slow_mapped(picture: Picture, maps: BlockMaps) -> Picture:
    """Return a picture with every block moved, then multiplied with its position's matrix."""
    block = maps.block
    grid = slow_blocks(picture, block)
    rows, columns = len(grid), len(grid[0])
    forward = maps.forward.numpy()
    released = np.zeros((maps.channels_out, rows * block, columns * block))
    for i, j in product(range(rows), range(columns)):
        source = i * columns + j if maps.order is None else int(maps.order[i * columns + j])
        matrix = forward[i % forward.shape[0], j % forward.shape[1]]
        mapped = matrix @ grid[source // columns][source % columns]
        for c, y, x in product(range(maps.channels_out), range(block), range(block)):
            value = mapped[c * block * block + y * block + x]
            released[c, i * block + y, j * block + x] = value
    return released


def slow_moved(picture: Picture, order: list[int], block: int) -> Picture:
    """Return a picture with every block moved."""
    grid = slow_blocks(picture, block)
    rows, columns = len(grid), len(grid[0])
    released = np.zeros((len(picture), rows * block, columns * block))
    for n, source in enumerate(order):
        i, j = n // columns, n % columns
        moved = grid[source // columns][source % columns].reshape(-1, block, block)
        released[:, i * block : (i + 1) * block, j * block : (j + 1) * block] = moved
    return released


def slow_mixed(picture: Picture, block: int, side: int) -> Picture:
    """Return a picture whose patches are the mean of their ``side × side`` parts."""
    grid = slow_blocks(picture, block)
    part = block // side
    rows, columns = len(grid), len(grid[0])
    released = np.zeros((len(picture), rows * part, columns * part))
    for i, j in product(range(rows), range(columns)):
        patch = grid[i][j].reshape(-1, block, block)
        total = np.zeros((len(picture), part, part))
        for p, q in product(range(side), range(side)):
            total += patch[:, p * part : (p + 1) * part, q * part : (q + 1) * part]
        released[:, i * part : (i + 1) * part, j * part : (j + 1) * part] = total / side**2
    return released


def correlation(first: Tensor, second: Tensor) -> float:
    """Return the correlation of all values of two tensors of one shape."""
    pair = torch.stack([first.flatten(), second.flatten()]).double()
    return float(torch.corrcoef(pair)[0, 1])


def _derive_noisy(key: Key, settings: EncryptSettings, layout: Layout) -> BlockMaps:
    seed = int.from_bytes(key.stream("noisy", 4), "big")
    square = settings.block**2
    size = layout.channels * square
    generator = Generator().manual_seed(seed)
    gauss = torch.randn(2, 1, size + square, size + square, generator=generator).double()
    mixing = torch.linalg.qr(gauss).Q * torch.linspace(0.5, 2, size + square).double()
    inverse = torch.linalg.inv(mixing)[..., :size, :].contiguous()
    return BlockMaps(settings.block, mixing[..., :size], inverse, noise=3 * mixing[..., size:])


NOISY = Scheme(
    "noisy", "a plane of fresh noise mixed in", "any stem", derive=_derive_noisy, fresh=True
)
"""A hardened scheme in small: another plane, noise, a period, and a map that is not orthogonal."""
