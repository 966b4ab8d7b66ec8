"""From a point to the bottom of its valley: parabolas on all lines, and remembered slopes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotoma.optimize.bounds import Points, Values
from scotoma.optimize.curvature import Curvature
from scotoma.optimize.fractal import SHRINK
from scotoma.optimize.lines import ask_lines

__all__ = ["Refinement"]

_LENGTHS = (2.0, 1.0, 0.5, 0.25, 0.1, 0.03)
_LONGEST = 4.0  # radii that a parabola may lead away
_AT_EDGE = 1.9  # radii from which a move asks for a larger sphere
_PARABOLA_RADIUS, _SLOPE_RADIUS = 0.5, 0.1  # next radius, as a share of a move of that kind
_NOTHING = 1e-14  # a gain below this share of the value is rounding
_PATIENT = 3


class Refinement:
    """One descent under way.

    Args:
        point: ``(D,)`` where to begin, in the unit cube.
        value: Of it.
        radius: Of the first sphere, in widths of the box.
        lines: Lines that are looked along before a step is taken; fewer than ``D`` take turns,
            and then no slopes are remembered.
        memory: Moves whose slopes are remembered; 0 follows parabolas alone.
        tolerance: Radius, in widths of the box, at which it ends.
    """

    def __init__(
        self,
        point: Values,
        value: float,
        radius: float,
        *,
        lines: int,
        memory: int,
        tolerance: float,
    ) -> None:
        self.point = point
        self.value = value
        self.radius = radius
        self.tolerance = tolerance
        self._curvature = Curvature(memory if lines >= len(point) else 0)
        blocks = -(-len(point) // lines)
        self._blocks = np.array_split(np.arange(len(point)), blocks)
        self._failures = 0

    def run(self, *, patience: float = 0.0) -> Generator[Points, Values, None]:
        """Descend; ``point`` and ``value`` are the best at any time.

        Args:
            patience: End after three rounds in a row that each gain a smaller share of the whole
                gain than this, or nothing; 0 waits for the tolerance.
        """
        begun, weak = self.value, 0
        while self.radius > self.tolerance and weak < _PATIENT:
            before, flat = self.value, True
            for axes in self._blocks:
                flat &= yield from self._step(axes)
            if flat:
                break
            if self.value < before:
                self._failures = 0
            else:
                self._failures += 1
                self.radius /= SHRINK**2
                if self._failures > 1:
                    self._curvature.forget()
            weak = weak + 1 if before - self.value <= patience * (begun - self.value) else 0
            weak = weak if patience else 0

    def _step(self, axes: NDArray[np.intp]) -> Generator[Points, Values, bool]:
        """Look along some lines, move if it pays, and return whether all values were equal."""
        pairs = yield from _ask_pairs(self.point, self.value, self.radius, axes)
        if pairs.is_flat:
            return True
        trials, parabolas = pairs.trials(self._curvature)
        seen = yield trials
        which = int(seen.argmin())
        found, moved = float(seen[which]), trials[which]
        if pairs.lowest < found:
            found, moved, which = pairs.lowest, pairs.lowest_point(), 0
        if found < self.value:
            step = float(np.abs(moved - self.point).max())
            if which >= parabolas:
                radius = max(_SLOPE_RADIUS * step, self.radius / SHRINK**2)
            elif step > _AT_EDGE * self.radius:
                radius = self.radius * SHRINK
            else:
                radius = max(_PARABOLA_RADIUS * step, self.radius / SHRINK)
            if self.value - found < _NOTHING * abs(self.value):
                radius /= SHRINK
            self.point, self.value, self.radius = moved, found, min(radius, 0.5)
        return False


@dataclass(frozen=True, eq=False)
class _Pairs:
    """A sphere's children, two on each line that is looked along, and their values."""

    axes: NDArray[np.intp]
    point: Values
    value: float
    radius: float
    places: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def is_flat(self) -> bool:
        return bool((self.values == self.value).all())

    @property
    def lowest(self) -> float:
        return float(self.values.min())

    def lowest_point(self) -> Values:
        axis, side = divmod(int(self.values.argmin()), 2)
        moved = self.point.copy()
        moved[self.axes[axis]] = self.places[axis, side]
        return moved

    def trials(self, curvature: Curvature) -> tuple[Points, int]:
        """Return points worth trying, and how many of the first follow the parabolas."""
        slopes, bends = self._derivatives()
        curvature.learn(self.point, slopes)
        move, gains = self._vertex(slopes, bends)
        order = np.argsort(-gains, kind="stable")
        trials = [self._moved(order, length * move) for length in _LENGTHS]
        count = len(order) // 2
        while count:
            trials.append(self._moved(order[:count], move))
            count //= 2
        lengths = len(trials)
        direction = curvature.direction(bends)
        if direction is not None:
            trials += [self.point + length * direction for length in (_LONGEST, *_LENGTHS)]
        return np.clip(np.stack(trials), 0, 1), lengths

    def _moved(self, lines: NDArray[np.intp], move: Values) -> Values:
        moved = self.point.copy()
        moved[self.axes[lines]] += move[lines]
        return moved

    def _derivatives(self) -> tuple[Values, Values]:
        """Return ``(m,)`` slopes and second derivatives; at the border, one side and 0."""
        here = self.point[self.axes]
        ahead, behind = self.places[:, 0] - here, here - self.places[:, 1]
        has_ahead, has_behind = ahead > 0, behind > 0
        rise = (self.values[:, 0] - self.value) / np.where(has_ahead, ahead, 1)
        fall = (self.value - self.values[:, 1]) / np.where(has_behind, behind, 1)
        both = has_ahead & has_behind
        between = (rise * behind + fall * ahead) / (ahead + behind)
        slopes = np.where(both, between, np.where(has_ahead, rise, fall))
        bends = np.where(both, 2 * (rise - fall) / (ahead + behind), 0.0)
        return slopes, bends

    def _vertex(self, slopes: Values, bends: Values) -> tuple[Values, Values]:
        """Return the ``(m,)`` move to the joint vertex and what each line should gain."""
        low = self.values.min(1)
        here = self.point[self.axes]
        better = self.places[np.arange(len(low)), self.values.argmin(1)] - here
        hollow = bends > 0
        longest = _LONGEST * self.radius
        vertex = np.clip(-slopes / np.where(hollow, bends, 1), -longest, longest)
        move = np.where(hollow, vertex, np.where(low < self.value, better, 0.0))
        move = np.clip(here + move, 0, 1) - here
        gains = np.maximum(self.value - low, -(slopes + bends * move / 2) * move)
        return move, gains


def _ask_pairs(
    point: Values, value: float, radius: float, axes: NDArray[np.intp]
) -> Generator[Points, Values, _Pairs]:
    here = point[axes]
    places = np.stack([np.minimum(here + radius, 1), np.maximum(here - radius, 0)], axis=1)
    values = yield from ask_lines(point, axes, places)
    return _Pairs(axes, point, value, radius, places, values)
