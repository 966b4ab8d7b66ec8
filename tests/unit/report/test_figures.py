"""Rates that neither flatter nor divide by nothing."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from scotoma.core.errors import SettingsError
from scotoma.report.figures import count, duration, percent, wilson_interval


def bisect_score_test(successes: int, n: int, inside: float, outside: float) -> float:
    """Return where the normal score test at 5 % stops accepting a rate, found by halving."""
    z = NormalDist().inv_cdf(0.975)
    for _ in range(200):
        middle = (inside + outside) / 2
        accepts = abs(middle - successes / n) <= z * math.sqrt(middle * (1 - middle) / n)
        inside, outside = (middle, outside) if accepts else (inside, middle)
    return inside


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 10), (1, 3), (9, 12), (12, 12), (50, 100), (1, 10_000)]
)
def test_wilson_interval_holds_the_rates_that_the_score_test_accepts(
    successes: int, n: int
) -> None:
    rate = successes / n
    low, high = bisect_score_test(successes, n, rate, 0), bisect_score_test(successes, n, rate, 1)
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 999, 10**6])
def test_wilson_interval_stays_within_zero_and_one_and_holds_the_rate(n: int) -> None:
    for successes in {0, 1, n // 2, n - 1, n}:
        low, high = wilson_interval(successes, n) or (2.0, -1.0)
        assert 0 <= low <= successes / n <= high <= 1


def test_no_trials_have_no_interval_and_no_rate() -> None:
    assert wilson_interval(0, 0) is None
    assert percent(0, 0) == "–"


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_counts_that_cannot_be_are_refused(successes: int, n: int) -> None:
    for function in (wilson_interval, percent):
        with pytest.raises(SettingsError, match="expected a count"):
            function(successes, n)


@pytest.mark.parametrize(
    ("successes", "n", "text"),
    [
        (9, 12, "75 %"),
        (1, 12, "8.3 %"),
        (0, 12, "0 %"),
        (12, 12, "100 %"),
        (1, 100_000, "<0.1 %"),
        (99_999, 100_000, ">99.9 %"),
        (9995, 10_000, ">99.9 %"),
        (999, 1000, "99.9 %"),
        (1, 1000, "0.1 %"),
    ],
)
def test_only_none_is_zero_and_only_all_is_a_hundred(successes: int, n: int, text: str) -> None:
    assert percent(successes, n) == text


def test_words_around_numbers() -> None:
    assert [count(n, "picture") for n in (0, 1, 10_000)] == [
        "0 pictures",
        "1 picture",
        "10,000 pictures",
    ]
    assert [duration(s) for s in (0, 0.123, 9.96, 59.7, 61, 3600)] == [
        "0 s",
        "0.12 s",
        "10 s",
        "1 min 0 s",
        "1 min 1 s",
        "1 h 0 min",
    ]
