"""Figures that a row holds: rates with their uncertainty, and distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

__all__ = ["quantile", "rate", "spread", "wilson"]

_Z = 1.959964  # of the two-sided 95 % interval


def wilson(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate of ``count`` in ``n``.

    Args:
        count: 0 to ``n``.
        n: At least 1.

    Source:
        Wilson, Probable inference, the law of succession, and statistical inference,
        JASA 1927.
    """
    share, square = count / n, _Z**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _Z * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    # At the ends the formula gives 0 and 1 up to rounding.
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == n else min(1.0, centre + half)
    return low, high


def rate(count: int, n: int) -> dict[str, Any]:
    """Return a rate as a row holds it: count, n, rate and interval; None of no picture."""
    if n == 0:
        return {"count": 0, "n": 0, "rate": None, "low": None, "high": None}
    low, high = wilson(count, n)
    return {
        "count": count,
        "n": n,
        "rate": round(count / n, 5),
        "low": round(low, 5),
        "high": round(high, 5),
    }


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return n, median, mean, 95th percentile and largest; None of no value."""
    if not values:
        return {"n": 0, "median": None, "mean": None, "p95": None, "max": None}
    return {
        "n": len(values),
        "median": round(median(values), 4),
        "mean": round(fmean(values), 4),
        "p95": round(quantile(values, 0.95), 4),
        "max": round(max(values), 4),
    }
