"""Fractal decomposition that moves along all of a sphere's lines at once.

::

    descend  two children on each line, a parabola through each pair, their joint vertex;
             no gain: a smaller sphere
    probe    a few points on each line: one valley, or many? One: descend to its bottom
    scan     many points on each line, the lowest of every line taken at once; descend from there;
             scans reach through the whole box and through ever smaller spheres by turns
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import SettingsError
from scotoma.optimize.bounds import Points, Values
from scotoma.optimize.fractal import SHRINK
from scotoma.optimize.lines import Profiles, ask_lines
from scotoma.optimize.optimizer import Optimizer, Steps, Stepwise, Task
from scotoma.optimize.refinement import Refinement

__all__ = ["FractalLines"]

_PROBES = 4
_ONE_VALLEY = 0.9  # share of lines with one valley from which scans wait
_ADDS_UP = 0.5  # share of the lines' gains that must come together
_IDLE = 1e-4  # a round's gain, as a share of all gain, that counts as none
_FAR, _REST = 0.25, 20
_SLOW = 0.05


@dataclass(frozen=True)
class FractalLines:
    """FDA with lines: scans for the valley, parabolas and remembered curvature for its bottom.

    A sphere's children lie on lines, two on each. Judged at their centres, they tell a slope
    and a curvature for each line, and so a point that none of them is: the joint vertex of all
    parabolas. It is tried at several lengths, on all lines and on the most promising ones; so
    is the move that past slopes suggest. The best becomes the next centre.

    Where lines have many valleys, each is scanned first. What all lines would gain is taken at
    once; where that does not add up, because the lines depend on each other, they are scanned
    one after the other from then on.

    Args:
        points: Of a scan, per line, from 4; 0 never scans.
        levels: Scans reach through the whole box, then through a sphere ``1 + √2`` times
            smaller, ...: how many sizes take turns, from 1.
        valleys: Of each line, how many are looked into by a parabola, from 0.
        lines: That are looked along before a step is taken, for small budgets; 0 takes all.
        halvings: Steps to both sides after a line was scanned alone, each half the last.
        together: Take what all lines gain at once; else always one line after the other.
        memory: Moves whose slopes are remembered; 0 follows parabolas alone.
        tolerance: Radius, in widths of the box, below which a refinement ends.

    Raises:
        SettingsError: A setting out of its range.

    Differences from the paper:
        The improved search of the papers (iFDA) is not described there; this one is ours. What
        each part brings is measured: see docs/fractal.md.
    """

    points: int = 16
    levels: int = 5
    valleys: int = 3
    lines: int = 0
    halvings: int = 4
    together: bool = True
    memory: int = 12
    tolerance: float = 1e-13

    def __post_init__(self) -> None:
        if self.points != 0 and not self.points >= _PROBES:
            raise SettingsError(f"expected 0 points or at least {_PROBES}, got {self.points}")
        if not self.levels >= 1:
            raise SettingsError(f"expected at least 1 level, got {self.levels}")
        for name in ("valleys", "lines", "halvings", "memory"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"expected {name} of at least 0, got {getattr(self, name)}")
        if not 0 < self.tolerance < 1:
            raise SettingsError(f"expected a tolerance between 0 and 1, got {self.tolerance}")

    def open(self, task: Task) -> Optimizer:
        """Begin a search; the seed decides where on its line a scan begins."""
        steps = _in_box(_Run(self, task).search(), task)
        return Stepwise(steps, task.bounds.dimensions, batch=task.batch)


def _in_box(steps: Steps, task: Task) -> Steps:
    """Turn a search of the unit cube into one of the box."""
    bounds = task.bounds
    lower, width = bounds.lower, bounds.width
    points = next(steps, None)
    while points is not None:
        values = yield bounds.clip(lower + width * points)
        try:
            points = steps.send(values)
        except StopIteration:
            points = None


class _Run:
    """One search of the unit cube under way; ``point`` and ``value`` are its best."""

    def __init__(self, settings: FractalLines, task: Task) -> None:
        self.settings = settings
        self.point = (task.origin - task.bounds.lower) / task.bounds.width
        self.value = np.inf
        self.axes = np.arange(len(self.point))
        self.generator = np.random.default_rng(task.seed)
        self.one_by_one = not settings.together

    def search(self) -> Steps:
        """Descend, then scan and descend by turns until nobody asks any more."""
        settings = self.settings
        self.value = float((yield self.point[None])[0])
        begun = self.value
        descent = self._descend(_FAR)
        yield from self._follow(descent, patience=_SLOW if settings.points else 0.0)
        if not settings.points:
            return
        if (yield from self._scan(1.0, _PROBES)) >= _ONE_VALLEY:
            if descent.value > self.value:
                descent = self._descend(_FAR)
            yield from self._follow(descent)
        turn = idle = 0
        while True:
            before = self.value
            level = turn % settings.levels
            yield from self._scan(0.5 / SHRINK**level if level else 1.0, settings.points)
            if not self.one_by_one:
                yield from self._follow(self._descend(0.5 / settings.points), patience=_SLOW)
            turn += 1
            idle = idle + 1 if before - self.value <= _IDLE * (begun - self.value) else 0
            if idle == settings.levels:
                yield from self._follow(self._descend(0.5 / settings.points))
                idle = -_REST

    def _descend(self, radius: float) -> Refinement:
        return Refinement(
            self.point,
            self.value,
            radius,
            lines=self.settings.lines or len(self.point),
            memory=self.settings.memory,
            tolerance=self.settings.tolerance,
        )

    def _follow(self, descent: Refinement, *, patience: float = 0.0) -> Steps:
        yield from descent.run(patience=patience)
        self.point, self.value = descent.point, descent.value

    def _scan(self, reach: float, count: int) -> Generator[Points, Values, float]:
        """Look along every line, move where it pays, and return the share with one valley."""
        low, high = np.maximum(self.point - reach, 0), np.minimum(self.point + reach, 1)
        first = self.generator.random((len(low), 1))
        places = low[:, None] + (high - low)[:, None] * (np.arange(count) + first) / count
        if self.one_by_one:
            yield from self._scan_one_by_one(places, (high - low) / count / 2)
            return 0.0
        seen = yield from ask_lines(self.point, self.axes, places)
        here = np.full((len(low), 1), self.value)
        profiles = Profiles.of(self.point[:, None], here).joined(places, seen)
        turns = profiles.turns()
        many = float((turns > 1).mean())
        if self.settings.valleys and many and count > _PROBES:
            places = profiles.valleys(self.settings.valleys)
            seen = yield from ask_lines(self.point, self.axes, places)
            profiles = profiles.joined(places, seen)
        share = yield from self._move(profiles)
        self.one_by_one |= share < _ADDS_UP and many > _ADDS_UP
        return 1 - many

    def _move(self, profiles: Profiles) -> Generator[Points, Values, float]:
        """Take what the lines gain together, and return how much of its sum that was."""
        bottoms, low = profiles.bottoms()
        gains = self.value - low
        trials = [bottoms, profiles.lowest()]
        order = np.argsort(-gains, kind="stable")
        count = len(order) // 2
        while count:
            trials.append(_replaced(self.point, order[:count], bottoms))
            count //= 2
        trials.append(_replaced(self.point, order[:1], profiles.lowest()))
        points = np.stack(trials)
        values = yield points
        which = int(values.argmin())
        gained = self.value - float(values[which])
        expected = float(gains.sum())
        if gained > 0:
            self.point, self.value = points[which], float(values[which])
        return gained / expected if expected > 0 else 1.0

    def _scan_one_by_one(self, places: NDArray[np.float64], steps: Values) -> Steps:
        """Scan line after line, each from where the last one led; then halve steps around."""
        for axis in self.generator.permutation(len(places)).tolist():
            yield from self._take_best(axis, places[axis])
            step = float(steps[axis])
            for _ in range(self.settings.halvings):
                here = float(self.point[axis])
                yield from self._take_best(
                    axis, np.array([min(here + step, 1.0), max(here - step, 0.0)])
                )
                step /= 2

    def _take_best(self, axis: int, places: Values) -> Steps:
        points = np.empty((len(places), len(self.point)))
        points[:] = self.point
        points[:, axis] = places
        values = yield points
        which = int(values.argmin())
        if values[which] < self.value:
            self.point, self.value = points[which], float(values[which])


def _replaced(point: Values, axes: NDArray[np.intp], by: Values) -> Values:
    moved = point.copy()
    moved[axes] = by[axes]
    return moved
