"""Rates as an auditor reads them: k of n, a percentage that never flatters, an interval."""

from __future__ import annotations

from scotoma.core.errors import SettingsError

__all__ = ["count", "duration", "glue", "percent"]


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
