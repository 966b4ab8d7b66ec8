"""What every optimizer promises: bounds, budgets, batches, determinism, exact resume."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from scotoma.core.errors import ScoreError, SettingsError, UnknownNameError
from scotoma.optimize.bounds import Bounds, Points, Values
from scotoma.optimize.optimizer import Method, Optimizer
from scotoma.optimize.registry import ENTRIES, open_method, open_optimizer, optimizers
from scotoma.optimize.search import Search, minimize

NAMES = list(ENTRIES)
LIBRARIES = {"cma-es": "cma", "de": "scipy", "pso": "nevergrad"}
BOUNDS = Bounds(np.array([-3.0, 0.0, -100.0, 2.0]), np.array([1.0, 1e-3, 50.0, 9.0]))
TARGET = BOUNDS.lower + BOUNDS.width * np.array([0.2, 0.7, 0.9, 0.35])


def _distance(points: Points) -> Values:
    return np.asarray((((points - TARGET) / BOUNDS.width) ** 2).sum(1))


def _wavy(points: Points) -> Values:
    away = (points - TARGET) / BOUNDS.width
    return np.asarray((away**2 + 0.1 * (1 - np.cos(9 * away))).sum(1) + away[:, 0] * away[:, 1])


def _run(search: Search, until: int = 10**9, function: Any = _wavy) -> list[Points]:
    asked = []
    while not search.is_over and search.evaluations < until:
        points = search.ask().copy()
        asked.append(points)
        search.tell(function(points))
    return asked


def _search(name: str, **changes: Any) -> Search:
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])
    return Search(name, BOUNDS, **{"budget": 700, "seed": 3, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_budget_is_spent_to_the_last_point_inside_the_box(name: str) -> None:
    search = _search(name, budget=333)
    asked = np.concatenate(_run(search))
    assert len(asked) == 333 == search.evaluations
    assert BOUNDS.holds(asked)
    values = _wavy(asked)
    assert search.best.value == values.min()
    assert search.best.evaluations == int(values.argmin()) + 1
    assert np.array_equal(search.best.point, asked[values.argmin()])
    assert not len(search.ask())


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_held_and_change_nothing(name: str) -> None:
    whole = np.concatenate(_run(_search(name)))
    parts = _run(_search(name, batch=3))
    assert max(len(part) for part in parts) <= 3
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stop", [1, 160, 700])
def test_resumed_search_goes_on_as_if_never_stopped(name: str, stop: int) -> None:
    whole = _search(name)
    asked = np.concatenate(_run(whole))
    stopped = _search(name)
    _run(stopped, until=stop)
    state = stopped.state()
    values = state.pop("values")
    state = json.loads(json.dumps(state)) | {"values": values}
    resumed = Search.resumed(state)
    assert resumed.evaluations == stopped.evaluations
    rest = _run(resumed)
    assert np.array_equal(np.concatenate([asked[: stopped.evaluations], *rest]), asked)
    assert resumed.best.value == whole.best.value
    assert np.array_equal(resumed.best.point, whole.best.point)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_every_method_beats_random_points(name: str) -> None:
    best = minimize(_distance, _search(name, budget=1200))
    assert best.value < 0.2 * minimize(_distance, _search("random", budget=1200)).value


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("fda",)])
def test_seed_decides(name: str) -> None:
    first, second = (np.concatenate(_run(_search(name, seed=seed))) for seed in (3, 4))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", ["fda", "fda-lines", "random"])
def test_start_comes_first(name: str) -> None:
    start = BOUNDS.upper - BOUNDS.width / 8
    asked = np.concatenate(_run(_search(name, start=start)))
    assert np.allclose(asked[0], start, rtol=0, atol=1e-12 * np.abs(start))


@pytest.mark.parametrize("name", NAMES)
def test_searching_leaves_global_randomness_alone(name: str) -> None:
    np.random.seed(5)  # noqa: NPY002 (what others may use)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    _run(_search(name))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", NAMES)
def test_bad_scores_lose_nothing(name: str) -> None:
    search, calm = _search(name), _search(name)
    _run(search, until=100)
    points = search.ask().copy()
    scores = _wavy(points)
    broken = scores.copy()
    broken[-1] = np.nan
    with pytest.raises(ScoreError, match=f"got nan at point {len(points) - 1}"):
        search.tell(broken)
    with pytest.raises(ScoreError, match="shape"):
        search.tell(scores[:-1])
    with pytest.raises(ScoreError, match="numbers"):
        search.tell(["slow"] * len(points))  # type: ignore[arg-type]
    assert np.array_equal(search.ask(), points)
    _run(search)
    _run(calm)
    assert np.array_equal(search.best.point, calm.best.point)


def test_a_function_that_fails_can_be_asked_again() -> None:
    calls = 0

    def flaky(points: Points) -> Values:
        nonlocal calls
        calls += 1
        if calls % 7 == 0:
            raise TimeoutError
        return _wavy(points)

    search, failures = _search("fda-lines", batch=8), 0
    while not search.is_over:
        try:
            minimize(flaky, search)
        except TimeoutError:
            failures += 1
    assert failures > 5
    assert search.best.value == minimize(_wavy, _search("fda-lines", batch=8)).value


def test_asked_points_cannot_be_changed_by_the_function() -> None:
    search = _search("fda")
    with pytest.raises(ValueError, match="read-only"):
        search.ask()[0] = 7.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 0}, "budget of at least 1"),
        ({"batch": 0}, "batch of at least 1"),
        ({"seed": -1}, "seed of at least 0"),
        ({"start": np.zeros(3)}, "shape"),
        ({"start": np.full(4, np.nan)}, "inside"),
        ({"settings": {"depht": 3}}, "did you mean 'depth'"),
        ({"settings": {"depth": 0}}, "depth of at least 1"),
    ],
    ids=str,
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _search("fda", **changes)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.0, 1.0], [1.0, 1.0], "dimension 1"),
        ([0.0], [np.nan], "dimension 0"),
        ([0.0], [np.inf], "dimension 0"),
        ([-1e308], [1e308], "dimension 0"),
        ([], [], "shape"),
        ([0.0], [1.0, 2.0], "as many"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bad_bounds_are_named(lower: list[float], upper: list[float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Bounds(np.array(lower), np.array(upper))


def test_unknown_names_get_help() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fda-lines'"):
        Search("fda-line", BOUNDS, budget=1)


@pytest.mark.parametrize("name", NAMES)
def test_registered_methods_have_defaults(name: str) -> None:
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])
    assert name in optimizers.names()
    assert isinstance(open_method(name), Method)
    opened: Optimizer = open_optimizer(name, BOUNDS, budget=10, seed=0)
    assert opened.ask().shape[1] == 4


def test_a_state_of_another_method_is_refused() -> None:
    search = _search("fda-lines")
    _run(search, until=300)
    state = search.state()
    with pytest.raises(SettingsError, match="another version"):
        Search.resumed(state | {"seed": 4, "settings": {"points": 8}})
    with pytest.raises(SettingsError, match="version 9"):
        Search.resumed(state | {"version": 9})
    with pytest.raises(SettingsError, match="'lower'"):
        Search.resumed({key: state[key] for key in state if key != "lower"})


def test_nothing_told_has_no_best() -> None:
    with pytest.raises(ScoreError, match="at its beginning"):
        _ = _search("fda").best


def test_callback_sees_every_tell_and_stops() -> None:
    seen = []

    def watch(search: Search) -> bool:
        seen.append(search.evaluations)
        return search.best.value < 0.05

    best = minimize(_distance, "fda-lines", BOUNDS, budget=5000, batch=4, callback=watch)
    assert best.value < 0.05
    assert seen == sorted(seen)
    assert seen[-1] < 100
    with pytest.raises(SettingsError, match="already open"):
        minimize(_distance, _search("fda"), BOUNDS)
