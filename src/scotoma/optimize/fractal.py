"""Fractal decomposition as published: spheres within spheres, then coordinate steps."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import SettingsError
from scotoma.optimize.bounds import Points, Values
from scotoma.optimize.optimizer import Optimizer, Steps, Stepwise, Task

__all__ = ["SHRINK", "FractalDecomposition"]

SHRINK = 1 + np.sqrt(2)
"""How many times smaller a child sphere is: neighbours just touch."""

_PORTION = 1 << 20  # numbers yielded at once, so that many dimensions need little memory
_NEAR = 1e-20  # keeps a quality finite where a sphere is the best point itself


@dataclass(frozen=True)
class FractalDecomposition:
    """FDA: a tree of spheres searched deepest first, and an intensive local search in its leaves.

    The box, as a unit cube, is a sphere of radius ½ around its middle. A sphere has 2D children,
    one to each side along each axis, ``1 + √2`` times smaller. A child is judged at three points,
    its centre and ``c ± inflation·r/√D·(1, …, 1)``; its quality is the least of
    ``f(x) / ‖x − best‖``. The best child is divided in turn. In each leaf, coordinate by
    coordinate, a step to both sides is tried and the best of the three points kept; a round
    without gain halves the step. When all leaves of a sphere are searched, the next best sphere
    above is divided.

    Args:
        depth: Levels of the tree, from 1.
        inflation: How far a child's second and third point lie from its centre, in radii.
        tolerance: The step, in widths of the box, below which a leaf is left.

    Raises:
        SettingsError: A setting out of its range.

    Differences from the paper:
        What it leaves open: the first step in a leaf is the leaf's radius; lower qualities come
        first, also where values are negative; a box with unequal sides is searched as a cube;
        points outside are moved to its border; the middle of the first sphere is judged too,
        and a start takes its place.

    Source:
        Nakib et al., Deterministic metaheuristic based on fractal decomposition for large-scale
        optimization, Applied Soft Computing 2017.
    """

    depth: int = 5
    inflation: float = 1.75
    tolerance: float = 1e-20

    def __post_init__(self) -> None:
        if not self.depth >= 1:
            raise SettingsError(f"expected a depth of at least 1, got {self.depth}")
        if not 0 < self.inflation < np.inf:
            raise SettingsError(f"expected a positive inflation, got {self.inflation}")
        if not 0 < self.tolerance < 1:
            raise SettingsError(f"expected a tolerance between 0 and 1, got {self.tolerance}")

    def open(self, task: Task) -> Optimizer:
        """Begin a search; it has no randomness, so the seed changes nothing."""
        steps = _Run(self, task).search()
        return Stepwise(steps, task.bounds.dimensions, batch=task.batch)


@dataclass
class _Sphere:
    """One node of the tree, centre in the unit cube."""

    centre: Values
    radius: float
    level: int
    value: float


class _Run:
    """One search under way."""

    def __init__(self, settings: FractalDecomposition, task: Task) -> None:
        self.settings = settings
        self.bounds = task.bounds
        self.origin = (task.origin - task.bounds.lower) / task.bounds.width
        self.best = self.origin
        self.value = np.inf

    def search(self) -> Steps:
        """Deepest level first, best quality first."""
        values = yield from self._judge(self.origin[None])
        waiting = [iter([_Sphere(self.origin, 0.5, 0, float(values[0]))])]
        while waiting:
            sphere = next(waiting[-1], None)
            if sphere is None:
                waiting.pop()
            elif sphere.level == self.settings.depth:
                yield from self._search_leaf(sphere)
            else:
                waiting.append((yield from self._divide(sphere)))

    def _divide(self, sphere: _Sphere) -> Generator[Points, Values, Iterator[_Sphere]]:
        """Judge a sphere's children and return them, best first."""
        dimensions = self.bounds.dimensions
        radius = sphere.radius / SHRINK
        reach = sphere.radius - radius
        aside = self.settings.inflation * radius / np.sqrt(dimensions)
        count = 2 * dimensions
        portion = max(1, _PORTION // (3 * dimensions))
        portions = [
            np.arange(first, min(first + portion, count)) for first in range(0, count, portion)
        ]

        def place(which: NDArray[np.intp]) -> Points:
            centres = np.stack([_child(sphere.centre, child, reach) for child in which.tolist()])
            points = np.stack([centres, centres + aside, centres - aside], axis=1)
            return points.reshape(-1, dimensions)

        values, distances = np.empty((count, 3)), np.empty((count, 3))
        for which in portions:
            values[which] = (yield from self._judge(place(which))).reshape(-1, 3)
        for which in portions:
            distances[which] = np.linalg.norm(place(which) - self.best, axis=1).reshape(-1, 3)
        quality = (values / (distances + _NEAR)).min(1)
        order = np.argsort(quality, kind="stable").tolist()
        return (
            _Sphere(_child(sphere.centre, which, reach), radius, sphere.level + 1, values[which, 0])
            for which in order
        )

    def _search_leaf(self, leaf: _Sphere) -> Steps:
        """Intensive local search: steps along each axis that halve."""
        lower, upper = self.bounds.lower.tolist(), self.bounds.upper.tolist()
        width = self.bounds.width.tolist()
        point = self.bounds.clip(self.bounds.lower + self.bounds.width * leaf.centre)
        value, step = leaf.value, leaf.radius
        while step >= self.settings.tolerance:
            before = value
            for axis in range(len(point)):
                here, move = float(point[axis]), step * width[axis]
                there = (min(here + move, upper[axis]), max(here - move, lower[axis]))
                pair = np.empty((2, len(point)))
                pair[:] = point
                pair[0, axis], pair[1, axis] = there
                values = yield pair
                which = int(values[1] < values[0])
                if values[which] < value:
                    value = float(values[which])
                    point[axis] = there[which]
            if not value < before:
                step /= 2
        self._note((point - self.bounds.lower) / self.bounds.width, value)

    def _judge(self, points: NDArray[np.float64]) -> Generator[Points, Values, Values]:
        """Return values at points of the unit cube, or where its border is nearest."""
        found = yield self.bounds.clip(self.bounds.lower + self.bounds.width * points)
        lowest = int(found.argmin())
        self._note(points[lowest], float(found[lowest]))
        return found

    def _note(self, point: Values, value: float) -> None:
        if value < self.value:
            self.best, self.value = np.clip(point, 0, 1), value


def _child(centre: Values, which: int, reach: float) -> Values:
    """Return a child's centre: along axis ``which // 2``, to one side or the other."""
    moved = centre.copy()
    moved[which // 2] += reach if which % 2 == 0 else -reach
    return moved
