"""Pillow's resize as matrices, so that gradients pass through it.

``Image.resize`` is separable: every output row is a weighted sum of input rows,
every output column of input columns. The weights here are Pillow's own, without
its rounding to 8 bits between and after the two passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import SettingsError, UnknownNameError

__all__ = ["cell_matrix", "resize_matrix"]

Matrix = NDArray[np.float32]


def _box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.maximum(1 - np.abs(x), 0.0)
    return weights


def _cubic(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


_FILTERS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


@lru_cache(maxsize=256)
def resize_matrix(size_in: int, size_out: int, interpolation: str) -> Matrix:
    """Return the weights with which Pillow resizes one axis.

    Args:
        size_in: Pixels before.
        size_out: Pixels after.
        interpolation: ``box``, ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.

    Returns:
        ``(size_out, size_in)`` float32, read-only; each row sums to one.

    Raises:
        SettingsError: A size below one, or an unknown filter.

    Example:
        >>> resize_matrix(4, 2, "box")
        array([[0.5, 0.5, 0. , 0. ],
               [0. , 0. , 0.5, 0.5]], dtype=float32)
    """
    if size_in < 1 or size_out < 1:
        raise SettingsError(f"expected sizes of at least 1, got {size_in} and {size_out}")
    scale = size_in / size_out
    centers = (np.arange(size_out) + 0.5) * scale
    if interpolation == "nearest":
        weights = np.zeros((size_out, size_in))
        weights[np.arange(size_out), np.minimum(centers.astype(int), size_in - 1)] = 1
    elif size_in == size_out:
        weights = np.eye(size_in)  # Pillow skips a pass that changes nothing
    elif interpolation in _FILTERS:
        kernel, support = _FILTERS[interpolation]
        stretch = max(scale, 1.0)
        weights = np.zeros((size_out, size_in))
        for row, center in enumerate(centers):
            first = max(0, math.trunc(center - support * stretch + 0.5))
            last = min(size_in, math.trunc(center + support * stretch + 0.5))
            values = kernel((np.arange(first, last) - center + 0.5) / stretch)
            weights[row, first:last] = values / values.sum()
    else:
        raise UnknownNameError("interpolation", interpolation, [*_FILTERS, "nearest"])
    result = weights.astype(np.float32)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=4096)
def cell_matrix(size: int, cells: int, *, smooth: bool) -> Matrix:
    """Return the weights that spread ``cells`` values over ``size`` pixels.

    Args:
        size: Pixels along the axis.
        cells: Number of equal cells along it, at most ``size``.
        smooth: Interpolate linearly between cell centres; otherwise every pixel takes the
            value of its cell.

    Returns:
        ``(size, cells)`` float32, read-only; each row sums to one and nothing is negative,
        so that values in a range stay in it.
    """
    if not 1 <= cells <= size:
        raise SettingsError(f"expected 1 <= cells <= size, got {cells} cells on {size} pixels")
    place = (np.arange(size) + 0.5) * cells / size - 0.5
    if not smooth:
        place = np.round(place)
    place = np.clip(place, 0, cells - 1)
    left = np.floor(place).astype(int)
    right = np.minimum(left + 1, cells - 1)
    weights = np.zeros((size, cells), np.float32)
    share = (place - left).astype(np.float32)
    np.add.at(weights, (np.arange(size), left), 1 - share)
    np.add.at(weights, (np.arange(size), right), share)
    weights.setflags(write=False)
    return weights
