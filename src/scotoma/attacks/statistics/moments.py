"""Second moments of encrypted blocks, and the map that brings them to natural ones.

If every block went through one map ``b' = A b``, the covariance of blocks a lag ``l`` apart
became ``S_l = A C_l A^T``, and the ``C_l`` of natural pictures are known. Eigenvectors in
their order give the map up to signs, correlations between neighbours give signs against each
other, and a few rounds of orthogonal Procrustes fit all lags at once. One sign is left: a
picture and its negative have the same second moments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["lag_covariances", "match_moments", "principal_axes", "settle_signs", "whitener"]

_FLOOR = 1e-9
_ENOUGH = 1e-6


def lag_covariances(blocks: Tensor, lags: Sequence[tuple[int, int]]) -> Tensor:
    """Return ``(L, d, d)``: mean of ``b_i b_j^T`` over all blocks ``j`` a lag from ``i``.

    Args:
        blocks: ``(B, d, rows, columns)``; their mean over everything is taken off.
        lags: Blocks down, at least 0, and across.
    """
    size, rows, columns = blocks.shape[1:]
    centred = blocks - blocks.mean((0, 2, 3), keepdim=True)
    found = []
    for down, across in lags:
        here = centred[:, :, : rows - down, max(0, -across) : columns - max(0, across)]
        there = centred[:, :, down:, max(0, across) : columns + min(0, across)]
        first, second = (part.transpose(0, 1).reshape(size, -1) for part in (here, there))
        found.append(first @ second.T / first.shape[1])
    return torch.stack(found)


def principal_axes(covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` largest eigenvalues, largest first, and ``(d, count)`` eigenvectors."""
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0)[:count], vectors.flip(1)[:, :count]


def whitener(covariance: Tensor, floor: float = 1e-6) -> Tensor:
    """Return ``(r, d)`` that makes the covariance one, without directions that hardly vary.

    Args:
        covariance: ``(d, d)``, symmetric.
        floor: Of the largest eigenvalue; smaller ones are dropped.
    """
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > floor * values[-1]
    scaled: Tensor = vectors[:, kept] / values[kept].sqrt()
    return scaled.T.flip(0)


def settle_signs(agreement: Tensor) -> Tensor:
    """Return signs ``s`` that make ``s^T K s`` large: the top eigenvector's, improved one by one.

    Args:
        agreement: ``(d, d)``; its symmetric part counts, without the diagonal.
    """
    pull = agreement + agreement.T
    pull = pull - torch.diag(pull.diag())
    signs = torch.where(torch.linalg.eigh(pull)[1][:, -1] < 0, -1.0, 1.0).to(pull)
    for _ in range(len(signs)):
        losses = signs * (pull @ signs)
        worst = int(losses.argmin())
        if not losses[worst] < 0:
            break
        signs[worst] = -signs[worst]
    return signs


def match_moments(
    found: Tensor, natural: Tensor, *, count: int, power: float = 0.5, rounds: int = 100
) -> Tensor:
    """Return the map with orthonormal columns that best brings natural moments to found ones.

    Args:
        found: ``(L, d', d')`` of encrypted blocks; the first is their covariance.
        natural: ``(L, d, d)`` of plain ones, for the same lags.
        count: How many components, of largest variance, are matched.
        power: How far components are brought to equal weight: 0 leaves variances as they
            are, 1 makes them all one.
        rounds: At most so many Procrustes steps, each of which can only improve the match.

    Returns:
        ``(d', d)`` float64 of rank ``count`` or less; its transpose takes encrypted blocks to
        plain ones, up to one sign for all of them.
    """
    count = min(count, len(found[0]), len(natural[0]))
    spread, axes = principal_axes(found[0], count)
    usual, plain_axes = principal_axes(natural[0], count)
    spread = spread.clamp(min=_FLOOR * float(spread[0]))
    ours, theirs = axes.T @ found @ axes, plain_axes.T @ natural @ plain_axes
    agreement = (_scaled(ours, spread, 1.0) * _scaled(theirs, usual, 1.0))[1:].sum(0)
    turn = torch.diag(settle_signs(agreement))
    ours, theirs = _scaled(ours, spread, power), _scaled(theirs, usual, power)
    ours, theirs = ours / ours[0].norm(), theirs / theirs[0].norm()
    reached = 0.0
    for _ in range(rounds):
        left, values, right = torch.linalg.svd(
            (ours @ turn @ theirs.mT + ours.mT @ turn @ theirs).sum(0)
        )
        turn = left @ right
        if not float(values.sum()) - reached > _ENOUGH * reached:
            break
        reached = float(values.sum())
    return axes @ turn @ plain_axes.T


def _scaled(moments: Tensor, spread: Tensor, power: float) -> Tensor:
    return moments / torch.outer(spread, spread) ** (power / 2)
