"""Differential evolution, run by SciPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from scotoma.core.errors import MissingExtraError, SettingsError
from scotoma.optimize.bounds import Points, Values
from scotoma.optimize.optimizer import Optimizer, Steps, Stepwise, Task

__all__ = ["DifferentialEvolution"]

_LEAST_POPULATION = 5
_FOREVER = 1 << 60


@dataclass(frozen=True)
class DifferentialEvolution:
    """A population whose differences are its steps; begins again when all points are equal.

    Args:
        population: Points of one generation, from 5.
        strategy: As SciPy names it.
        mutation: Least and greatest weight of a difference; drawn anew for each generation.
        recombination: Probability that a coordinate comes from the mutant.

    Raises:
        SettingsError: A setting out of its range.
        MissingExtraError: SciPy is not installed; by :meth:`open`.

    Differences from the paper:
        SciPy's default population, 15 for each dimension, spends a budget of 1000·D in 66
        generations; ours does not grow with the dimensions.

    Source:
        Storn, Price, Differential Evolution, Journal of Global Optimization 1997.
    """

    population: int = 50
    strategy: str = "best1bin"
    mutation: tuple[float, float] = (0.5, 1.0)
    recombination: float = 0.7

    def __post_init__(self) -> None:
        object.__setattr__(self, "mutation", tuple(self.mutation))
        if not self.population >= _LEAST_POPULATION:
            raise SettingsError(
                f"expected a population of at least {_LEAST_POPULATION}, got {self.population}"
            )
        if not (len(self.mutation) == 2 and 0 <= self.mutation[0] <= self.mutation[1] < 2):
            raise SettingsError(f"expected two mutations in [0, 2), got {self.mutation}")
        if not 0 <= self.recombination <= 1:
            raise SettingsError(f"expected a recombination in [0, 1], got {self.recombination}")

    def open(self, task: Task) -> Optimizer:
        """Begin a search."""
        try:
            from scipy.optimize import differential_evolution
        except ImportError as error:
            raise MissingExtraError("differential evolution", "scipy", "optimize") from error

        def run(function: Callable[[Points], Values]) -> None:
            generator = np.random.default_rng(task.seed)
            start = task.start
            while True:
                differential_evolution(
                    lambda columns: function(columns.T),
                    list(zip(task.bounds.lower, task.bounds.upper, strict=True)),
                    init=self._first(task, generator),
                    x0=start,
                    strategy=self.strategy,
                    mutation=self.mutation,
                    recombination=self.recombination,
                    rng=generator,
                    maxiter=_FOREVER,
                    tol=0,
                    polish=False,
                    updating="deferred",
                    vectorized=True,
                )
                start = None

        return Stepwise(_turned(run, task), task.bounds.dimensions, batch=task.batch)

    def _first(self, task: Task, generator: np.random.Generator) -> Points:
        """Return a first population, its coordinates spread evenly."""
        shape = (self.population, task.bounds.dimensions)
        strata = generator.permuted(np.tile(np.arange(shape[0])[:, None], (1, shape[1])), axis=0)
        places = (strata + generator.random(shape)) / shape[0]
        return task.bounds.clip(task.bounds.lower + task.bounds.width * places)


class _Stopped(BaseException):
    """Ends the library's loop when nobody asks any more."""


def _turned(run: Callable[[Callable[[Points], Values]], None], task: Task) -> Steps:
    """Turn a loop that calls a function into one that asks and is told.

    The loop runs in a thread of its own, but never at the same time as ours: one of the two
    always waits for the other.
    """
    asked: SimpleQueue[Points | BaseException] = SimpleQueue()
    told: SimpleQueue[Values | None] = SimpleQueue()

    def ask(points: Points) -> Values:
        asked.put(np.ascontiguousarray(points))
        values = told.get()
        if values is None:
            raise _Stopped
        return values

    def loop() -> None:
        try:
            run(ask)
        except _Stopped:
            pass
        except BaseException as error:
            asked.put(error)

    thread: Any = Thread(target=loop, name="differential evolution", daemon=True)
    thread.start()
    try:
        while True:
            points = asked.get()
            if isinstance(points, BaseException):
                raise points
            told.put((yield task.bounds.clip(points)))
    finally:
        told.put(None)
        thread.join()
