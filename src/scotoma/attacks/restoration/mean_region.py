"""The best guess where nothing is left: what such regions look like on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from scotoma.attacks.restoration.crops import learn_examples, paste, read_boxes
from scotoma.core.protocols import Knowledge, Release

__all__ = ["MeanRegion"]

_SIDE = 64


@dataclass(frozen=True)
class MeanRegion:
    """The mean of the auxiliary pictures' regions, in the place of each region.

    It reads nothing of what was painted: what it gets right anyone may guess. A fill that
    reads nothing cannot be attacked better than by a guess of this kind.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"simulate", "auxiliary"})

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        """Guess the regions; see :class:`~scotoma.core.protocols.Attack`."""
        boxes = read_boxes(release)
        mean = learn_examples(knowledge, generator, _SIDE, 0.0).originals.mean(0)
        crops = mean.expand(len(boxes), -1, -1, -1)
        return paste(release.data.float(), boxes, crops, 0.0)
