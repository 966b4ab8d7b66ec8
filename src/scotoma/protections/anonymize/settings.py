"""What decides a search besides the pictures and the models."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.optimize.registry import optimizers
from scotoma.protections.anonymize.objectives import Objective, Top1

__all__ = ["BlackBox", "SearchSettings", "Transfer"]


@dataclass(frozen=True)
class BlackBox:
    """How to search where models give scores only.

    Args:
        queries: Most pictures that each model is asked about for one input: the original, the
            fill, all candidates and the written file, from 3.
        optimizer: ``patchwork`` lays pieces of the surroundings over the regions and then goes
            on as ``linear``, which learns how all scores follow the content; otherwise a name
            of :data:`scotoma.optimize.registry.optimizers`.
        labels_only: Look at nothing but the decisions, also where scores are given. Pieces are
            laid then at random, until one keeps them.
        patience: Queries without gain after which no more pieces are laid.
        coefficients: How many numbers say what the regions show.
        basis: What they mean; see :data:`scotoma.protections.anonymize.content.BASES`.
        reach: Greatest size of a number, in 255ths, for optimizers that need bounds.
        margin: Lead, in logits, of a candidate that is worth writing.
        batch: Points asked about at once, from 5.
        pieces: Pictures with one more piece that are asked about at once.
        seed: Of everything random.

    Raises:
        SettingsError: A value outside its range.
    """

    queries: int = 500
    optimizer: str = "patchwork"
    labels_only: bool = False
    patience: int = 80
    coefficients: int = 150
    basis: str = "dct"
    reach: float = 120.0
    margin: float = 0.5
    batch: int = 9
    pieces: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in (known := ["linear", "patchwork", *optimizers.names()]):
            raise UnknownNameError("optimizer", self.optimizer, known)
        least = {"queries": 3, "coefficients": 3, "batch": 5, "pieces": 1, "patience": 1, "seed": 0}
        for name, lowest in least.items():
            if not getattr(self, name) >= lowest:
                raise SettingsError(
                    f"expected {name} of at least {lowest}, got {getattr(self, name)}"
                )
        for name in ("reach", "margin"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"expected a positive {name}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Transfer:
    """How to make models agree that take no part in the search.

    Args:
        steps: Least number of gradient steps, each under another random view. Agreement grows
            with them, and so does the time.
        margin: Lead, in logits, instead of the search's own where that is smaller.
        diversity: Strength of the random views; see :func:`scotoma.ops.diversity.random_views`.

    Raises:
        SettingsError: A value outside its range.
    """

    steps: int = 64
    margin: float = 6.0
    diversity: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise SettingsError(f"expected steps >= 0, got {self.steps}")
        if not (self.margin >= 0 and self.diversity >= 0):
            raise SettingsError(
                f"expected margin >= 0 and diversity >= 0, got {self.margin}, {self.diversity}"
            )


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the gradient search.

    Args:
        keep: What of the decision is kept.
        margin: Lead, in logits, that the search aims at before it checks a candidate.
        step: Largest change of a cell in one step, in 1/255.
        momentum: Share of the earlier gradients in each step.
        cell: Side of a cell, in 1/256 of the picture's shorter side.
        least_cells: Every region gets at least this many cells along its shorter side.
        smooth: Interpolate between cells instead of showing them as flat squares.
        max_steps: Gradient steps after which a picture is given up; 0 never searches.
        patience: Steps without progress after which a kept decision is taken as it is, and
            a lost one is looked for with shorter and longer steps.
        views: Scales at which a candidate's resized copies must keep the decision too.
        batch_size: Pictures per pass of a network.
        pool_pixels: Pixels of all pictures held at a time.
        transfer: Search for agreement of unseen models too; None does not.

    Raises:
        SettingsError: A value outside its range.

    Source:
        Dong et al., Boosting Adversarial Attacks with Momentum, CVPR 2018 (momentum).
    """

    keep: Objective = field(default_factory=Top1)
    margin: float = 2.0
    step: float = 8.0
    momentum: float = 0.7
    cell: float = 4.0
    least_cells: int = 6
    smooth: bool = True
    max_steps: int = 200
    patience: int = 12
    views: tuple[float, ...] = (0.9, 1.1)
    batch_size: int = 16
    pool_pixels: int = 48_000_000
    transfer: Transfer | None = None

    def __post_init__(self) -> None:
        positive = {
            "step": self.step,
            "cell": self.cell,
            "least_cells": self.least_cells,
            "patience": self.patience,
            "batch_size": self.batch_size,
            "pool_pixels": self.pool_pixels,
            **{f"view {scale}": scale for scale in self.views},
        }
        for name, value in positive.items():
            if not (value > 0 and math.isfinite(value)):
                raise SettingsError(f"expected a positive {name}, got {value}")
        if self.max_steps < 0:
            raise SettingsError(f"expected max_steps of at least 0, got {self.max_steps}")
        if not 0 <= self.momentum < 1:
            raise SettingsError(f"expected a momentum in [0, 1), got {self.momentum}")
        if not (self.margin >= 0 and math.isfinite(self.margin)):
            raise SettingsError(f"expected a margin of at least 0, got {self.margin}")

    @property
    def aim(self) -> float:
        """The margin that the steps aim at."""
        return self.margin if self.transfer is None else max(self.margin, self.transfer.margin)
