"""Principal components of encrypted blocks, and which plain pattern each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from scotoma.attacks.statistics.moments import lag_covariances, match_moments
from scotoma.attacks.statistics.natural import block_covariances, fewer_lags
from scotoma.attacks.statistics.polarity import with_polarities
from scotoma.attacks.views import block_side, release_blocks, unnormalize
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.blocks import from_blocks

__all__ = ["PCA"]


@dataclass(frozen=True)
class PCA:
    """Rotate encrypted blocks until their moments are those of natural pictures.

    A rotation keeps the eigenvalues of the blocks' covariance, and those of natural pictures
    come in a known order: brightness, slopes, colours, ... Blocks match at their borders, so
    correlations between neighbouring components tell signs and turns within pairs of like
    variance. What natural pictures' moments are is a formula; no pictures are needed.

    Args:
        count: Components that are matched, of largest variance; the others are left out.
        power: See :func:`.moments.match_moments`.

    Security:
        One map for all blocks that keeps variances apart falls to two pictures. Whitening,
        maps per position or per picture stop it.

    Source:
        Ours; joint matching of lagged covariances as in Belouchrani et al., A Blind Source
        Separation Technique Using Second-Order Statistics, IEEE Trans. Signal Processing 1997.
    """

    count: int = 32
    power: float = 0.5

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures and their negatives; see :class:`~scotoma.core.protocols.Attack`."""
        blocks, block = release_blocks(release), block_side(release)
        lags = fewer_lags(*blocks.shape[2:])
        natural = block_covariances(block, lags, release.metadata.get("std"))
        turn = match_moments(
            lag_covariances(blocks, lags), natural, count=self.count, power=self.power
        )
        plain = torch.einsum("dk,bdhw->bkhw", turn, blocks)
        thumbnails = plain.mean(1)
        if release.metadata.get("mean") is None:
            sign = float(torch.sign(thumbnails.mean()))  # no pixel is negative
        else:
            sign = 1.0 if torch.equal(with_polarities(thumbnails)[0], thumbnails) else -1.0
        return torch.stack(
            [unnormalize(from_blocks(way * plain, block), release) for way in (sign, -sign)]
        )
