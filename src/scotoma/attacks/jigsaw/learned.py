"""Jigsaw with borders judged by a network that learned them on pictures of the same kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor

from scotoma.attacks.inversion.curve import Point, has_flattened, late_gain
from scotoma.attacks.inversion.sources import split
from scotoma.attacks.jigsaw.assembly import assemble
from scotoma.attacks.jigsaw.borders import BorderNetwork, PlaceNetwork
from scotoma.attacks.jigsaw.compatibility import below
from scotoma.attacks.jigsaw.lessons import Lessons, Look
from scotoma.attacks.jigsaw.puzzle import Puzzle, open_puzzle
from scotoma.attacks.views import block_side
from scotoma.core.errors import NotGrantedError, SettingsError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["FittedJigsaw", "JigsawLearned"]

_KEPT_PICTURES = 24


@dataclass(frozen=True)
class JigsawLearned:
    """Puts patches back together by borders that a network judges, and by usual places.

    Args:
        steps: Pictures learned from, one at a time; the budget.
        width: Channels of the network.
        learning_rate: Of Adam; it falls to zero along a quarter of a cosine.
        places: Weight of where such a piece usually is; 0 for borders alone.
        rounds: As of :class:`~scotoma.attacks.jigsaw.jigsaw.Jigsaw`.

    Raises:
        SettingsError: A value out of range.

    Source:
        Learned compatibility: Sholomon, David, Netanyahu, DNN-Buddies, ICANN 2016.

    Differences from the paper:
        The network reads all pairs of a picture, is told the hand-made costs, and learns to
        choose among all pieces, not to tell one pair from another.
    """

    steps: int = 400
    width: int = 16
    learning_rate: float = 1e-2
    places: float = 0.5
    rounds: int = 40

    needs: ClassVar[frozenset[str]] = frozenset({"auxiliary", "simulate"})

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.width >= 1 and self.rounds >= 0):
            raise SettingsError(
                "expected steps and width of at least 1 and rounds of at least 0, got "
                f"{self.steps}, {self.width}, {self.rounds}"
            )
        if not (0 < self.learning_rate < math.inf and 0 <= self.places < math.inf):
            raise SettingsError(
                "expected a learning rate above 0 and places of at least 0, got "
                f"{self.learning_rate} and {self.places}"
            )

    def fit(
        self,
        knowledge: Knowledge,
        *,
        generator: Generator,
        checkpoint: Path | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> FittedJigsaw:
        """Train; see :class:`~scotoma.core.protocols.TrainableAttack`.

        Raises:
            NotGrantedError: No simulation or auxiliary pictures.
            NotApplicableError: The release is no puzzle.
            SettingsError: The checkpoint is another run's, or the loss is not finite.
            FileError: The checkpoint cannot be written.
        """
        pictures, simulate = knowledge.auxiliary, knowledge.simulate
        if pictures is None or simulate is None:  # reading them raised already
            raise NotGrantedError("expected auxiliary pictures and a simulation, got none")
        seed = int(torch.randint(2**62, (), generator=generator))
        example = simulate(pictures[:1], generator)
        puzzle, block = open_puzzle(example), block_side(example)
        learned, kept = split(len(pictures), seed)
        run = Lessons(
            pictures,
            puzzle.grid,
            block,
            seed=seed,
            steps=self.steps,
            width=self.width,
            learning_rate=self.learning_rate,
        )
        kept = kept[:_KEPT_PICTURES]
        run.fit(learned, kept, checkpoint, on_step)
        # Usual places that do not hold for pictures kept aside would lead astray.
        places = self.places if run.judge_places(kept) < 0 else 0.0
        return FittedJigsaw(
            run.borders.eval(), run.usual.eval(), block, places, self.rounds, tuple(run.looks)
        )


@dataclass(frozen=True, eq=False)
class FittedJigsaw:
    """Trained networks as an attack that needs nothing but the release.

    Args:
        borders: Judge of borders.
        usual: Judge of places.
        block: Side of the patches learned from, in pixels.
        places: Weight of the latter.
        rounds: As of :class:`~scotoma.attacks.jigsaw.jigsaw.Jigsaw`.
        history: The curve over training budgets, from the hand-made cost on.
    """

    borders: BorderNetwork
    usual: PlaceNetwork
    block: int
    places: float
    rounds: int
    history: tuple[Look, ...]

    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures must know, in sentences."""
        points = [Point(look.step, look.loss, math.nan) for look in self.history]
        if has_flattened(points):
            return ()
        gain = late_gain(points)
        return (f"training had not flattened: the last quarter still gained {gain:.1%}",)

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`."""
        puzzle = open_puzzle(release)
        return puzzle.lay(self.arrange(puzzle, generator=generator))

    @torch.no_grad()
    def arrange(self, puzzle: Puzzle, *, generator: Generator) -> Tensor:
        """Return ``(B, rows, columns)`` int64: the release's piece at each place of the frame."""
        block = block_side(puzzle.release)
        if block != self.block or puzzle.grid != self.usual.grid:
            raise SettingsError(
                f"expected {self.usual.grid} patches of {self.block} pixels, as learned from, "
                f"got {puzzle.grid} of {block}; train on such releases"
            )

        def judge(pieces: Tensor) -> Tensor:
            pairs = [self.borders(side) for side in (pieces, below(pieces))]
            return torch.cat([torch.stack(pairs), self._usual_places(pieces)]).double()

        def lay(found: Tensor) -> Tensor:
            places = found[2:].reshape(*puzzle.grid, -1)
            return assemble(
                found[:2], puzzle.grid, generator=generator, rounds=self.rounds, places=places
            )

        return puzzle.solve(judge, lay)

    def _usual_places(self, pieces: Tensor) -> Tensor:
        """Return ``(1, N, N)``: evidence for each piece at each place, which sums like pairs."""
        count = len(pieces)
        planes: Tensor = self.places * self.usual(pieces)
        return planes.reshape(1, count, count)
