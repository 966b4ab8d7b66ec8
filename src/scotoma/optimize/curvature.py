"""What past slopes tell of a function's curvature."""

from __future__ import annotations

import numpy as np

from scotoma.optimize.bounds import Values

__all__ = ["Curvature"]

_LEAST_COSINE = 1e-12
_LEAST_DIAGONAL = 1e-8


class Curvature:
    """The last moves and how the slopes changed along them (L-BFGS).

    Args:
        memory: Moves that are kept; 0 keeps none and never knows a direction.

    Source:
        Nocedal, Wright, Numerical Optimization, 2nd edition 2006, Algorithm 7.4.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._moves: list[tuple[Values, Values]] = []
        self._last: tuple[Values, Values] | None = None

    def forget(self) -> None:
        """Begin again, for moves whose slopes were too rough to go by."""
        self._moves.clear()

    def learn(self, point: Values, slopes: Values) -> None:
        """Take the ``(D,)`` slopes at a point."""
        if self._last is not None and self.memory:
            move, change = point - self._last[0], slopes - self._last[1]
            scale = np.sqrt((move @ move) * (change @ change))
            if move @ change > _LEAST_COSINE * scale:
                self._moves = [*self._moves, (move, change)][-self.memory :]
        self._last = (point, slopes)

    def direction(self, diagonal: Values) -> Values | None:
        """Return the ``(D,)`` move to the vertex of what is known, from the last point.

        Args:
            diagonal: ``(D,)`` second derivatives along the axes; what is not positive is replaced.

        Returns:
            The move, or None as long as nothing is known.
        """
        if not self._moves or self._last is None:
            return None
        positive = diagonal > 0
        usual = float(np.median(diagonal[positive])) if positive.any() else 1.0
        stiffness = np.where(positive, diagonal, usual)
        stiffness = np.maximum(stiffness, _LEAST_DIAGONAL * stiffness.max())
        direction = self._last[1].copy()
        shares = []
        for move, change in reversed(self._moves):
            share = (move @ direction) / (move @ change)
            direction -= share * change
            shares.append(share)
        move, change = self._moves[-1]
        direction /= stiffness
        direction *= (move @ change) / ((change / stiffness) @ change)
        for (move, change), share in zip(self._moves, reversed(shares), strict=True):
            direction += (share - (change @ direction) / (move @ change)) * move
        return -direction
