"""What decides a search besides the pictures and the models."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scotoma.core.errors import SettingsError
from scotoma.protections.anonymize.objectives import Objective, Top1

__all__ = ["SearchSettings"]


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the gradient search.

    Args:
        keep: What of the decision is kept.
        margin: Lead, in logits, that the search aims at before it checks a candidate.
        step: Largest change of a cell in one step, in 1/255.
        cell: Side of a cell, in 1/256 of the picture's shorter side.
        least_cells: Every region gets at least this many cells along its shorter side.
        smooth: Interpolate between cells instead of showing them as flat squares.
        max_steps: Gradient steps after which a picture is given up; 0 never searches.
        views: Scales at which a candidate's resized copies must keep the decision too.
        batch_size: Pictures per pass of a network.
        pool_pixels: Pixels of all pictures held at a time.
    """

    keep: Objective = field(default_factory=Top1)
    margin: float = 2.0
    step: float = 8.0
    cell: float = 8.0
    least_cells: int = 6
    smooth: bool = True
    max_steps: int = 200
    views: tuple[float, ...] = (0.9, 1.1)
    batch_size: int = 16
    pool_pixels: int = 48_000_000

    def __post_init__(self) -> None:
        positive = {
            "step": self.step,
            "cell": self.cell,
            "least_cells": self.least_cells,
            "batch_size": self.batch_size,
            "pool_pixels": self.pool_pixels,
            **{f"view {scale}": scale for scale in self.views},
        }
        for name, value in positive.items():
            if not (value > 0 and math.isfinite(value)):
                raise SettingsError(f"expected a positive {name}, got {value}")
        if self.max_steps < 0:
            raise SettingsError(f"expected max_steps of at least 0, got {self.max_steps}")
        if not (self.margin >= 0 and math.isfinite(self.margin)):
            raise SettingsError(f"expected a margin of at least 0, got {self.margin}")
