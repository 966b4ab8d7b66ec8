"""FDA as published: where children lie, which come first, how leaves are searched."""

from __future__ import annotations

import numpy as np
import pytest

from scotoma.core.errors import SettingsError
from scotoma.optimize.bounds import Bounds
from scotoma.optimize.fractal import FractalDecomposition
from scotoma.optimize.search import Search

DIMENSIONS = 3
CUBE = Bounds.cube(DIMENSIONS, 0.0, 1.0)


def _ask_all(search: Search, function: object) -> np.ndarray:
    asked = []
    while not search.is_over:
        points = search.ask().copy()
        asked.append(points)
        search.tell(function(points))  # type: ignore[operator]
    return np.concatenate(asked)


def test_children_touch_their_parent_and_each_other() -> None:
    search = Search("fda", CUBE, budget=200)
    assert np.array_equal(search.ask(), [[0.5] * DIMENSIONS])
    search.tell(np.ones(1))
    judged = search.ask().reshape(2 * DIMENSIONS, 3, DIMENSIONS)
    centres = judged[:, 0]
    child = 0.5 / (1 + np.sqrt(2))
    from_middle = np.linalg.norm(centres - 0.5, axis=1)
    assert np.allclose(from_middle + child, 0.5), "a child reaches its parent's surface"
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    neighbours = np.sort(apart[apart > 0])[0]
    assert np.isclose(neighbours, 2 * child), "neighbours just touch"
    assert len(np.unique(centres.round(12), axis=0)) == 2 * DIMENSIONS
    aside = 1.75 * child / np.sqrt(DIMENSIONS)
    assert np.allclose(judged[:, 1], np.clip(centres + aside, 0, 1))
    assert np.allclose(judged[:, 2], np.clip(centres - aside, 0, 1))


def test_the_best_child_is_divided_first() -> None:
    # Values fall towards one face, so the best child lies on that side.
    target = np.array([0.5, 0.5, 1.0])
    search = Search("fda", CUBE, budget=200)
    for _ in range(2):
        search.tell(1e-3 + ((search.ask() - target) ** 2).sum(1))
    grandchildren = search.ask().reshape(2 * DIMENSIONS, 3, DIMENSIONS)[:, 0]
    parent = grandchildren.mean(0)
    assert np.allclose(parent[:2], 0.5)
    assert parent[2] > 0.5


def test_a_leaf_halves_its_step_only_when_a_round_gains_nothing() -> None:
    depth = 2
    settings = {"depth": depth, "tolerance": 1e-3}
    judged = 1 + depth * 2 * DIMENSIONS * 3
    search = Search("fda", CUBE, budget=judged + 60, settings=settings)
    asked = _ask_all(search, lambda points: np.ones(len(points)))
    pairs = asked[judged:].reshape(-1, 2, DIMENSIONS)
    steps = (pairs[:, 0] - pairs[:, 1]).max(1) / 2
    radius = 0.5 / (1 + np.sqrt(2)) ** depth
    rounds = steps[: 5 * DIMENSIONS].reshape(5, DIMENSIONS)
    assert np.allclose(rounds, radius * 0.5 ** np.arange(5)[:, None])
    moved = np.abs(pairs[:, 0] - pairs[:, 1]).argmax(1)
    assert moved[: 2 * DIMENSIONS].tolist() == [0, 1, 2, 0, 1, 2]


def test_a_leaf_moves_as_soon_as_one_step_is_lower() -> None:
    search = Search("fda", CUBE, budget=2000)

    def slope(points: np.ndarray) -> np.ndarray:
        return np.asarray(10 + points.sum(1))

    asked = _ask_all(search, slope)
    assert search.best.value == pytest.approx(10, abs=1e-9), "the corner is reached exactly"
    assert CUBE.holds(asked)


def test_after_a_leaf_comes_its_sister() -> None:
    settings = {"depth": 1, "tolerance": 0.05}
    search = Search("fda", CUBE, budget=5000, settings=settings)
    asked = _ask_all(search, lambda points: np.ones(len(points)))
    assert search.is_over
    assert search.evaluations < 5000, "it ends when all leaves are searched"
    leaves = (asked[1 + 6 * DIMENSIONS :].reshape(-1, 6, DIMENSIONS)).mean(1)
    away = np.linalg.norm(leaves.round(9) - 0.5, axis=1)
    assert len(np.unique(leaves.round(6), axis=0)) >= 2 * DIMENSIONS
    assert (away > 0.1).all()


def test_bad_settings_are_refused() -> None:
    for bad in ({"inflation": 0.0}, {"inflation": np.nan}, {"tolerance": 0.0}, {"depth": 0}):
        with pytest.raises(SettingsError, match="expected"):
            FractalDecomposition(**bad)  # type: ignore[arg-type]
