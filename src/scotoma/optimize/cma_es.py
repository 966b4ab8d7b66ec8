"""CMA-ES, run by the library cma."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scotoma.core.errors import MissingExtraError, SettingsError
from scotoma.optimize.optimizer import Optimizer, Steps, Stepwise, Task

__all__ = ["CMAES"]


@dataclass(frozen=True)
class CMAES:
    """Evolution strategy that learns a covariance matrix; restarts with twice the population.

    Args:
        width: First standard deviation, in widths of the box.
        population: Points of one generation, from 2; 0 takes the library's ``4 + 3·ln D``.
        separable_from: Dimensions from which the matrix stays diagonal: the full one takes time
            that grows with their square, and once in a while with their cube.

    Raises:
        SettingsError: A setting out of its range.
        MissingExtraError: The library is not installed; by :meth:`open`.

    Source:
        Hansen, The CMA Evolution Strategy: A Tutorial, 2016; Ros, Hansen 2008 (separable);
        Auger, Hansen 2005 (restarts).
    """

    width: float = 0.3
    population: int = 0
    separable_from: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.width <= 1:
            raise SettingsError(f"expected a width above 0 and at most 1, got {self.width}")
        if self.population != 0 and not self.population >= 2:
            raise SettingsError(f"expected a population of at least 2, got {self.population}")
        if not self.separable_from >= 1:
            raise SettingsError(f"expected separable_from of at least 1, got {self.separable_from}")

    def open(self, task: Task) -> Optimizer:
        """Begin a search."""
        try:
            from cma import CMAEvolutionStrategy
        except ImportError as error:
            raise MissingExtraError("CMA-ES", "cma", "optimize") from error
        steps = self._steps(task, CMAEvolutionStrategy)
        return Stepwise(steps, task.bounds.dimensions, batch=task.batch)

    def _steps(self, task: Task, strategy: Callable[..., Any]) -> Steps:
        bounds = task.bounds
        generator = np.random.default_rng(task.seed)
        options = {
            "bounds": [0, 1],
            "CMA_diagonal": bounds.dimensions >= self.separable_from,
            "randn": lambda *shape: generator.standard_normal(shape),
            "seed": np.nan,  # leaves NumPy's global generator alone
            "verbose": -9,
        }
        if self.population:
            options["popsize"] = self.population
        start = (task.origin - bounds.lower) / bounds.width
        while True:
            running = strategy(start, self.width, options)
            while not running.stop():
                asked = running.ask()
                values = yield bounds.clip(bounds.lower + bounds.width * np.stack(asked))
                running.tell(asked, values.tolist())
            options["popsize"] = 2 * running.popsize
            start = generator.random(bounds.dimensions)
