from __future__ import annotations

import numpy as np
import pytest

from scotoma.core.errors import SettingsError
from scotoma.ops.average_precision import Boxes, average_precision

SQUARE = [0.0, 0.0, 10.0, 10.0]


def boxes(*rows: tuple[list[float], int] | tuple[list[float], int, float]) -> Boxes:
    scores = [row[2] for row in rows if len(row) == 3]
    return Boxes(
        np.array([row[0] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array(scores, dtype=np.float64) if len(scores) == len(rows) else None,
    )


def shifted(by: float) -> list[float]:
    """A box whose IoU with SQUARE is (10 - by) / (10 + by)."""
    return [by, 0.0, 10.0 + by, 10.0]


def test_right_is_one_and_nothing_is_zero() -> None:
    truth = [boxes((SQUARE, 3)), boxes((shifted(40), 1), (SQUARE, 3))]
    found = [
        boxes((SQUARE, 3, 0.2)),
        boxes((shifted(40), 1, 0.1), (SQUARE, 3, 0.3)),
    ]
    assert average_precision(found, truth) == pytest.approx(1.0)
    assert average_precision([boxes(), boxes()], truth, thresholds=(0.5,)) == 0.0


def test_the_label_counts() -> None:
    assert average_precision([boxes((SQUARE, 2, 0.9))], [boxes((SQUARE, 3))]) == 0.0


@pytest.mark.parametrize(("by", "passed"), [(0.2, 10), (1.0, 7), (2.0, 4), (3.0, 1), (4.0, 0)])
def test_thresholds_go_from_half_to_nearly_all(by: float, passed: int) -> None:
    # IoU .96, .82, .67, .54, .43
    found, truth = [boxes((shifted(by), 0, 1.0))], [boxes((SQUARE, 0))]
    assert average_precision(found, truth) == pytest.approx(passed / 10)


def test_an_annotation_is_found_once() -> None:
    # The double is false; it comes after the hit, so precision at full recall stays 1.
    found = [boxes((SQUARE, 0, 0.9), (shifted(0.1), 0, 0.8))]
    assert average_precision(found, [boxes((SQUARE, 0))], thresholds=(0.5,)) == pytest.approx(1.0)
    # With a second annotation elsewhere only one of two is found: recall ends at 1/2.
    truth = [boxes((SQUARE, 0), (shifted(50), 0))]
    assert average_precision(found, truth, thresholds=(0.5,)) == pytest.approx(51 / 101)


def test_false_before_right_halves_precision() -> None:
    found = [boxes((shifted(50), 0, 0.9), (SQUARE, 0, 0.8))]
    assert average_precision(found, [boxes((SQUARE, 0))], thresholds=(0.5,)) == pytest.approx(0.5)


def test_precision_is_made_monotone() -> None:
    # right, false, right of two: precision 1, then 2/3 to full recall.
    found = [boxes((SQUARE, 0, 0.9), (shifted(50), 0, 0.8), (shifted(20), 0, 0.7))]
    truth = [boxes((SQUARE, 0), (shifted(20), 0))]
    expected = (51 + 50 * 2 / 3) / 101
    assert average_precision(found, truth, thresholds=(0.5,)) == pytest.approx(expected)


def test_categories_count_alike() -> None:
    truth = [boxes((SQUARE, 0), (shifted(20), 0), (shifted(40), 1))]
    found = [boxes((SQUARE, 0, 0.9), (shifted(20), 0, 0.9))]
    assert average_precision(found, truth) == pytest.approx(0.5)


def test_only_a_hundred_a_picture_count() -> None:
    rows = [(shifted(50.0 + n), 0, 0.9) for n in range(100)]
    assert average_precision([boxes(*rows, (SQUARE, 0, 0.8))], [boxes((SQUARE, 0))]) == 0.0
    assert average_precision([boxes(*rows[1:], (SQUARE, 0, 0.8))], [boxes((SQUARE, 0))]) > 0


def test_refuses() -> None:
    with pytest.raises(SettingsError, match="detections for 1 pictures, got 0"):
        average_precision([], [boxes((SQUARE, 0))])
    with pytest.raises(SettingsError, match="annotated boxes"):
        average_precision([boxes()], [boxes()])
    with pytest.raises(SettingsError, match="with scores"):
        average_precision([boxes((SQUARE, 0))], [boxes((SQUARE, 0))])
    with pytest.raises(SettingsError, match=r"\(N, 4\) corners"):
        Boxes(np.zeros((2, 4)), np.zeros(1, dtype=np.int64))
