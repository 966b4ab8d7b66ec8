"""The box that a search stays in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import SettingsError

__all__ = ["Bounds", "Points", "Values"]

Points = NDArray[np.float64]
"""``(n, D)`` points, one per row."""

Values = NDArray[np.float64]
"""``(n,)`` values of a function at points; a search wants them small."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """Least and greatest value of every dimension.

    Args:
        lower: ``(D,)``, finite; anything that makes such an array.
        upper: ``(D,)``, finite, above ``lower`` everywhere.

    Raises:
        SettingsError: No dimension, different lengths, NaN or infinity, or an empty interval.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            side = np.array(getattr(self, name), dtype=np.float64)
            if side.ndim != 1 or not len(side):
                raise SettingsError(f"expected {name} bounds of shape (D,), got {side.shape}")
            side.setflags(write=False)
            object.__setattr__(self, name, side)
        if self.lower.shape != self.upper.shape:
            raise SettingsError(
                f"expected as many lower as upper bounds, got {len(self.lower)} "
                f"and {len(self.upper)}"
            )
        width = self.upper - self.lower
        usable = np.isfinite(self.lower) & np.isfinite(self.upper) & np.isfinite(width)
        usable &= width > 0
        if not usable.all():
            at = int(np.argmin(usable))
            raise SettingsError(
                "expected finite lower bounds below the upper ones, got "
                f"{self.lower[at]} and {self.upper[at]} in dimension {at}"
            )

    @classmethod
    def cube(cls, dimensions: int, lower: float, upper: float) -> Bounds:
        """Return the same interval in every dimension."""
        return cls(np.full(dimensions, lower), np.full(dimensions, upper))

    @property
    def dimensions(self) -> int:
        """How many there are."""
        return len(self.lower)

    @property
    def width(self) -> NDArray[np.float64]:
        """``(D,)`` lengths of the intervals."""
        return self.upper - self.lower

    @property
    def centre(self) -> NDArray[np.float64]:
        """``(D,)`` middle of the box."""
        return self.lower + self.width / 2

    def holds(self, points: NDArray[np.float64]) -> bool:
        """Whether all of ``(n, D)`` or ``(D,)`` points lie inside; NaN does not."""
        return bool(((points >= self.lower) & (points <= self.upper)).all())

    def clip(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the nearest points inside."""
        return np.clip(points, self.lower, self.upper)
