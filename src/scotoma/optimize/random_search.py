"""Uniform random points: what any search must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scotoma.core.errors import SettingsError
from scotoma.optimize.optimizer import Optimizer, Steps, Stepwise, Task

__all__ = ["RandomSearch"]


@dataclass(frozen=True)
class RandomSearch:
    """Points drawn uniformly from the box; the start, where there is one, comes first.

    Args:
        portion: Points of one ask.
    """

    portion: int = 32

    def __post_init__(self) -> None:
        if not self.portion >= 1:
            raise SettingsError(f"expected a portion of at least 1 point, got {self.portion}")

    def open(self, task: Task) -> Optimizer:
        """Begin a search."""
        return Stepwise(self._steps(task), task.bounds.dimensions, batch=task.batch)

    def _steps(self, task: Task) -> Steps:
        generator = np.random.default_rng(task.seed)
        if task.start is not None:
            yield task.start[None]
        while True:
            size = (self.portion, task.bounds.dimensions)
            yield task.bounds.clip(task.bounds.lower + task.bounds.width * generator.random(size))
