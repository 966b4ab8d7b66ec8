"""The order of a block's values in which neighbours differ least: moved values give it away."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import Generator, Tensor

from scotoma.attacks.statistics.classes import map_period
from scotoma.attacks.statistics.moments import lag_covariances
from scotoma.attacks.statistics.natural import block_covariances, fewer_lags
from scotoma.attacks.views import block_side, release_blocks, unnormalize
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.blocks import from_blocks

__all__ = ["MinimumDifference", "least_difference_order"]

_LAGS = 3  # the block itself, the one beside, the one below: what settles mirrors and turns
_STILL = 1e-9


@dataclass(frozen=True)
class MinimumDifference:
    """Put a block's values in the order that makes near pixels differ least (MDA).

    Values that change places keep how much they differ from each other, over all blocks, and
    from the values of the next block. Differences count the more the nearer two places are
    alike in natural pictures. Which colour is which stays open: all six orders are candidates.

    Args:
        rounds: Steps of the search, at most.

    Security:
        One order for all blocks falls to one or two pictures, exactly. Rotations, a map for each
        position or picture, and blocks that move stop this form.

    Differences from the paper:
        The criterion is the minimum difference attack's on perceptual encryption. There only
        neighbours count, and all alike; how near places are weighted and searched is ours.

    Source:
        Search: Vogelstein et al., Fast Approximate Quadratic Programming for Graph Matching,
        PLOS ONE 2015.
    """

    rounds: int = 30

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; candidates differ in colours only.

        Raises:
            NotApplicableError: Blocks hold other than a picture's values, or positions have
                maps of their own; see :class:`~scotoma.core.protocols.Attack`.
        """
        blocks, block = release_blocks(release), block_side(release)
        if blocks.shape[1] != 3 * block**2 or map_period(release) != (1, 1):
            raise NotApplicableError(
                f"expected blocks of {3 * block**2} values that all changed places alike, got "
                f"{blocks.shape[1]} values and maps that repeat every {map_period(release)} blocks"
            )
        lags = fewer_lags(*blocks.shape[2:])[:_LAGS]
        covariances = lag_covariances(blocks, lags)
        spread = covariances[0].diag()
        differences = spread[:, None] + spread - 2 * covariances
        near = block_covariances(block, lags, release.metadata.get("std"))
        order = least_difference_order(differences, near, rounds=self.rounds)
        colours = order.view(3, -1)
        return torch.stack(
            [
                unnormalize(from_blocks(blocks[:, colours[list(way)].flatten()], block), release)
                for way in permutations(range(3))
            ]
        )


def least_difference_order(differences: Tensor, near: Tensor, *, rounds: int) -> Tensor:
    """Return the order that makes the sum of differences, weighted by nearness, small.

    Args:
        differences: ``(L, d, d)`` mean square differences of values, within a block and to
            blocks a lag away.
        near: ``(L, d, d)``; how much two places count, in the order of places.
        rounds: Frank-Wolfe steps, at most, from the mean of all orders.

    Returns:
        ``(d,)`` int64: place ``n`` holds value ``order[n]``.
    """
    differences = differences / differences.mean().clamp(min=1e-300)
    where = torch.full_like(differences[0], 1 / differences.shape[1])
    for _ in range(rounds):
        slope = (differences @ where @ near.mT + differences.mT @ where @ near).sum(0)
        step = _best(slope) - where
        fall = float((slope * step).sum())
        bend = float((near * (step.T @ differences @ step)).sum())
        length = min(1.0, -fall / (2 * bend)) if bend > 0 else 1.0
        where = where + length * step
        if not -length * fall > _STILL * float((slope * where).sum().abs()):
            break
    return _best(-where).argmax(0)


def _best(cost: Tensor) -> Tensor:
    """Return the permutation matrix of least cost; rows are values, columns places."""
    from scipy.optimize import linear_sum_assignment

    matrix = torch.zeros_like(cost)
    rows, columns = (torch.from_numpy(part) for part in linear_sum_assignment(cost.numpy()))
    matrix[rows, columns] = 1
    return matrix
