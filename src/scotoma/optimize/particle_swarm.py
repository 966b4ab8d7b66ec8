"""Particle swarm, run by nevergrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scotoma.core.errors import MissingExtraError, SettingsError
from scotoma.optimize.optimizer import Optimizer, Steps, Stepwise, Task

__all__ = ["ParticleSwarm"]


@dataclass(frozen=True)
class ParticleSwarm:
    """Particles drawn to their own best place and to everybody's.

    Args:
        population: Particles, from 2; all are asked about at once.
        transform: How nevergrad keeps particles in the box: ``identity`` sends them back at its
            border, ``arctan`` (its own default) and ``gaussian`` bend space. In 20 dimensions
            ``arctan`` does worse than random points on a sphere, ``identity`` far better.

    Raises:
        SettingsError: A setting out of its range.
        MissingExtraError: nevergrad is not installed; by :meth:`open`.

    Source:
        Zambrano-Bigiarini et al., Standard Particle Swarm Optimisation 2011 at CEC-2013, 2013.
    """

    population: int = 40
    transform: str = "identity"

    def __post_init__(self) -> None:
        if not self.population >= 2:
            raise SettingsError(f"expected a population of at least 2, got {self.population}")
        known = ("identity", "arctan", "gaussian")
        if self.transform not in known:
            raise SettingsError(f"expected one of {', '.join(known)}, got {self.transform!r}")

    def open(self, task: Task) -> Optimizer:
        """Begin a search."""
        try:
            import nevergrad
        except ImportError as error:
            # Its direct search is under the GPL, and no swarm needs it.
            raise MissingExtraError(
                "particle swarm", "nevergrad", "optimize", alone=True
            ) from error
        steps = self._steps(task, nevergrad)
        return Stepwise(steps, task.bounds.dimensions, batch=task.batch)

    def _steps(self, task: Task, nevergrad: Any) -> Steps:
        bounds = task.bounds
        space = nevergrad.p.Array(init=np.full(bounds.dimensions, 0.5))
        space = space.set_mutation(sigma=1 / 6)
        # Both before and after: whatever has none of its own draws from NumPy's global one.
        space.random_state = np.random.RandomState(task.seed)
        space = space.set_bounds(0.0, 1.0)
        space.random_state = np.random.RandomState(task.seed)
        method = nevergrad.optimizers.ConfPSO(transform=self.transform, popsize=self.population)
        swarm = method(space, budget=task.budget, num_workers=self.population)
        if task.start is not None:
            swarm.suggest((task.start - bounds.lower) / bounds.width)
        while True:
            particles = [swarm.ask() for _ in range(self.population)]
            places = np.stack([particle.value for particle in particles])
            values = yield bounds.clip(bounds.lower + bounds.width * places)
            for particle, value in zip(particles, values.tolist(), strict=True):
                swarm.tell(particle, value)
