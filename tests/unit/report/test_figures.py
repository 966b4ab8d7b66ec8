"""Rates that neither flatter nor divide by nothing."""

from __future__ import annotations

import pytest

from scotoma.core.errors import SettingsError
from scotoma.report.figures import count, duration, percent


def test_no_trials_have_no_rate() -> None:
    assert percent(0, 0) == "–"


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_counts_that_cannot_be_are_refused(successes: int, n: int) -> None:
    with pytest.raises(SettingsError, match="expected a count"):
        percent(successes, n)


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
