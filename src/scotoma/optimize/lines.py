"""Values along lines through a point, and where they say that a line is lowest."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotoma.optimize.bounds import Points, Values

__all__ = ["Profiles", "ask_lines", "find_vertices"]

Array = NDArray[np.float64]

_PORTION = 1 << 20  # numbers yielded at once, so that many dimensions need little memory
_EQUAL = 1e-12  # values this much apart, relatively, are a plateau


def ask_lines(
    point: Values, axes: NDArray[np.intp], places: Array
) -> Generator[Points, Values, Array]:
    """Ask for the values where one coordinate of a point is replaced.

    Args:
        point: ``(D,)``.
        axes: ``(m,)`` the coordinates, one per line.
        places: ``(m, k)`` what they are replaced with.

    Returns:
        ``(m, k)`` values.
    """
    lines, count = places.shape
    values = np.empty(places.shape)
    portion = max(1, _PORTION // (count * len(point)))
    for first in range(0, lines, portion):
        here = slice(first, first + portion)
        among = axes[here]
        points = np.empty((len(among) * count, len(point)))
        points[:] = point
        points[np.arange(len(points)), np.repeat(among, count)] = places[here].ravel()
        values[here] = (yield points).reshape(-1, count)
    return values


def find_vertices(x: tuple[Array, Array, Array], y: tuple[Array, Array, Array]) -> Array:
    """Return where parabolas through three points each are lowest.

    Args:
        x: Left, middle and right places, ascending.
        y: Their values.

    Returns:
        Places between left and right; the middle where the parabola has its lowest point elsewhere.
    """
    left, middle, right = x
    with np.errstate(all="ignore"):
        fall = (middle - left) * (y[1] - y[2])
        rise = (middle - right) * (y[1] - y[0])
        vertex = middle - ((middle - left) * fall - (middle - right) * rise) / (2 * (fall - rise))
        inside = (vertex > left) & (vertex < right) & (fall - rise < 0)
    return np.where(inside, vertex, middle)


@dataclass(frozen=True, eq=False)
class Profiles:
    """What was seen along lines, each in ascending order of places.

    Args:
        places: ``(m, k)``, ``k`` at least 3.
        values: ``(m, k)``.
    """

    places: Array
    values: Array

    @classmethod
    def of(cls, places: Array, values: Array) -> Profiles:
        """Return profiles of unordered places."""
        order = np.argsort(places, axis=1, kind="stable")
        return cls(np.take_along_axis(places, order, 1), np.take_along_axis(values, order, 1))

    def joined(self, places: Array, values: Array) -> Profiles:
        """Return profiles that know more places."""
        return Profiles.of(
            np.concatenate([self.places, places], 1), np.concatenate([self.values, values], 1)
        )

    def turns(self) -> NDArray[np.intp]:
        """Return ``(m,)`` how often each line changes between falling and rising."""
        slopes = np.sign(np.diff(self.values, axis=1))
        for step in range(1, slopes.shape[1]):  # a flat piece goes on as what came before
            flat = slopes[:, step] == 0
            slopes[flat, step] = slopes[flat, step - 1]
        return np.asarray((slopes[:, 1:] * slopes[:, :-1] < 0).sum(1))

    def valleys(self, count: int) -> Array:
        """Return ``(m, count)`` vertices of parabolas around the lowest valleys of each line."""
        padded = np.pad(self.values, ((0, 0), (1, 1)), constant_values=np.inf)
        is_valley = (self.values <= padded[:, :-2]) & (self.values <= padded[:, 2:])
        depths = np.where(is_valley, self.values, np.inf)
        lowest = np.argsort(depths, axis=1, kind="stable")[:, :count]
        return self._vertices_at(lowest)

    def bottoms(self) -> tuple[Array, Array]:
        """Return ``(m,)`` places where each line should be lowest, and ``(m,)`` its lowest value.

        The middle of the plateau, where the lowest values are equal and adjoin; else the vertex
        of the parabola around the lowest.
        """
        lines = np.arange(len(self.values))
        low = self.values.min(1)
        equal = self.values <= (low + _EQUAL * np.abs(low))[:, None]
        first = equal.argmax(1)
        last = equal.shape[1] - 1 - equal[:, ::-1].argmax(1)
        is_plateau = (last > first) & (equal.sum(1) == last - first + 1)
        middle = (self.places[lines, first] + self.places[lines, last]) / 2
        vertex = self._vertices_at(self.values.argmin(1)[:, None])[:, 0]
        return np.where(is_plateau, middle, vertex), low

    def lowest(self) -> Array:
        """Return ``(m,)`` places where the lowest value was seen."""
        return np.asarray(self.places[np.arange(len(self.values)), self.values.argmin(1)])

    def _vertices_at(self, which: NDArray[np.intp]) -> Array:
        last = self.places.shape[1] - 1
        inner = np.clip(which, 1, last - 1)
        line = np.arange(len(self.places))[:, None]

        def around(source: Array) -> tuple[Array, Array, Array]:
            return source[line, inner - 1], source[line, inner], source[line, inner + 1]

        vertices = find_vertices(around(self.places), around(self.values))
        return np.where(which == inner, vertices, self.places[line, which])
