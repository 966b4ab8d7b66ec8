"""Connected parts of a mask, in NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Component", "dilate", "find_components"]


@dataclass(frozen=True, eq=False)
class Component:
    """One connected part of a mask.

    Args:
        box: ``(x0, y0, x1, y1)`` of its extent, ``x1`` and ``y1`` exclusive.
        mask: ``(y1 - y0, x1 - x0)`` bool, its pixels.
    """

    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]


def find_components(mask: NDArray[np.bool_]) -> list[Component]:
    """Return the 8-connected parts of ``mask``, by their first pixel in reading order.

    Works on runs of set pixels, so the cost beyond one pass over the mask grows with its
    outline, not its area.

    Args:
        mask: ``(H, W)`` bool.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return []
    top = int(rows[0])
    row, start, stop = _find_runs(mask[top : int(rows[-1]) + 1])
    first, second = _touching_runs(row, start, stop, mask.shape[1])
    roots = _connect(len(row), first, second)
    order = np.argsort(roots, kind="stable")
    cuts = np.flatnonzero(np.diff(roots[order])) + 1
    return [_draw(row[part] + top, start[part], stop[part]) for part in np.split(order, cuts)]


def dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return ``mask`` grown by ``radius`` pixels in the square sense, within its own frame.

    Args:
        mask: ``(H, W)`` bool.
        radius: In pixels, at least 0.
    """
    grown = mask
    for axis in (0, 1):
        length = mask.shape[axis]
        counts = np.cumsum(grown, axis=axis, dtype=np.int32)
        places = np.arange(length)
        upper = np.take(counts, np.minimum(places + radius, length - 1), axis=axis)
        lower = np.take(counts, np.maximum(places - radius - 1, 0), axis=axis)
        inside = places > radius
        lower = lower * (inside[:, None] if axis == 0 else inside[None, :])
        grown = upper > lower
    return grown


def _find_runs(
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return row, first column and end column (exclusive) of each run, in reading order."""
    height, width = mask.shape
    padded = np.zeros((height, width + 1), np.bool_)
    padded[:, :width] = mask
    flat = padded.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat[0]:
        changes = np.concatenate([[0], changes])
    starts, stops = changes[0::2], changes[1::2]
    row = starts // (width + 1)
    return row, starts - row * (width + 1), stops - row * (width + 1)


def _touching_runs(
    row: NDArray[np.intp], start: NDArray[np.intp], stop: NDArray[np.intp], width: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return pairs of runs in neighbouring rows that touch, corners included."""
    pitch = width + 2
    low = np.searchsorted(row * pitch + stop, (row + 1) * pitch + start, side="left")
    high = np.searchsorted(row * pitch + start, (row + 1) * pitch + stop, side="right")
    counts = np.maximum(high - low, 0)
    first = np.repeat(np.arange(len(row)), counts)
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first, np.repeat(low, counts) + within


def _connect(count: int, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return for each of ``count`` things the least one that the pairs connect it to."""
    roots = np.arange(count)
    while True:
        one, two = roots[first], roots[second]
        apart = one != two
        if not apart.any():
            return roots
        first, second, one, two = first[apart], second[apart], one[apart], two[apart]
        # Hang the later root under the earlier one, then let every thing point at its root.
        np.minimum.at(roots, np.maximum(one, two), np.minimum(one, two))
        while True:
            higher = roots[roots]
            if (higher == roots).all():
                break
            roots = higher


def _draw(row: NDArray[np.intp], start: NDArray[np.intp], stop: NDArray[np.intp]) -> Component:
    x0, y0, x1, y1 = int(start.min()), int(row.min()), int(stop.max()), int(row.max()) + 1
    steps = np.zeros((y1 - y0, x1 - x0 + 1), np.int8)
    # Each run opens and closes at places of its own, so plain assignment is enough.
    steps[row - y0, start - x0] = 1
    steps[row - y0, stop - x0] -= 1
    return Component((x0, y0, x1, y1), np.cumsum(steps, axis=1, dtype=np.int8)[:, :-1] > 0)
