"""The benchmark's functions, against their definitions written out slowly."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # no part of the installed package

from benchmarks.large_scale_functions import FUNCTIONS, open_function


def _slow(name: str, z: list[float]) -> float:
    n = len(z)
    if name == "F1":
        return sum(v * v for v in z)
    if name == "F2":
        return max(abs(v) for v in z)
    if name == "F3":
        z = [v + 1 for v in z]
        steps = itertools.pairwise(z)
        return sum(100 * (a * a - b) ** 2 + (a - 1) ** 2 for a, b in steps)
    if name == "F4":
        return sum(v * v - 10 * math.cos(2 * math.pi * v) + 10 for v in z)
    if name == "F5":
        waves = math.prod(math.cos(v / math.sqrt(i)) for i, v in enumerate(z, 1))
        return sum(v * v for v in z) / 4000 - waves + 1
    far = math.sqrt(sum(v * v for v in z) / n)
    waves = sum(math.cos(2 * math.pi * v) for v in z) / n
    return -20 * math.exp(-0.2 * far) - math.exp(waves) + 20 + math.e


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "F7"])
@pytest.mark.parametrize("rotated", [False, True])
def test_values_and_least_value(name: str, rotated: bool) -> None:
    function = open_function(name, 7, seed=1, rotated=rotated)
    assert function.shift is not None
    assert function.bounds.holds(function.shift)
    assert function.evaluate(function.shift[None])[0] == pytest.approx(0, abs=1e-12)
    points = function.bounds.lower + function.bounds.width * np.random.default_rng(0).random((9, 7))
    values = function.evaluate(points)
    assert (values > 0).all()
    expected = [_slow(name, row) for row in (points - function.shift).tolist()]
    assert np.allclose(values, expected, rtol=1e-12) != rotated or name == "F1"


def test_double_dip_is_periodic_up_to_its_twist_and_seeded() -> None:
    function = open_function("F7", 6, seed=3)
    points = np.random.default_rng(0).uniform(-1, 1, (5, 6))
    values = function.evaluate(points)
    assert np.array_equal(values, open_function("F7", 6, seed=3).evaluate(points))
    assert not np.array_equal(values, open_function("F7", 6, seed=4).evaluate(points))
    # Every coordinate is treated alike: moving all places along changes nothing.
    assert np.allclose(values, function.evaluate(np.roll(points, 2, axis=1)))
