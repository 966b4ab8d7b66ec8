"""Linear maps from examples: exact where there are enough, the best guess where there are not."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fit_linear", "fit_rotation", "relative_error"]

_TOLD = 1e-14
_SPARE = 0.01
_RIDGES = tuple(10.0**power for power in range(-14, 3))


def fit_linear(known: Tensor, wanted: Tensor, asked: Tensor) -> tuple[Tensor, float]:
    """Return what a linear map makes of new vectors, learned from examples by ridge regression.

    How strong the ridge is, the examples decide: each is predicted from all others.

    Args:
        known: ``(C, m, d')`` inputs of ``C`` separate maps.
        wanted: ``(C, m, d)`` their outputs.
        asked: ``(C, k, d')`` new inputs.

    Returns:
        ``(C, k, d)`` outputs, and the mean square that leaving one out predicts, as a part
        of the outputs' own.

    Source:
        Golub, Heath, Wahba, Generalized Cross-Validation, Technometrics 1979.
    """
    mean_in, mean_out = known.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    left, values, right = torch.linalg.svd(known - mean_in, full_matrices=False)
    inner = left.mT @ (wanted - mean_out)
    size, total = known.shape[1], wanted.square().sum()  # whatever the means: classes share it
    best, error = torch.zeros_like(values), float("inf")
    for ridge in _RIDGES:
        level = ridge * values.square().amax(1, keepdim=True)
        kept = values.square() / (values.square() + level).clamp(min=torch.finfo(values.dtype).tiny)
        spare = (size - 1 - kept.sum(1)) / size
        if float(spare.min()) < _SPARE:
            continue  # it interpolates, and says nothing of others
        missed = (wanted - mean_out).square().sum((1, 2)) - (
            kept * (2 - kept) * inner.square().sum(2)
        ).sum(1)
        predicted = float((missed.clamp(min=0) / spare.square()).sum() / total.clamp(min=1e-300))
        if predicted < error:
            best = kept / values.clamp(min=torch.finfo(values.dtype).tiny)
            error = predicted
    guess: Tensor = ((asked - mean_in) @ right.mT * best[:, None]) @ inner + mean_out
    return guess, error


def fit_rotation(known: Tensor, wanted: Tensor) -> Tensor:
    """Return ``(C, d, d)`` rotations ``R`` with ``wanted = known @ R`` as nearly as can be.

    Directions of which the examples tell nothing are mapped to zero.

    Source:
        Schönemann, A Generalized Solution of the Orthogonal Procrustes Problem, 1966.
    """
    left, values, right = torch.linalg.svd(known.mT @ wanted)
    told = values > _TOLD * values[:, :1]
    turned: Tensor = (left * told[:, None]) @ right
    return turned


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return the mean square of the difference, as a part of the mean square of what is wanted."""
    return float((found - wanted).square().sum() / wanted.square().sum().clamp(min=1e-300))
