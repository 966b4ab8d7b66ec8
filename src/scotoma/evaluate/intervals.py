"""How sure a rate or a mean is: 95 % intervals.

Both take pictures for independent draws. Where pictures share a key or a person they are
not, and the true interval is wider: raise the number of keys, not of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import SettingsError

__all__ = ["bootstrap_interval", "mean_interval", "wilson_interval"]

_Z95 = 1.959963984540054  # the normal distribution holds 95 % within ± this
_RESAMPLES = 2000
_MOST_CORRECTED = 2000
_VALUES_AT_ONCE = 2_000_000
_LEAST_SPREAD = 1e-12

Statistic = Callable[[NDArray[np.float64], int], NDArray[np.float64]]


def wilson_interval(successes: int, n: int) -> tuple[float, float] | None:
    r"""Return the Wilson 95 % score interval of a rate.

    Unlike the textbook's normal interval it stays within [0, 1] and says
    something honest of 12 out of 12.

    .. math:: \frac{\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Args:
        successes: Between 0 and ``n``.
        n: Trials.

    Returns:
        Its two ends, or None if ``n`` is 0.

    Raises:
        SettingsError: ``successes`` is not between 0 and ``n``.

    Example:
        >>> low, high = wilson_interval(9, 12)
        >>> f"{low:.3f} {high:.3f}"
        '0.468 0.911'

    Source:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    if not 0 <= successes <= n:
        raise SettingsError(f"expected a count between 0 and {n}, got {successes}")
    if n == 0:
        return None
    rate, z2 = successes / n, _Z95**2
    middle = rate + z2 / (2 * n)
    reach = _Z95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low, high = (middle - reach) / (1 + z2 / n), (middle + reach) / (1 + z2 / n)
    # At the ends the formula gives exactly 0 and 1; floating point misses by a little.
    return (0.0 if successes == 0 else low, 1.0 if successes == n else high)


def mean_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Return a mean and its bootstrap 95 % interval.

    Args:
        values: One per picture; may hold infinities.
        seed: Of the resampling.

    Returns:
        Mean, low and high end. The ends are NaN where fewer than two values, or one that is
        not finite, give no interval; without any value the mean is NaN, too.

    Security:
        The bootstrap knows only the values it was given: of equal values the interval is a
        point, however few they are.

    Source:
        Efron, Better Bootstrap Confidence Intervals, JASA 1987 (BCa), by scipy.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return math.nan, math.nan, math.nan
    mean = float(array.mean())
    low, high = bootstrap_interval(array, lambda drawn, axis: drawn.mean(axis=axis), seed=seed)
    return mean, low, high


def bootstrap_interval(
    values: NDArray[np.float64], statistic: Statistic, *, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of a statistic of independent values.

    It is bias-corrected and accelerated up to 2,000 values, where skewness shows; beyond,
    percentiles.

    Args:
        values: ``(n,)``.
        statistic: Called with resamples and the axis that it takes away.
        seed: Of the resampling.

    Returns:
        Its ends; NaN for fewer than two values or one that is not finite.
    """
    from scipy.stats import bootstrap

    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    # Values that rounding alone tells apart have no spread from which BCa could correct.
    if np.ptp(values) <= _LEAST_SPREAD * max(1.0, float(np.abs(values).max())):
        only = float(statistic(values, -1))
        return only, only
    found = bootstrap(
        (values,),
        lambda drawn, axis: statistic(drawn, axis),
        n_resamples=_RESAMPLES,
        batch=max(1, _VALUES_AT_ONCE // len(values)),
        method="BCa" if len(values) <= _MOST_CORRECTED else "percentile",
        vectorized=True,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
