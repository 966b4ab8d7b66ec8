"""Magnitude pruning: the smallest weights become zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scotoma.core.errors import SettingsError

__all__ = ["prune_smallest"]


def prune_smallest(weights: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the tensors with a share of all kernels' weights set to zero, the smallest first.

    Weights are compared across tensors in units of each one's root mean square, without which
    layers of small weights would vanish first. Vectors (biases) are kept.

    Args:
        weights: By name.
        share: Of the weights of all tensors of two or more axes, in [0, 1).

    Source:
        Han, Pool, Tran, Dally, Learning both Weights and Connections for Efficient Neural
        Networks, NeurIPS 2015.
    """
    if not 0 <= share < 1:
        raise SettingsError(f"expected a share in [0, 1), got {share}")
    kernels = {n: w for n, w in weights.items() if w.ndim >= 2}
    scaled = {
        n: w.abs() / w.square().mean().sqrt().clamp(min=torch.finfo(w.dtype).tiny)
        for n, w in kernels.items()
    }
    every = torch.cat([value.reshape(-1) for value in scaled.values()])
    count = int(share * len(every))
    if count == 0:
        return dict(weights)
    limit = every.kthvalue(count).values
    return {
        n: torch.where(scaled[n] > limit, w, 0) if n in scaled else w for n, w in weights.items()
    }
