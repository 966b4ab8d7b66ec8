"""How a learned attack did over its training budget, and whether more would have helped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scotoma.core.errors import SettingsError

__all__ = ["TOLERANCE", "Point", "has_flattened", "late_gain"]

TOLERANCE = 0.01
"""Share of the trivial guess's loss that the last part of a training may still have gained."""

_LAST_PART = 0.25


@dataclass(frozen=True)
class Point:
    """What an attack is worth after so many steps, on pictures kept aside by the attacker.

    Args:
        step: Steps done; 0 is the guess before any training.
        loss: As trained for, lower is better.
        psnr_db: Mean over pictures.
    """

    step: int
    loss: float
    psnr_db: float


def late_gain(history: Sequence[Point], *, part: float = _LAST_PART) -> float:
    """Return what the last part of a training gained, as a share of the first point's loss.

    The first point is the trivial guess, so a network that rebuilds all but the last grain
    has little left to gain, and one that learned nothing has gained nothing.

    Args:
        history: In order of steps, from step 0.
        part: Of all steps, in (0, 1).

    Returns:
        In [0, 1]: of the best losses until then and until the end.

    Raises:
        SettingsError: Nothing was trained, or ``part`` is out of range.
    """
    if not 0 < part < 1:
        raise SettingsError(f"expected a part in (0, 1), got {part}")
    if len(history) < 2 or history[0].step != 0:
        raise SettingsError(
            "expected a history from step 0 on with at least one step trained, "
            f"got {len(history)} points; train for longer"
        )
    edge = (1 - part) * history[-1].step
    before = min(point.loss for point in history if point.step <= edge)
    after = min(point.loss for point in history)
    first = history[0].loss
    return (before - after) / first if first > 0 else 0.0


def has_flattened(history: Sequence[Point], *, tolerance: float = TOLERANCE) -> bool:
    """Return whether the last quarter of the training gained next to nothing.

    Args:
        history: As for :func:`late_gain`.
        tolerance: Largest :func:`late_gain` that counts as nothing.
    """
    return late_gain(history) <= tolerance
