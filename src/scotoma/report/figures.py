"""Rates as an auditor reads them: k of n, a percentage that never flatters, an interval."""

from __future__ import annotations

import math

from scotoma.core.errors import SettingsError

__all__ = ["count", "duration", "glue", "percent", "wilson_interval"]

_Z95 = 1.959963984540054  # the normal distribution holds 95 % within ± this


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
    _check_counts(successes, n)
    if n == 0:
        return None
    rate, z2 = successes / n, _Z95**2
    middle = rate + z2 / (2 * n)
    reach = _Z95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low, high = (middle - reach) / (1 + z2 / n), (middle + reach) / (1 + z2 / n)
    # At the ends the formula gives exactly 0 and 1; floating point misses by a little.
    return (0.0 if successes == 0 else low, 1.0 if successes == n else high)


def percent(successes: int, n: int) -> str:
    """Return a rate in percent; only none is 0 % and only all is 100 %.

    Example:
        >>> percent(9, 12), percent(1, 12), percent(9999, 10000), percent(0, 0)
        ('75 %', '8.3 %', '>99.9 %', '–')

    Raises:
        SettingsError: ``successes`` is not between 0 and ``n``.
    """
    _check_counts(successes, n)
    if n == 0:
        return "–"
    value = 100 * successes / n
    if 0 < value < 0.1:
        return "<0.1 %"
    if 99.9 < value < 100:
        return ">99.9 %"
    return f"{value:.1f}".removesuffix(".0") + " %"


def count(n: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 picture``, ``12,000 pictures``.

    Example:
        >>> count(1, "picture"), count(12000, "picture"), count(0, "loss", "losses")
        ('1 picture', '12,000 pictures', '0 losses')
    """
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """Return a time span in the unit that reads best.

    Example:
        >>> duration(0.25), duration(75), duration(7260)
        ('0.25 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def glue(text: str) -> str:
    """Return ``text`` with every percent sign tied to the line of its number."""
    return text.replace(" %", "\u00a0%")


def _check_counts(successes: int, n: int) -> None:
    if not 0 <= successes <= n:
        raise SettingsError(f"expected a count between 0 and {n}, got {successes}")
