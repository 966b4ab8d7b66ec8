"""Integers of any size as few symbols, each with a rest of some bits that are not worth modelling.

Magnitudes up to 15 have a symbol of their own. Greater ones share four symbols per octave;
which of a symbol's values it is, the rest says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GREATEST", "SYMBOLS", "ZERO", "join", "magnitude", "split", "width_of"]

GREATEST = 2**24 - 1
"""The largest magnitude that has a symbol."""

Places = NDArray[np.intp]

_EXACT = 15
_LARGE = 1 << 12

ZERO = _EXACT + 4 * (GREATEST.bit_length() - 4)
"""The symbol of 0; those of opposite integers are as far from it on either side."""

SYMBOLS = 2 * ZERO + 1
"""How many symbols there are."""


def split(values: NDArray[Any]) -> tuple[Places, Places, Places]:
    """Return symbols, and how many bits of which rest say which of a symbol's values it is."""
    sizes = np.abs(values.astype(np.intp))
    widths = np.maximum(_bit_length(sizes) - 3, 0) * (sizes > _EXACT)
    shared = 4 * widths + (sizes >> widths) + 4
    distance = np.where(sizes > _EXACT, shared, sizes)
    symbols = ZERO + np.where(values < 0, -distance, distance)
    return symbols.astype(np.intp), widths, sizes & ((1 << widths) - 1)


def join(symbols: Places, widths: Places, rests: NDArray[np.int64]) -> Places:
    """Return the integers that :func:`split` was given."""
    distance = np.abs(symbols - ZERO)
    high = distance - 4 * widths - 4
    sizes = np.where(widths > 0, (high << widths) | rests, distance)
    return np.where(symbols < ZERO, -sizes, sizes)


def width_of(distance: Places) -> Places:
    """Bits of rest that belong to symbols at this distance from zero's."""
    return np.maximum(distance // 4 - 2, 0) * (distance > _EXACT)


def magnitude(symbols: Places) -> Places:
    """Least magnitude of each symbol, as guesses count it."""
    distance = np.abs(symbols - ZERO)
    least = join(ZERO + distance, width_of(distance), np.zeros(len(symbols), np.int64))
    return np.minimum(least, _LARGE)


def _bit_length(sizes: Places) -> Places:
    # Exact: a float64 holds every magnitude here, and frexp only reads its exponent.
    return np.frexp(sizes.astype(np.float64))[1].astype(np.intp)
