"""One minimization that counts, remembers its best, and can be stopped and resumed exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scotoma.core.errors import ScoreError, SettingsError
from scotoma.optimize.bounds import Bounds, Points, Values
from scotoma.optimize.optimizer import Task
from scotoma.optimize.registry import open_method

__all__ = ["Best", "Search", "minimize"]

_STATE_VERSION = 1
_NAMED = 3


@dataclass(frozen=True, eq=False)
class Best:
    """The lowest value so far.

    Args:
        point: ``(D,)`` where it was found.
        value: Of the function there.
        evaluations: How many it took to find it, from 1.
    """

    point: Values
    value: float
    evaluations: int


class Search:
    """One minimization: asks, is told, and never goes over its budget.

    Args:
        name: Of an optimizer; see :data:`~.registry.optimizers`.
        bounds: Box that is searched.
        budget: Evaluations at most, from 1.
        seed: Of everything random, from 0; the same seed and values give the same points.
        start: ``(D,)`` point inside the box to begin at; None leaves it to the method.
        batch: Most points of one ask; None leaves it to the method.
        settings: Of the method; plain data, so that the state is.

    Raises:
        UnknownNameError: No such optimizer or setting.
        SettingsError: A budget or batch of zero, a start outside the bounds, a bad setting.
        MissingExtraError: The method's library is not installed.

    Example:
        >>> import numpy as np
        >>> search = Search("fda", Bounds.cube(2, -1.0, 2.0), budget=500)
        >>> while not search.is_over:
        ...     search.tell((search.ask() ** 2).sum(1))
        >>> search.evaluations, search.best.value < 1e-20
        (500, True)
    """

    def __init__(
        self,
        name: str,
        bounds: Bounds,
        *,
        budget: int,
        seed: int = 0,
        start: Values | None = None,
        batch: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.task = Task(bounds, budget, seed, start, batch)
        self.settings = dict(settings or {})
        self._optimizer = open_method(name, self.settings).open(self.task)
        self._told: list[Values] = []
        self._pending: Points | None = None
        self._point = self.task.origin
        self._value = np.inf
        self._found = 0
        self.evaluations = 0

    @property
    def best(self) -> Best:
        """The lowest value told so far.

        Raises:
            ScoreError: None was told yet.
        """
        if not self._found:
            raise ScoreError("expected a search that was told a value, got one at its beginning")
        return Best(self._point, self._value, self._found)

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent or the method has ended."""
        return not len(self.ask())

    def ask(self) -> Points:
        """Return ``(n, D)`` points whose values are wanted, none when the search is over.

        Until they are told, the same points come again: whatever happens between, nothing is lost.
        """
        if self._pending is None:
            left = self.task.budget - self.evaluations
            asked = self._optimizer.ask()[:left]
            asked.flags.writeable = False  # what comes again must be what came
            self._pending = asked
        return self._pending

    def tell(self, values: Values) -> None:
        """Take the values of the last ask.

        Args:
            values: ``(n,)`` finite numbers, in the order of the points.

        Raises:
            ScoreError: Another number of values, NaN or infinity. Nothing is changed: the same
                :meth:`ask` comes again.
        """
        points = self.ask()
        values = _check_values(values, len(points))
        if not len(points):
            return
        lowest = int(values.argmin())
        if values[lowest] < self._value:
            self._point = points[lowest].copy()
            self._value = float(values[lowest])
            self._found = self.evaluations + lowest + 1
        self._told.append(values)
        self._pending = None
        self.evaluations += len(values)
        if self.evaluations < self.task.budget:
            self._optimizer.tell(values)

    def state(self) -> dict[str, Any]:
        """Return all that :meth:`resumed` needs: plain data that JSON can hold, and one array.

        The array, ``"values"``, holds the ``(evaluations,)`` float64 values told so far.
        """
        task = self.task
        return {
            "version": _STATE_VERSION,
            "name": self.name,
            "lower": task.bounds.lower.tolist(),
            "upper": task.bounds.upper.tolist(),
            "budget": task.budget,
            "seed": task.seed,
            "start": None if task.start is None else task.start.tolist(),
            "batch": task.batch,
            "settings": self.settings,
            "best": self._point.tolist() if self._found else None,
            "values": np.concatenate([np.empty(0), *self._told]),
        }

    @classmethod
    def resumed(cls, state: Mapping[str, Any]) -> Search:
        """Return the search that :meth:`state` was taken of.

        The told values are told again to a fresh search, which asks for the same points: every
        method here is deterministic. The function itself is not asked anything.

        Raises:
            SettingsError: No state of a search, or one whose method now asks for other points
                (another version of it, or of its library).
        """
        try:
            if state["version"] != _STATE_VERSION:
                raise SettingsError(
                    f"expected the state of a search, version {_STATE_VERSION}, "
                    f"got version {state['version']!r}"
                )
            search = cls(
                state["name"],
                Bounds(np.array(state["lower"]), np.array(state["upper"])),
                budget=state["budget"],
                seed=state["seed"],
                start=None if state["start"] is None else np.array(state["start"]),
                batch=state["batch"],
                settings=state["settings"],
            )
            values, best = np.asarray(state["values"], dtype=np.float64), state["best"]
        except KeyError as error:
            raise SettingsError(
                f"expected the state of a search, got none of its {error}"
            ) from error
        while search.evaluations < len(values) and not search.is_over:
            portion = values[search.evaluations :][: len(search.ask())]
            if len(portion) < len(search.ask()):
                break
            search.tell(portion)
        if search.evaluations != len(values) or (
            best is not None and not np.array_equal(search.best.point, best)
        ):
            raise SettingsError(
                f"expected a state whose points {state['name']!r} asks for again, got others: it "
                "was saved by another version of the method or of its library; begin again"
            )
        return search


def minimize(
    function: Callable[[Points], Values],
    search: Search | str,
    *arguments: Any,
    callback: Callable[[Search], bool | None] | None = None,
    **keywords: Any,
) -> Best:
    """Search for the lowest value of a function until the budget is spent.

    Args:
        function: From ``(n, D)`` points to ``(n,)`` finite values.
        search: A search (also a resumed one, which goes on), or an optimizer's name.
        arguments: With a name: those of :class:`Search`.
        callback: Sees the search after every tell; a true answer stops it.
        keywords: With a name: those of :class:`Search`.

    Returns:
        The best.

    Raises:
        SettingsError: As :class:`Search`.
        ScoreError: The function gave something else than finite values. A search that was
            passed in has lost nothing and can go on.

    Example:
        >>> sphere = lambda points: (points**2).sum(1)
        >>> minimize(sphere, "fda", Bounds.cube(3, -1.0, 2.0), budget=900).value < 1e-20
        True
    """
    if isinstance(search, str):
        search = Search(search, *arguments, **keywords)
    elif arguments or keywords:
        raise SettingsError("expected no more arguments with a search that is already open")
    while not search.is_over:
        search.tell(function(search.ask()))
        if callback is not None and callback(search):
            break
    return search.best


def _check_values(values: Values, count: int) -> Values:
    """Return a copy in float64, or say what is wrong with them."""
    try:
        checked = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScoreError(f"expected {count} numbers, got {type(values).__name__}") from error
    if checked.shape != (count,):
        raise ScoreError(f"expected values of shape ({count},), got {checked.shape}")
    finite = np.isfinite(checked)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        named = ", ".join(f"{checked[at]} at point {at}" for at in bad[:_NAMED])
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise ScoreError(
            f"expected finite values, got {named}{more}; nothing is lost: evaluate the same ask "
            "again"
        )
    return checked
