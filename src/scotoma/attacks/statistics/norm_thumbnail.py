"""The length of a block survives any rotation, and is a thumbnail of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from scotoma.attacks.views import block_side, brightness_guess, plain_size, release_blocks
from scotoma.core.protocols import Knowledge, Release

__all__ = ["NormThumbnail"]


@dataclass(frozen=True)
class NormThumbnail:
    """Root mean square of each encrypted block, drawn as a picture.

    Pictures that were not normalized have no negative values, so longer is brighter. Those
    that were have their mean near zero: then length is distance from grey, whose sign is not
    in it, and there are two guesses, bright and dark.

    Security:
        Holds against every scheme that keeps or nearly keeps lengths: rotations, permutations,
        one or one for each position. Norms that were evened out stop it.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures' brightness; see :class:`~scotoma.core.protocols.Attack`."""
        norms = release_blocks(release).square().mean(1).sqrt()
        size, block = plain_size(release), block_side(release)
        bright = brightness_guess(norms, size, block)
        if release.metadata.get("mean") is None:
            return bright
        return torch.stack([bright, brightness_guess(-norms, size, block)])
