"""The distributions that latents are coded under, the same on every machine."""

from __future__ import annotations

from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import MissingExtraError

__all__ = ["BOUNDS", "PARTS", "curves_for", "require_constriction"]

PARTS = 8
"""A centre is told to an eighth of a level, and so are sizes of errors."""

_WIDTHS = 44


_EXACT = Context(prec=40)
_ROOT = _EXACT.sqrt(_EXACT.sqrt(Decimal(2)))  # roots are rounded correctly, powers need not be


def _scale(width: int, times: str = "1") -> Decimal:
    """Return a curve's scale in eighths, a quarter of an octave from one to the next."""
    found = _EXACT.multiply(Decimal("0.35"), Decimal(times))
    for _ in range(width):
        found = _EXACT.multiply(found, _ROOT)
    return found


# A guess of the error's size up to the first bound takes the first curve. 1.3863, twice the
# logarithm of 2, is a logistic distribution's mean distance from its centre over its scale; half
# a step further the next curve is nearer.
BOUNDS = np.array([int(_scale(width, "1.5118")) for width in range(_WIDTHS - 1)])
"""Guesses of an error's size, in eighths, at which the next curve begins."""


@lru_cache(maxsize=4)
def curves_for(levels: int) -> list[Any]:
    """Return a distribution per width and part over the distances from the centre's level.

    Distances beyond the last level come round again, so that there are as many as levels. Each
    curve is a logistic density, an eighth of it three times as wide, and a floor.
    """
    make = require_constriction().stream.model.Categorical
    reach = np.arange(-levels, levels) * PARTS
    found = []
    for width in range(_WIDTHS):
        narrow, wide = (_logistic(_scale(width, times), (levels + 1) * PARTS) for times in "13")
        bell = 7 * narrow + wide
        for part in range(PARTS):
            halves = bell[np.abs(reach - (part - PARTS // 2))].reshape(2, levels)
            whole = halves.sum(0)  # at place d: of distance d and of distance d - levels
            counts = whole * 2**20 // int(whole.sum()) + 1
            found.append(make(counts.astype(np.float32), perfect=False))
    return found


def _logistic(scale: Decimal, count: int) -> NDArray[Any]:
    """Return a logistic density at 0, 1, ... eighths, as Python's integers, summing to about 2^40.

    Decimal's exponential is rounded correctly, hence the same everywhere; floats' is not.
    """
    one = 1 << 60
    ratio = int(_EXACT.multiply(_EXACT.exp(_EXACT.divide(Decimal(-1), scale)), Decimal(one)))
    power, found = one, []
    for _ in range(count):
        found.append((power << 40) * one // (one + power) ** 2)
        power = power * ratio >> 60
    total = 2 * sum(found) - found[0]
    return np.array([value * 2**40 // total for value in found], dtype=object)


def require_constriction() -> Any:
    """Return the module.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import constriction
    except ImportError as error:
        raise MissingExtraError("entropy coding", "constriction", "encode") from error
    return constriction
