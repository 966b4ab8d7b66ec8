"""The directions of encrypted blocks that vary least from block to block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scotoma.attacks.statistics.moments import lag_covariances, whitener

__all__ = ["independent_components", "smooth_components", "whitened"]

_ROUNDS = 200
_SAMPLES = 20_000  # more tell FastICA little


def whitened(blocks: Tensor, *, floor: float = 1e-6) -> Tensor:
    """Return ``(B, r, rows, columns)``: centred, of unit covariance over all blocks.

    Directions of less than ``floor`` of the largest variance are dropped, and those that the
    blocks are too few to show.
    """
    centred = blocks - blocks.mean((0, 2, 3), keepdim=True)
    size = blocks.shape[1]
    covariance = centred.transpose(0, 1).reshape(size, -1)
    covariance = covariance @ covariance.T / centred[:, 0].numel()
    return torch.einsum("rd,bdhw->brhw", whitener(covariance, floor), centred)


def smooth_components(
    blocks: Tensor, count: int, *, lags: Sequence[tuple[int, int]] = ((0, 1), (1, 0))
) -> Tensor:
    """Return the ``count`` uncorrelated components that are most like their neighbours.

    Args:
        blocks: ``(B, d, rows, columns)``.
        count: At most so many.
        lags: Blocks down and across to the neighbours.

    Returns:
        ``(K, B, rows, columns)``, the smoothest first.

    Source:
        Switzer, Green, Min/Max Autocorrelation Factors for Multivariate Spatial Imagery, 1984;
        several lags at once as in Molgedey, Schuster, Phys. Rev. Letters 1994.
    """
    white = whitened(blocks)
    likeness = lag_covariances(white, lags).mean(0)
    axes = torch.linalg.eigh(likeness + likeness.T)[1].flip(1)[:, :count]
    return torch.einsum("dk,bdhw->kbhw", axes, white)


def independent_components(components: Tensor, *, seed: int) -> Tensor:
    """Return as many independent mixtures of ``(K, B, h, w)`` components, by FastICA.

    Source:
        Hyvärinen, Fast and Robust Fixed-Point Algorithms for Independent Component Analysis,
        IEEE Trans. Neural Networks 1999.
    """
    import warnings

    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    flat = components.flatten(1).T.double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica = FastICA(whiten="unit-variance", random_state=seed, max_iter=_ROUNDS)
        ica.fit(flat[:: 1 + len(flat) // _SAMPLES])
    found = ica.transform(flat)
    return torch.from_numpy(found.T.copy()).view_as(components)
