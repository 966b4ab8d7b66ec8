"""Smooth filling of holes from what surrounds them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["interpolate"]

Values = NDArray[np.float32]

_FINE_STEPS = 2
_COARSE_STEPS = 40
_COARSE_SIDE = 64


def interpolate(values: Values, known: NDArray[np.bool_]) -> Values:
    """Return ``values`` with the unknown ones replaced by a near-harmonic surface.

    One V-cycle: known values are averaged down a pyramid until no hole is left, then each
    level's holes take the enlarged coarser level and a few steps of Laplace's equation.
    Linear in the number of pixels. Nothing is read where ``known`` is false.

    Args:
        values: ``(C, H, W)`` float32.
        known: ``(H, W)`` bool, true somewhere.

    Returns:
        ``(C, H, W)`` float32; known values as they were, the others within their range.

    Source:
        Gortler et al., The Lumigraph, SIGGRAPH 1996, Sec. 3.4 (pull and push).
    """
    return _fill(np.where(known, values, np.float32(0)), known.astype(np.float32))


def _fill(values: Values, weights: Values) -> Values:
    """Return the surface through ``values`` of ``weights`` in [0, 1], zero meaning unknown."""
    if bool((weights > 0).all()):
        return values
    coarse = _enlarge(_fill(*_pull(values, weights)), (weights.shape[1], weights.shape[0]))
    surface = weights * values + (1 - weights) * coarse
    steps = _COARSE_STEPS if max(weights.shape) <= _COARSE_SIDE else _FINE_STEPS
    return _relax(surface, weights == 0, steps)


def _pull(values: Values, weights: Values) -> tuple[Values, Values]:
    """Return values and weights at half the size, rounded up."""
    height, width = weights.shape
    pad = ((0, height % 2), (0, width % 2))
    weights = np.pad(weights, pad)  # What is added weighs nothing.
    values = np.pad(values, ((0, 0), *pad)) * weights
    total = _sum_pairs(weights)
    # Where nothing is known the sum is zero, whatever it is divided by.
    means = _sum_pairs(values) / np.maximum(total, np.float32(1e-12))
    return means.astype(np.float32, copy=False), np.minimum(total, np.float32(1))


def _sum_pairs(values: Values) -> Values:
    rows: Values = values[..., 0::2, :] + values[..., 1::2, :]
    sums: Values = rows[..., 0::2] + rows[..., 1::2]
    return sums


def _enlarge(values: Values, size: tuple[int, int]) -> Values:
    """Return ``values`` doubled bilinearly and cut to ``size`` (width, height)."""
    doubled = (values.shape[2] * 2, values.shape[1] * 2)
    return np.stack(
        [
            np.asarray(Image.fromarray(plane).resize(doubled, Image.Resampling.BILINEAR))
            for plane in values
        ]
    )[:, : size[1], : size[0]]


def _relax(surface: Values, unknown: NDArray[np.bool_], steps: int) -> Values:
    """Return the surface after Jacobi steps of Laplace's equation on the unknown part."""
    for _ in range(steps):
        framed = np.pad(surface, ((0, 0), (1, 1), (1, 1)), mode="edge")
        mean = framed[:, :-2, 1:-1] + framed[:, 2:, 1:-1]
        mean += framed[:, 1:-1, :-2]
        mean += framed[:, 1:-1, 2:]
        mean *= np.float32(0.25)
        np.copyto(surface, mean, where=unknown)
    return surface
