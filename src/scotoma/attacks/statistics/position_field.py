"""The attack on maps that change with the position: brightness found as a smooth field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from scotoma.attacks.statistics.classes import map_period
from scotoma.attacks.statistics.field import find_fields
from scotoma.attacks.statistics.polarity import with_polarities
from scotoma.attacks.statistics.smoothness import independent_components
from scotoma.attacks.views import block_side, brightness_guess, plain_size, release_blocks
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["PositionField"]

_LEAST = 4


@dataclass(frozen=True)
class PositionField:
    """Find, in every position's own unknown basis, the directions that vary smoothly together.

    All positions are pooled, so it needs far fewer pictures than correlating pairs of them
    does: fewer than a block has entries.

    Args:
        count: Smooth fields to find; brightness, colours and slopes compete for them.

    Security:
        Grows with the pictures under one key: key rotation, and dimensions of noise, hold it off.

    Source:
        Ours; a multiset canonical correlation (Kettenring, Biometrika 1971) with a spatial prior.
    """

    count: int = 6

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess brightness; candidates are fields, their independent components, and negatives."""
        blocks, period = release_blocks(release), map_period(release)
        if len(blocks) < _LEAST or blocks[0, 0].numel() == 1:
            raise NotApplicableError(
                f"expected {_LEAST} pictures or more under one key, of several blocks each, "
                f"got {len(blocks)}"
            )
        fields = find_fields(blocks, period, block_side(release), count=self.count)
        seed = int(torch.randint(2**31, (), generator=generator))
        thumbnails = torch.cat([fields.double(), independent_components(fields, seed=seed)])
        both = torch.cat([with_polarities(one) for one in thumbnails])
        return brightness_guess(both, plain_size(release), block_side(release))
