"""An arrangement grown piece by piece, the most certain first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIDES", "Growth", "Numbers", "Places"]

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]

SIDES = ((0, 1, 0, False), (0, -1, 0, True), (1, 0, 1, False), (-1, 0, 1, True))
"""Steps to a neighbour, the evidence's direction, and whether it is read from the other side."""


class Growth:
    """An arrangement that grows in a frame that floats over a canvas.

    Args:
        pairs: ``(2, N, N)``: evidence for ``j`` right of ``i``, and below it.
        seed: ``(rows, columns)``: the pieces to begin with, -1 where there is none.
    """

    def __init__(self, pairs: Numbers, seed: Places) -> None:
        self.rows, self.columns = seed.shape
        self.pairs = pairs
        count = seed.size
        self.canvas = np.full((2 * self.rows + 1, 2 * self.columns + 1), -1)
        self.gain = np.zeros((*self.canvas.shape, count))
        self.free = np.zeros(count)  # 0 where a piece is free, -inf where it lies
        self.open: dict[tuple[int, int], tuple[float, int]] = {}
        self.low = [self.canvas.shape[0], self.canvas.shape[1]]
        self.high = [-1, -1]
        self.left = count
        ys, xs = (seed >= 0).nonzero()
        tall, wide = int(ys.max() - ys.min()) + 1, int(xs.max() - xs.min()) + 1
        top, left = self.rows - tall // 2 - int(ys.min()), self.columns - wide // 2 - int(xs.min())
        for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
            self._put((y + top, x + left), int(seed[y, x]))
        for place in self.open:
            self._look(place)

    def finish(self) -> Places:
        """Return the whole arrangement."""
        while self.left:
            allowed = (place for place in self.open if self._inside(place))
            place = max(allowed, key=lambda one: self.open[one][0])
            piece = self.open[place][1]
            self._put(place, piece)
            for other, (_, wanted) in self.open.items():
                if wanted == piece or abs(other[0] - place[0]) + abs(other[1] - place[1]) == 1:
                    self._look(other)
        return self.canvas[
            self.low[0] : self.low[0] + self.rows, self.low[1] : self.low[1] + self.columns
        ].copy()

    def _put(self, place: tuple[int, int], piece: int) -> None:
        self.canvas[place] = piece
        self.free[piece] = -np.inf
        self.left -= 1
        self.open.pop(place, None)
        for axis in (0, 1):
            self.low[axis] = min(self.low[axis], place[axis])
            self.high[axis] = max(self.high[axis], place[axis])
        for down, across, axis, back in SIDES:
            near = (place[0] + down, place[1] + across)
            if self.canvas[near] < 0:
                self.gain[near] += self.pairs[axis][:, piece] if back else self.pairs[axis][piece]
                self.open.setdefault(near, (-np.inf, -1))

    def _look(self, place: tuple[int, int]) -> None:
        """Note which free piece fits best at a place, and how sure that is among them."""
        if not self.left:
            return
        worth = self.gain[place] + self.free
        piece = int(worth.argmax())
        self.open[place] = (-float(np.log(np.exp(worth - worth[piece]).sum())), piece)

    def _inside(self, place: tuple[int, int]) -> bool:
        sides = (self.rows, self.columns)
        return all(
            max(self.high[axis], place[axis]) - min(self.low[axis], place[axis]) < sides[axis]
            for axis in (0, 1)
        )
