"""What natural pictures are like on average: a covariance that every attacker knows.

Brightness and colour of two pixels are alike the nearer they are. Two curves and one
3 × 3 matrix, measured once on photographs, stand in for a set of auxiliary pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["LAGS", "block_covariances", "brightness_along", "fewer_lags"]

Lag = tuple[int, int]

LAGS: tuple[Lag, ...] = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
"""Blocks down and across from one block to the other; the first is the block itself."""

# Measured on 200 photographs of ImageNet's validation set at 224 pixels, normalized by
# mean and std of ImageNet: covariance of colours, and correlation exp(-a * r**b) of
# two pixels r apart, of brightness and of what is left of colour.
_COLOURS = ((1.41, 1.27, 1.16), (1.27, 1.42, 1.32), (1.16, 1.32, 1.59))
_STD = (0.229, 0.224, 0.225)
_BRIGHTNESS = (0.065, 0.67)
_CHROMA = (0.02, 0.84)


def block_covariances(
    block: int, lags: Sequence[Lag], std: Sequence[float] | None = None
) -> Tensor:
    """Return the covariances of natural blocks with themselves and with their neighbours.

    Args:
        block: Side ``M``, in pixels.
        lags: Blocks down and across to the neighbour; across may be negative.
        std: What each channel was divided by; None for pictures in [0, 1].

    Returns:
        ``(L, 3*M*M, 3*M*M)`` float64: ``E[b_i b_j^T]`` with block ``j`` a lag from ``i``.
    """
    scale = torch.tensor(_STD).double() / torch.tensor([1.0] * 3 if std is None else std).double()
    colours = torch.tensor(_COLOURS).double() * torch.outer(scale, scale)
    grey = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    brightness = grey @ colours @ grey
    side = torch.arange(block).double()
    down, across = (axis.flatten() for axis in torch.meshgrid(side, side, indexing="ij"))
    found = []
    for rows, columns in lags:
        far_down = down[None] + rows * block - down[:, None]
        far_across = across[None] + columns * block - across[:, None]
        distance = torch.hypot(far_down, far_across)
        found.append(
            torch.kron(brightness, _decay(distance, _BRIGHTNESS))
            + torch.kron(colours - brightness, _decay(distance, _CHROMA))
        )
    return torch.stack(found)


def brightness_along(count: int, block: int) -> Tensor:
    """Return ``(count, count)`` correlations of block brightness along one row of blocks."""
    place = torch.arange(count).double() * block
    return _decay((place[:, None] - place).abs(), _BRIGHTNESS)


def fewer_lags(rows: int, columns: int) -> tuple[Lag, ...]:
    """Return those of :data:`LAGS` that fit into a grid of blocks."""
    return tuple(lag for lag in LAGS if lag[0] < rows and abs(lag[1]) < columns)


def _decay(distance: Tensor, curve: tuple[float, float]) -> Tensor:
    return torch.exp(-curve[0] * distance ** curve[1])
