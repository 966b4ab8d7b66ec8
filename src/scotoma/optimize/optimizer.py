"""What every search is: something that asks for values at points and is told them.

::

    Task      box, budget, seed, start, batch: what is asked of any method
    Method    a frozen dataclass of one method's settings; open(task) ──► Optimizer
    Optimizer ask() ──► points, tell(values), ask() ──► ...

A method is easiest to read as if it called the function itself. So most are generators that
yield points and receive their values; :class:`Stepwise` makes an optimizer of one.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from scotoma.core.errors import SettingsError
from scotoma.optimize.bounds import Bounds, Points, Values

__all__ = ["Method", "Optimizer", "Steps", "Stepwise", "Task"]

Steps = Generator[Points, Values, None]
"""Yields ``(n, D)`` points within bounds, receives their ``(n,)`` values; ends when it is done."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of any method.

    Args:
        bounds: Box that is searched.
        budget: Evaluations at most, from 1. Methods may plan with it; :class:`~.search.Search`
            holds them to it.
        seed: Of everything random, from 0.
        start: ``(D,)`` point inside the box to begin at; None leaves it to the method.
        batch: Most points of one ask; None leaves it to the method.

    Raises:
        SettingsError: A budget or batch below 1, a negative seed, a start of a wrong shape or
            outside the box.
    """

    bounds: Bounds
    budget: int
    seed: int = 0
    start: Values | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        if not self.budget >= 1:
            raise SettingsError(f"expected a budget of at least 1 evaluation, got {self.budget}")
        if self.batch is not None and not self.batch >= 1:
            raise SettingsError(f"expected a batch of at least 1 point, got {self.batch}")
        if not self.seed >= 0:
            raise SettingsError(f"expected a seed of at least 0, got {self.seed}")
        if self.start is None:
            return
        start = np.array(self.start, dtype=np.float64)
        if start.shape != (self.bounds.dimensions,):
            raise SettingsError(
                f"expected a start of shape ({self.bounds.dimensions},), got {start.shape}"
            )
        if not self.bounds.holds(start):
            raise SettingsError("expected a start inside the bounds, got one outside")
        start.setflags(write=False)
        object.__setattr__(self, "start", start)

    @property
    def origin(self) -> Values:
        """``(D,)`` the start, or the middle of the box."""
        return self.bounds.centre if self.start is None else self.start


class Optimizer(Protocol):
    """One running search for a minimum; deterministic for one seed."""

    def ask(self) -> Points:
        """Return ``(n, D)`` points inside the bounds whose values are wanted next.

        Until they are told, the same points come again. None (``n = 0``) when it has ended.
        """

    def tell(self, values: Values) -> None:
        """Take the ``(n,)`` finite values of the last ask, in its order."""


@runtime_checkable
class Method(Protocol):
    """One method with its settings; a frozen dataclass, every field with a default."""

    def open(self, task: Task) -> Optimizer:
        """Begin a search."""


class Stepwise:
    """An optimizer out of a generator; hands out its points in portions.

    Args:
        steps: The method. What it yields is not changed and not kept longer than until the
            next step, so it may yield the same array again.
        dimensions: ``D``.
        batch: Most points of one ask; None hands out what the method yields.
    """

    def __init__(self, steps: Steps, dimensions: int, *, batch: int | None = None) -> None:
        self._steps = steps
        self._batch = batch
        self._none = np.empty((0, dimensions))
        self._values = np.empty(0)
        self._told = 0
        self._points = next(steps, self._none)

    def ask(self) -> Points:
        """Return the next points, or none when the method has ended."""
        if self._batch is None:
            return self._points
        return self._points[self._told : self._told + self._batch]

    def tell(self, values: Values) -> None:
        """Take their values; the method goes on once it has all of what it yielded."""
        if len(values) < len(self._points):
            if not self._told:
                self._values = np.empty(len(self._points))
            self._values[self._told : self._told + len(values)] = values
            self._told += len(values)
            if self._told < len(self._points):
                return
            values, self._told = self._values, 0
        try:
            self._points = self._steps.send(values)
        except StopIteration:
            self._points = self._none
