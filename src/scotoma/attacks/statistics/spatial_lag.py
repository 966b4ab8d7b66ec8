"""Smooth components of encrypted blocks: what whitening does not hide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from scotoma.attacks.statistics.moments import principal_axes
from scotoma.attacks.statistics.natural import fewer_lags
from scotoma.attacks.statistics.polarity import with_polarities
from scotoma.attacks.statistics.smoothness import (
    independent_components,
    smooth_components,
    whitened,
)
from scotoma.attacks.views import block_side, brightness_guess, plain_size, release_blocks
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["ICA", "LagICA", "SpatialLag"]


@dataclass(frozen=True)
class SpatialLag:
    """Whiten the blocks, then take the directions that neighbours share most.

    Whitening, or any invertible map that all blocks share, changes nothing: brightness is
    smooth in every basis.

    Args:
        count: Components, each a candidate both ways round.

    Security:
        Falls with maps by position, with maps by picture, and with neighbours moved apart.

    Source:
        Switzer, Green, Min/Max Autocorrelation Factors for Multivariate Spatial Imagery, 1984.
    """

    count: int = 8

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess brightness, smoothest first; see :class:`~scotoma.core.protocols.Attack`."""
        return _guesses(_smooth(release, self.count), release)


@dataclass(frozen=True)
class LagICA:
    """Independent components within the smoothest directions: brightness by itself.

    Args:
        within: Smoothest directions that are taken apart.

    Security:
        As :class:`SpatialLag`.

    Source:
        Hyvärinen 1999 within Switzer, Green 1984.
    """

    within: int = 12

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess brightness; candidates in no order; see :class:`~scotoma.core.protocols.Attack`."""
        smooth = _smooth(release, self.within)
        return _guesses(independent_components(smooth, seed=_seed(generator)), release)


@dataclass(frozen=True)
class ICA:
    """Independent components of whole blocks, of which the smoothest are kept.

    Needs no neighbours to find components, only to choose among them.

    Args:
        within: Principal components that are taken apart; all there are if fewer.
        count: Of the independent components, how many are candidates.

    Security:
        Needs several times more blocks under one map than a block has entries.

    Source:
        Hyvärinen, Fast and Robust Fixed-Point Algorithms, IEEE Trans. Neural Networks 1999.
    """

    within: int = 32
    count: int = 8

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess brightness, smoothest first; see :class:`~scotoma.core.protocols.Attack`."""
        blocks = release_blocks(release)
        _check(blocks)
        centred = blocks - blocks.mean((0, 2, 3), keepdim=True)
        flat = centred.transpose(0, 1).flatten(1)
        axes = principal_axes(flat @ flat.T, self.within)[1]
        white = whitened(torch.einsum("dk,bdhw->bkhw", axes, centred))
        found = independent_components(white.transpose(0, 1), seed=_seed(generator))
        return _guesses(_smoothest(found)[: self.count], release)


def _smooth(release: Release, count: int) -> Tensor:
    blocks = release_blocks(release)
    _check(blocks)
    lags = tuple(lag for lag in fewer_lags(*blocks.shape[2:]) if lag != (0, 0))
    return smooth_components(blocks, count, lags=lags)


def _smoothest(components: Tensor) -> Tensor:
    """Return ``(K, B, h, w)`` components of unit variance in the order of their smoothness."""
    beside = (components[..., 1:] * components[..., :-1]).mean((1, 2, 3))
    below = (components[..., 1:, :] * components[..., :-1, :]).mean((1, 2, 3))
    return components[(beside + below).argsort(descending=True)]


def _guesses(components: Tensor, release: Release) -> Tensor:
    both = torch.cat([with_polarities(one) for one in components])
    return brightness_guess(both, plain_size(release), block_side(release))


def _check(blocks: Tensor) -> None:
    if min(blocks.shape[2:]) < 2:
        raise NotApplicableError(
            f"expected neighbours: 2 × 2 blocks or more, got {tuple(blocks.shape[2:])}"
        )


def _seed(generator: Generator) -> int:
    return int(torch.randint(2**31, (), generator=generator))
