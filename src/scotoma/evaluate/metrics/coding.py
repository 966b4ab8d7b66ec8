"""How large and how slow: bits, rates at equal quality, and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

from scotoma.core.errors import MissingExtraError, NotApplicableError, SettingsError

__all__ = ["bd_rate", "bits_per_pixel", "median_latency_ms"]

_LEAST_POINTS = 4
_LEAST_OVERLAP = 0.5


def bits_per_pixel(size_bytes: int, height: int, width: int) -> float:
    """Return the bits of a file per pixel of the original, not of what is in the file.

    Raises:
        SettingsError: No pixels, or a negative size.
    """
    if not (size_bytes >= 0 and height >= 1 and width >= 1):
        raise SettingsError(
            f"expected bytes and a picture, got {size_bytes} bytes of {height} × {width} pixels"
        )
    return 8 * size_bytes / (height * width)


def bd_rate(anchor: Sequence[tuple[float, float]], tested: Sequence[tuple[float, float]]) -> float:
    """Return how much larger, in percent, files are at equal quality; negative is smaller.

    Args:
        anchor: ``(rate, quality)`` of what is compared with, four at least; quality in decibels
            or points, higher is better.
        tested: The same of what is tested.

    Raises:
        MissingExtraError: bjontegaard is not installed.
        NotApplicableError: The curves share less than half of their qualities, or one falls as
            rates grow: there is nothing to integrate.
        SettingsError: Too few points, or a rate that is not positive.

    Source:
        Bjontegaard, Calculation of Average PSNR Differences, VCEG-M33, 2001; with Akima splines
        as in Herglotz et al., Beyond Bjøntegaard, 2022, by their library.
    """
    try:
        import bjontegaard
    except ImportError as error:
        raise MissingExtraError("BD-rates", "bjontegaard", "attacks") from error
    curves = [sorted(curve) for curve in (anchor, tested)]
    for curve in curves:
        if len(curve) < _LEAST_POINTS or not all(rate > 0 for rate, _ in curve):
            raise SettingsError(
                f"expected {_LEAST_POINTS} or more (rate, quality) at positive rates, got {curve}"
            )
        if not all(one[1] < other[1] for one, other in pairwise(curve)):
            raise NotApplicableError(
                f"bd_rate: expected quality that grows with the rate, got {curve}"
            )
    low, high = (pick(curve[place][1] for curve in curves) for pick, place in ((max, 0), (min, -1)))
    spans = [curve[-1][1] - curve[0][1] for curve in curves]
    if not high - low >= _LEAST_OVERLAP * max(spans):
        raise NotApplicableError(
            f"bd_rate: expected curves that share half of their qualities, got {low:.3g} to "
            f"{high:.3g} in common"
        )
    rates = [[rate for rate, _ in curve] for curve in curves]
    qualities = [[quality for _, quality in curve] for curve in curves]
    found = bjontegaard.bd_rate(
        rates[0],
        qualities[0],
        rates[1],
        qualities[1],
        method="akima",
        require_matching_points=False,
        min_overlap=0,
    )
    return float(found)


def median_latency_ms(call: Callable[[], object], *, repeats: int = 9, warm_up: int = 2) -> float:
    """Return the median time of a call, in milliseconds.

    Args:
        call: What is timed; it waits for its device itself.
        repeats: How often it is timed.
        warm_up: Calls before, which are not: caches fill and kernels are chosen in them.

    Raises:
        SettingsError: Nothing to time.
    """
    if not (repeats >= 1 and warm_up >= 0):
        raise SettingsError(f"expected at least one repeat, got {repeats} after {warm_up}")
    for _ in range(warm_up):
        call()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return 1000 * median(found)
