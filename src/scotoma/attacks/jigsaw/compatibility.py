"""How well the border of one piece continues in another, for all pairs at once.

A cost is of piece ``j`` as the right neighbour of ``i``; pieces on their sides give the costs
below. Costs become evidence by ratios only, so that neither contrast nor scale matters: what
continues a flat border well, others do too, and all of them get little evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scotoma.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "COSTS",
    "SHARPNESS",
    "below",
    "difference_cost",
    "evidence",
    "gradient_cost",
    "pair_evidence",
    "prediction_cost",
]

_SPAN = 255.0  # 8-bit steps in [0, 1]
_GRAIN = 1e-6  # of a gradient's covariance, as far below one 8-bit step as it should count
_LEAST = 1e-9
_FLOOR = 1e-4  # of an even chance: a border may be broken by chance, once, without ruling it out


def difference_cost(pieces: Tensor) -> Tensor:
    """Return the sum of squared differences across the border (SSD).

    Args:
        pieces: ``(N, C, s, s)`` float64 in [0, 1].

    Returns:
        ``(N, N)``: entry ``[i, j]`` is the cost of ``j`` right of ``i``.

    Source:
        Cho, Avidan, Freeman, A probabilistic image jigsaw puzzle solver, CVPR 2010.
    """
    last, first = pieces[..., -1].flatten(1), pieces[..., 0].flatten(1)
    return torch.cdist(last, first).square()


def prediction_cost(pieces: Tensor) -> Tensor:
    """Return the absolute error when each side predicts the other's border by its own slope.

    Args:
        pieces: ``(N, C, s, s)`` float64 in [0, 1], at least 2 pixels wide.

    Returns:
        ``(N, N)``, as of :func:`difference_cost`.

    Source:
        Pomeranz, Shemesh, Ben-Shahar, A fully automated greedy square jigsaw puzzle solver,
        CVPR 2011.

    Differences from the paper:
        Absolute errors in RGB, in place of the quarter-power of Lab's.
    """
    last, before = pieces[..., -1].flatten(1), pieces[..., -2].flatten(1)
    first, after = pieces[..., 0].flatten(1), pieces[..., 1].flatten(1)
    onward = torch.cdist(2 * last - before, first, p=1)
    return onward + torch.cdist(last, 2 * first - after, p=1)


def gradient_cost(pieces: Tensor) -> Tensor:
    """Return how unlikely the step across the border is among the steps beside it (MGC).

    Args:
        pieces: ``(N, C, s, s)`` float64 in [0, 1], at least 2 pixels wide.

    Returns:
        ``(N, N)``, as of :func:`difference_cost`.

    Source:
        Gallagher, Jigsaw puzzles with pieces of unknown orientation, CVPR 2012.
    """
    mirrored = pieces.flip(-1)
    return _steps(pieces, pieces[..., 0]) + _steps(mirrored, mirrored[..., 0]).T


COSTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "ssd": difference_cost,
    "prediction": prediction_cost,
    "mgc": gradient_cost,
}
"""Costs by name."""

SHARPNESS: Mapping[str, float] = {"ssd": 2.0, "prediction": 4.0, "mgc": 4.0}
"""Power of the ratio between costs that is evidence, by the cost's name."""


def below(pieces: Tensor) -> Tensor:
    """Return pieces on their sides, so that what was below is on the right."""
    return pieces.transpose(-1, -2)


def evidence(costs: Tensor, sharpness: float) -> Tensor:
    """Return the logarithm of how likely each pair are neighbours, by ratios of costs.

    Args:
        costs: ``(..., N, N)``, at least 0.
        sharpness: Power of the ratio.

    Returns:
        ``(..., N, N)`` of the same type: the mean of the logarithms of the probabilities of
        ``j`` given ``i`` and of ``i`` given ``j``; the diagonal is as unlikely as can be.

    Raises:
        SettingsError: The costs are no square matrices.
    """
    if costs.ndim < 2 or costs.shape[-1] != costs.shape[-2]:
        raise SettingsError(f"expected costs (..., N, N), got {tuple(costs.shape)}")
    return pair_evidence(-sharpness * costs.clamp(min=_LEAST).log())


def pair_evidence(logits: Tensor, *, bounded: bool = True) -> Tensor:
    """Return what :func:`evidence` does, of logarithms of unnormalized likelihood.

    Args:
        logits: ``(..., N, N)``.
        bounded: Whether the unlikely is cut off, so that one broken border rules nothing out;
            what is learned from must not be, for it would have no gradient.
    """
    count = logits.shape[-1]
    same = torch.eye(count, dtype=torch.bool)
    logits = logits.masked_fill(same, -1e9)
    both = (logits.log_softmax(-1) + logits.log_softmax(-2)) / 2
    return both.clamp(min=math.log(_FLOOR / count)) if bounded else both


def _steps(pieces: Tensor, first: Tensor) -> Tensor:
    """Return the squared Mahalanobis length of the steps from each last column to ``first``."""
    last = pieces[..., -1]
    steps = last - pieces[..., -2]
    channels = steps.shape[1]
    # One step of rounding each way keeps the covariance of flat borders regular.
    unit = torch.eye(channels, dtype=pieces.dtype) / _SPAN
    ones = torch.ones(channels, 1, dtype=pieces.dtype) / _SPAN
    dummies = torch.cat([0 * ones, unit, -unit, ones, -ones], 1)
    joined = torch.cat([steps, dummies.expand(len(steps), -1, -1)], 2)
    centred = joined - joined.mean(2, keepdim=True)
    covariance = centred @ centred.mT / (joined.shape[2] - 1)
    grain = _GRAIN * torch.eye(channels, dtype=pieces.dtype)
    root = torch.linalg.cholesky(covariance + grain)
    white = torch.linalg.inv(root)
    there = (white @ (last + steps.mean(2, keepdim=True))).flatten(1)
    costs = [
        (torch.einsum("cd,jdy->jcy", one, first).flatten(1) - target).square().sum(1)
        for one, target in zip(white, there, strict=True)
    ]
    return torch.stack(costs)
