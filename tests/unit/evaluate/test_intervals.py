"""Intervals that hold the truth as often as they say."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from scotoma.core.errors import SettingsError
from scotoma.evaluate.intervals import bootstrap_interval, mean_interval, wilson_interval


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


def test_wilson_interval_of_no_trials_is_none() -> None:
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_wilson_interval_refuses_counts_that_cannot_be(successes: int, n: int) -> None:
    with pytest.raises(SettingsError, match="expected a count"):
        wilson_interval(successes, n)


def test_mean_interval_covers_the_mean_of_a_skewed_population() -> None:
    """Of 300 samples about 95 % must hold the true mean: neither far fewer nor all."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        _, low, high = mean_interval(rng.exponential(size=40).tolist())
        hits += low <= 1 <= high
    assert 0.88 <= hits / 300 <= 0.98


def test_mean_interval_agrees_with_the_normal_one_where_that_is_right() -> None:
    values = np.random.default_rng(1).normal(3, 2, 3000)
    mean, low, high = mean_interval(values.tolist())
    reach = 1.96 * values.std(ddof=1) / math.sqrt(3000)
    assert mean == pytest.approx(values.mean())
    assert (mean - low, high - mean) == pytest.approx((reach, reach), rel=0.1)


def test_mean_interval_is_the_same_for_the_same_seed_only() -> None:
    values = np.random.default_rng(2).random(30).tolist()
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=1)


def test_mean_interval_of_what_has_none_is_not_a_number() -> None:
    assert all(map(math.isnan, mean_interval([])))
    assert mean_interval([0.25])[0] == 0.25
    assert all(map(math.isnan, mean_interval([0.25])[1:]))
    mean, *ends = mean_interval([1.0, math.inf])
    assert mean == math.inf
    assert all(map(math.isnan, ends))
    assert mean_interval([0.3] * 5) == pytest.approx((0.3, 0.3, 0.3))


def test_bootstrap_interval_takes_any_statistic() -> None:
    values = np.random.default_rng(3).exponential(size=400)
    low, high = bootstrap_interval(values, lambda drawn, axis: np.median(drawn, axis=axis))
    assert low < math.log(2) < high < values.mean() + 0.2
