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


@dataclass(frozen=True)
class Refinement:
    """Descend from one point.

    Args:
        memory: Moves whose slopes are remembered; 0 follows parabolas alone.
        tolerance: Radius, in widths of the box, at which it ends.
        patience: It also ends after three steps in a row whose gain is a smaller share of all
            gain than this; 0 waits for the tolerance.
    """

    memory: int
    tolerance: float
    patience: float = 0.0

    def run(
        self, point: Values, value: float, radius: float
    ) -> Generator[Points, Values, tuple[Values, float]]:
        """Return the lowest point found in the unit cube, and its value.

        Args:
            point: ``(D,)`` where to begin.
            value: Of it.
            radius: Of the first sphere, in widths of the box.
        """
        curvature = Curvature(self.memory)
        begun, weak, failures = value, 0, 0
        while radius > self.tolerance and weak < _PATIENT:
            pairs = yield from _ask_pairs(point, value, radius)
            if pairs.is_flat:
                break
            trials, lengths = pairs.trials(curvature)
            seen = yield trials
            which = int(seen.argmin())
            found, moved = float(seen[which]), trials[which]
            if pairs.lowest < found:
                found, moved, which = pairs.lowest, pairs.lowest_point(), 0
            if not found < value:
                failures += 1
                radius /= SHRINK**2
                if failures > 1:
                    curvature.forget()
                if failures >= _PATIENT and self.patience:
                    break
                continue
            step = float(np.abs(moved - point).max())
            if which >= lengths:
                radius = max(_SLOPE_RADIUS * step, radius / SHRINK**2)
            elif step > _AT_EDGE * radius:
                radius *= SHRINK
            else:
                radius = max(_PARABOLA_RADIUS * step, radius / SHRINK)
            gain = value - found
            if gain < _NOTHING * abs(value):
                radius /= SHRINK
            radius = min(radius, 0.5)
            failures = 0
            point, value = moved, found
            weak = weak + 1 if gain < self.patience * (begun - value) else 0
        return point, value


@dataclass(frozen=True, eq=False)
class _Pairs:
    """A sphere's children, two on each line, and their values."""

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
        moved[axis] = self.places[axis, side]
        return moved

    def trials(self, curvature: Curvature) -> tuple[Points, int]:
        """Return points worth trying, and how many of the first follow the parabolas."""
        slopes, bends = self._derivatives()
        curvature.learn(self.point, slopes)
        move, gains = self._vertex(slopes, bends)
        trials = [self.point + length * move for length in _LENGTHS]
        order = np.argsort(-gains, kind="stable")
        count = len(order) // 2
        while count:
            partial = self.point.copy()
            partial[order[:count]] += move[order[:count]]
            trials.append(partial)
            count //= 2
        lengths = len(trials)
        direction = curvature.direction(bends)
        if direction is not None:
            trials += [self.point + length * direction for length in (_LONGEST, *_LENGTHS)]
        return np.clip(np.stack(trials), 0, 1), lengths

    def _derivatives(self) -> tuple[Values, Values]:
        """Return ``(D,)`` slopes and second derivatives; at the border, one side and 0."""
        ahead, behind = self.places[:, 0] - self.point, self.point - self.places[:, 1]
        has_ahead, has_behind = ahead > 0, behind > 0
        rise = (self.values[:, 0] - self.value) / np.where(has_ahead, ahead, 1)
        fall = (self.value - self.values[:, 1]) / np.where(has_behind, behind, 1)
        both = has_ahead & has_behind
        between = (rise * behind + fall * ahead) / (ahead + behind)
        slopes = np.where(both, between, np.where(has_ahead, rise, fall))
        bends = np.where(both, 2 * (rise - fall) / (ahead + behind), 0.0)
        return slopes, bends

    def _vertex(self, slopes: Values, bends: Values) -> tuple[Values, Values]:
        """Return the ``(D,)`` move to the joint vertex and what each line should gain."""
        low = self.values.min(1)
        better = self.places[np.arange(len(low)), self.values.argmin(1)] - self.point
        hollow = bends > 0
        longest = _LONGEST * self.radius
        vertex = np.clip(-slopes / np.where(hollow, bends, 1), -longest, longest)
        move = np.where(hollow, vertex, np.where(low < self.value, better, 0.0))
        move = np.clip(self.point + move, 0, 1) - self.point
        gains = np.maximum(self.value - low, -(slopes + bends * move / 2) * move)
        return move, gains


def _ask_pairs(point: Values, value: float, radius: float) -> Generator[Points, Values, _Pairs]:
    places = np.stack([np.minimum(point + radius, 1), np.maximum(point - radius, 0)], axis=1)
    values = yield from ask_lines(point, np.arange(len(point)), places)
    return _Pairs(point, value, radius, places, values)
