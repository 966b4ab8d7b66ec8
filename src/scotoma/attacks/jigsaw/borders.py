"""A network that judges whether two borders continue each other.

::

    left piece's last columns ── conv ──┐
                                         + ── ReLU ── conv ── ReLU ── mean ── linear ──► + ──► logit
    right piece's first columns ─ conv ──┘                                              │
    hand-made costs (SSD, prediction, MGC), logarithms ── weights ─────────────────────┘

Before training the network's own share is zero, so that what it knows is the best hand-made
cost. Convolutions go along the border; each piece is read once, and pairs are only added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scotoma.attacks.jigsaw.compatibility import COSTS, SHARPNESS, pair_evidence

__all__ = ["BorderNetwork", "PlaceNetwork"]

_LEAST = 1e-9
_DEPTH = 3
_CHUNK = 2**13
_SQUARES = 4


class BorderNetwork(nn.Module):
    """Evidence for ``j`` right of ``i``, for all pairs of pieces; see the module's drawing.

    Args:
        width: Channels along the border.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left = nn.Conv1d(3 * _DEPTH, width, 3, padding=1)
        self.right = nn.Conv1d(3 * _DEPTH, width, 3, padding=1, bias=False)
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        self.read = nn.Linear(width, 1, bias=False)
        self.costs = nn.Parameter(torch.tensor([0.0, 0.0, SHARPNESS["mgc"]]))
        nn.init.zeros_(self.read.weight)

    def forward(self, pieces: Tensor) -> Tensor:
        """Return the evidence; while it trains, without a lower bound.

        Args:
            pieces: ``(N, 3, M, M)`` in [0, 1].

        Returns:
            ``(N, N)`` float32.
        """
        wide = pieces.double()
        with torch.no_grad():
            names = ("ssd", "prediction", "mgc")
            costs = torch.stack([COSTS[name](wide).clamp(min=_LEAST).log() for name in names])
        known = (costs.float() * self.costs[:, None, None]).sum(0)
        plain = wide.float() - 0.5
        last = self.left(plain[..., -_DEPTH:].transpose(2, 3).flatten(1, 2))
        # Both are read from the border inwards.
        first = self.right(plain[..., :_DEPTH].flip(-1).transpose(2, 3).flatten(1, 2))
        count, rows = len(pieces), max(1, _CHUNK // len(pieces))
        own = []
        for part in last.split(rows):
            pairs = (part[:, None] + first).relu().flatten(0, 1)
            own.append(self.read(self.mix(pairs).relu().mean(-1)).view(-1, count))
        return pair_evidence(torch.cat(own) - known, bounded=not self.training)


class PlaceNetwork(nn.Module):
    """How likely a piece is from each row and column, by its colours alone.

    Args:
        grid: Rows and columns.
        width: Of the hidden layer.
    """

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.grid = grid
        self.body = nn.Sequential(
            nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, grid[0] + grid[1])
        )
        self.body(torch.zeros(1, 3 * _SQUARES**2 + 3))  # the first layer learns its size
        last = self.body[2]
        if isinstance(last, nn.Linear):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, pieces: Tensor) -> Tensor:
        """Return ``(rows, columns, N)``: logarithms of likelihood over an even chance."""
        down, across = self.read(pieces)
        return (down.T[:, None] + across.T[None]).contiguous()

    def read(self, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same for rows ``(N, rows)`` and columns ``(N, columns)``."""
        plain = pieces.float()
        small = nn.functional.adaptive_avg_pool2d(plain, _SQUARES).flatten(1)
        rough = plain.flatten(2).std(2)
        both = self.body(torch.cat([small - 0.5, rough], 1))
        down, across = both.split(list(self.grid), 1)
        even = torch.tensor([float(side) for side in self.grid]).log()
        return down.log_softmax(1) + even[0], across.log_softmax(1) + even[1]
