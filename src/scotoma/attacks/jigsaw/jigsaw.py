"""Jigsaw: patches that only changed places are put back by how their borders continue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from scotoma.attacks.jigsaw.assembly import assemble
from scotoma.attacks.jigsaw.compatibility import COSTS, SHARPNESS, below, evidence
from scotoma.attacks.jigsaw.puzzle import Puzzle, open_puzzle
from scotoma.core.errors import SettingsError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["Jigsaw", "border_evidence"]


@dataclass(frozen=True)
class Jigsaw:
    """Puts patches back together by the continuity of their borders.

    Fresh orders are solved picture by picture. One order for all pictures is solved once, on
    the evidence of all of them together.

    Args:
        cost: Of a border: ``"mgc"``, ``"prediction"`` or ``"ssd"``.
        rounds: How often in a row part of an arrangement is torn down and grown again in vain
            before it ends.

    Raises:
        SettingsError: A value out of range.

    Security:
        Holds against whatever leaves pixels on the borders of patches as they were. A patch
        that everyone knows to be flat fits anywhere: its place is a guess, and does not matter.
    """

    cost: str = "mgc"
    rounds: int = 40

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.cost not in COSTS:
            raise SettingsError(
                f"expected a cost among {', '.join(sorted(COSTS))}, got {self.cost!r}"
            )
        if self.rounds < 0:
            raise SettingsError(f"expected rounds of at least 0, got {self.rounds}")

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`."""
        puzzle = open_puzzle(release)
        return puzzle.lay(self.arrange(puzzle, generator=generator))

    def arrange(self, puzzle: Puzzle, *, generator: Generator) -> Tensor:
        """Return ``(B, rows, columns)`` int64: the release's piece at each place of the frame."""
        return puzzle.solve(
            lambda pieces: border_evidence(pieces, self.cost),
            lambda pairs: assemble(pairs, puzzle.grid, generator=generator, rounds=self.rounds),
        )


def border_evidence(pieces: Tensor, cost: str = "mgc") -> Tensor:
    """Return the evidence that pieces are neighbours.

    Args:
        pieces: ``(N, 3, M, M)`` float64 in [0, 1].
        cost: Name of one of :data:`~scotoma.attacks.jigsaw.compatibility.COSTS`.

    Returns:
        ``(2, N, N)`` float64: for ``j`` right of ``i``, and below it.
    """
    costs = torch.stack([COSTS[cost](side) for side in (pieces, below(pieces))])
    return evidence(costs, SHARPNESS[cost])
