"""Blocks sorted by the map they went through: a class of positions has one map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scotoma.attacks.views import release_blocks
from scotoma.core.protocols import Release

__all__ = ["centred_classes", "from_classes", "map_period", "to_classes"]


def map_period(release: Release) -> tuple[int, int]:
    """Return blocks down and across after which a release's maps repeat, by its public settings.

    A scheme with a ``period`` setting has its maps by position; none given means that no two
    positions share one. Other schemes have one map for all.
    """
    settings = release.metadata.get("settings", {})
    if "period" not in settings:
        return 1, 1
    rows, columns = release_blocks(release).shape[2:]
    down, across = settings["period"] or (rows, columns)
    return min(int(down), rows), min(int(across), columns)


def to_classes(grid: Tensor, period: tuple[int, int]) -> Tensor:
    """Return ``(C, m, d)`` vectors by class of ``(B, d, rows, columns)``, ``C = P_h * P_w``.

    Where the period does not divide the grid, zeros complete it.
    """
    size = grid.shape[1]
    down, across = period
    whole = F.pad(grid, (0, -grid.shape[3] % across, 0, -grid.shape[2] % down))
    parts = whole.reshape(len(grid), size, whole.shape[2] // down, down, -1, across)
    return parts.permute(3, 5, 0, 2, 4, 1).reshape(down * across, -1, size)


def from_classes(vectors: Tensor, period: tuple[int, int], shape: tuple[int, int, int]) -> Tensor:
    """Undo :func:`to_classes`; ``shape`` is pictures, rows and columns of the grid."""
    count, rows, columns = shape
    down, across = period
    tall, wide = -(-rows // down), -(-columns // across)
    parts = vectors.reshape(down, across, count, tall, wide, -1).permute(2, 5, 3, 0, 4, 1)
    return parts.reshape(count, -1, tall * down, wide * across)[:, :, :rows, :columns]


def centred_classes(grid: Tensor, period: tuple[int, int]) -> Tensor:
    """Return :func:`to_classes` less each class's mean; what completes the grid stays zero."""
    there = to_classes(torch.ones_like(grid[:, :1]), period)
    vectors = to_classes(grid, period)
    mean = vectors.sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
    return (vectors - mean) * there
