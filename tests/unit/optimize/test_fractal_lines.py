"""The improved search: each of its parts does what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scotoma.core.errors import SettingsError
from scotoma.optimize.bounds import Bounds
from scotoma.optimize.curvature import Curvature
from scotoma.optimize.fractal_lines import FractalLines
from scotoma.optimize.lines import Profiles, find_vertices
from scotoma.optimize.search import Search, minimize

Function = Callable[[np.ndarray], np.ndarray]
DIMENSIONS = 20
CUBE = Bounds.cube(DIMENSIONS, -5.0, 5.0)
TARGET = np.random.default_rng(1).uniform(-4, 4, DIMENSIONS)


def _sphere(points: np.ndarray) -> np.ndarray:
    return np.asarray(((points - TARGET) ** 2).sum(1))


def _farthest(points: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(points - TARGET).max(1))


def _rastrigin(points: np.ndarray) -> np.ndarray:
    z = points - TARGET
    return np.asarray((z * z - 10 * np.cos(2 * np.pi * z) + 10).sum(1))


def _rosenbrock(points: np.ndarray) -> np.ndarray:
    z = points - 0.3
    bend = z[:, :-1] ** 2 - z[:, 1:]
    return np.asarray((100 * bend**2 + (z[:, :-1] - 1) ** 2).sum(1))


def _best(function: Function, budget: int, **settings: Any) -> float:
    return minimize(function, "fda-lines", CUBE, budget=budget, settings=settings).value


def test_one_round_of_parabolas_solves_a_sphere() -> None:
    # A start, two points on each line, and a few trials.
    assert _best(_sphere, 1 + 2 * DIMENSIONS + 12) < 1e-20


def test_a_maximum_falls_although_each_line_alone_is_flat() -> None:
    assert _best(_farthest, 60 * DIMENSIONS) < 1e-6
    assert minimize(_farthest, "fda", CUBE, budget=60 * DIMENSIONS).value > 1


def test_scans_find_the_deepest_of_many_valleys() -> None:
    assert _best(_rastrigin, 400 * DIMENSIONS) < 1e-9
    assert _best(_rastrigin, 400 * DIMENSIONS, points=0) > 1


def test_remembered_slopes_follow_a_bent_valley() -> None:
    budget = 600 * DIMENSIONS
    assert _best(_rosenbrock, budget) < 1e-2 < 0.1 * _best(_rosenbrock, budget, memory=0)


def test_lines_that_depend_on_each_other_are_scanned_in_turn() -> None:
    # Each coordinate bends what its neighbour means: what two gain alone, they lose together.
    def bent(points: np.ndarray) -> np.ndarray:
        before = np.roll(points, 1, axis=1)
        slow = np.cos(3 * (points + 2 * np.sin(2 * before + TARGET)))
        quick = np.cos(5 * (points + np.sin(3 * before + TARGET)))
        return np.asarray((slow + quick).sum(1))

    search = Search("fda-lines", CUBE, budget=300 * DIMENSIONS)
    sizes = set()
    while not search.is_over:
        sizes.add(len(search.ask()))
        search.tell(bent(search.ask()))
    assert {2, 16} <= sizes, "lines were never scanned one by one"


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_a_flat_function_is_searched_to_the_end(level: float) -> None:
    search = Search("fda-lines", CUBE, budget=3000)
    asked = []
    while not search.is_over:
        asked.append(search.ask().copy())
        search.tell(np.full(len(asked[-1]), level))
    places = np.concatenate(asked)
    assert len(places) == 3000
    assert len(np.unique(places[:, 0])) > 30, "it should look for anything that differs"


def test_few_lines_at_once_step_early() -> None:
    budget = 2 * DIMENSIONS  # not enough to look along all lines once
    assert _best(_sphere, budget, lines=4) < _best(_sphere, budget)


def test_values_may_have_any_offset_and_sign() -> None:
    plain, moved = (
        minimize(lambda points, by=by: _sphere(points) + by, "fda-lines", CUBE, budget=2000)
        for by in (0.0, -1e3)
    )
    assert plain.value < 1e-20
    assert moved.value + 1e3 < 1e-9


def test_a_low_corner_is_reached() -> None:
    best = minimize(lambda points: points.sum(1), "fda-lines", CUBE, budget=2000)
    assert np.array_equal(best.point, CUBE.lower)


def test_vertices_of_parabolas() -> None:
    places = np.sort(np.random.default_rng(2).uniform(-1, 1, (3, 50)), axis=0)
    vertex = np.random.default_rng(3).uniform(places[0], places[2])
    values = 3 * (places - vertex) ** 2 + 7
    found = find_vertices((places[0], places[1], places[2]), (values[0], values[1], values[2]))
    assert np.allclose(found, vertex, atol=1e-7)
    hill = find_vertices((places[0], places[1], places[2]), (-values[0], -values[1], -values[2]))
    assert np.array_equal(hill, places[1])


def test_profiles_know_valleys_turns_and_plateaus() -> None:
    places = np.tile(np.linspace(0, 1, 9), (3, 1))
    values = np.array(
        [
            [9, 4, 1, 0, 1, 4, 9, 16, 25],  # one valley
            [5, 1, 5, 6, 2, 6, 7, 3, 8],  # three
            [4, 3, 2, 2, 2, 2, 3, 5, 7],  # a plateau
        ],
        dtype=float,
    )
    shuffled = np.random.default_rng(0).permutation(9)
    profiles = Profiles.of(places[:, shuffled], values[:, shuffled])
    assert profiles.turns().tolist() == [1, 5, 1]
    bottoms, low = profiles.bottoms()
    assert low.tolist() == [0, 1, 2]
    assert bottoms[0] == pytest.approx(3 / 8)
    assert bottoms[2] == pytest.approx((2 + 5) / 2 / 8), "the plateau's middle"
    valleys = np.sort(profiles.valleys(3)[1])
    assert np.allclose(valleys, np.array([1, 4, 7]) / 8, atol=0.05)


def test_curvature_is_exact_on_a_quadratic() -> None:
    # Steps along conjugate directions teach the whole of a quadratic's curvature.
    generator = np.random.default_rng(4)
    mixed = generator.standard_normal((6, 6))
    hessian = mixed @ mixed.T + np.eye(6)
    _, axes = np.linalg.eigh(hessian)
    curvature, point = Curvature(6), np.ones(6)
    assert curvature.direction(np.diag(hessian)) is None
    curvature.learn(point, hessian @ point)
    for axis in axes.T:
        point = point + axis
        curvature.learn(point, hessian @ point)
    direction = curvature.direction(np.diag(hessian))
    assert direction is not None
    assert np.allclose(point + direction, 0, atol=1e-9)
    curvature.forget()
    assert curvature.direction(np.diag(hessian)) is None


@pytest.mark.parametrize(
    "bad",
    [{"points": 3}, {"levels": 0}, {"valleys": -1}, {"lines": -1}, {"tolerance": 1.0}],
    ids=str,
)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        FractalLines(**bad)
