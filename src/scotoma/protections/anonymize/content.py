"""What a region shows, in few numbers: what a search without gradients can afford to move.

Low frequencies first: a classifier's answer to a smooth change over the region is the same
sign over many pixels, so that one number moves it further than one cell does.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scotoma.core.errors import UnknownNameError
from scotoma.ops.resampling import cell_matrix
from scotoma.protections.anonymize.canvas import Canvas

__all__ = ["BASES", "Content"]

BASES = ("dct", "cells")
"""Low-frequency cosines, or the values of a coarser grid of cells."""

_COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))  # brightness, then two of colour
_FALL = 4.0  # half waves over a region's shorter side at which numbers weigh half


class Content:
    """The cells of a canvas as a linear map of few numbers.

    A number of one moves the pixels of its region by one 255th (root mean square).

    Args:
        canvas: Whose cells.
        count: How many numbers, of all regions together; each region gets three at least.
        basis: One of :data:`BASES`.

    Raises:
        UnknownNameError: Not a basis.
    """

    def __init__(self, canvas: Canvas, count: int, basis: str = "dct") -> None:
        if basis not in BASES:
            raise UnknownNameError("basis", basis, BASES)
        self._canvas = canvas
        areas = [math.prod(part.base.shape[1:]) for part in canvas.patches]
        shares = [max(1, round(count / 3 * area / sum(areas))) for area in areas]
        make = _cosines if basis == "dct" else _coarse_cells
        parts = [
            make(cells.shape[1], cells.shape[2], share)
            for cells, share in zip(canvas.cells, shares, strict=True)
        ]
        self._patterns = [pattern for pattern, _ in parts]
        self.weights = np.concatenate([np.repeat(weight, 3) for _, weight in parts])

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.weights)

    def cells(self, numbers: Tensor) -> list[Tensor]:
        """Return the cells of each region, ``(n, 3, down, across)``, as far as pixels can follow.

        Args:
            numbers: ``(n, size)`` float32.
        """
        colours = torch.tensor(_COLOURS)
        colours = colours * (math.sqrt(3) / colours.norm(dim=1, keepdim=True))
        shares = torch.split(numbers, [3 * len(patterns) for patterns in self._patterns], 1)
        found = []
        for patterns, share, patch in zip(
            self._patterns, shares, self._canvas.patches, strict=True
        ):
            own = share.reshape(len(share), -1, 3) @ colours
            cells = torch.einsum("npc,pde->ncde", own, patterns)
            found.append(torch.minimum(torch.maximum(cells, patch.low), patch.high))
        return found


def _cosines(down: int, across: int, count: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the ``count`` lowest cosines of a grid, each of unit size, and their weights."""
    short = min(down, across)
    waves = sorted(
        (math.hypot(v * short / down, h * short / across), v, h)
        for v in range(min(down, count))
        for h in range(min(across, count))
    )[:count]
    patterns = torch.stack([_cosine(down, v)[:, None] * _cosine(across, h) for _, v, h in waves])
    return patterns, np.array([1 / (1 + wave / _FALL) for wave, _, _ in waves])


def _cosine(size: int, half_waves: int) -> Tensor:
    place = (torch.arange(size) + 0.5) / size
    return torch.cos(math.pi * half_waves * place) * (math.sqrt(2) if half_waves else 1.0)


def _coarse_cells(down: int, across: int, count: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Return about ``count`` overlapping squares of a grid, each of unit size."""
    side = math.sqrt(down * across / count)
    rows = torch.tensor(cell_matrix(down, _fitting(down, side), smooth=True))
    columns = torch.tensor(cell_matrix(across, _fitting(across, side), smooth=True))
    patterns = torch.einsum("dv,eh->vhde", rows, columns).flatten(0, 1)
    size = patterns.square().mean((1, 2), keepdim=True).sqrt()
    return patterns / size, np.ones(len(patterns))


def _fitting(cells: int, side: float) -> int:
    return min(cells, max(1, round(cells / side)))
