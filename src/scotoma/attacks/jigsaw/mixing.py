"""Mixed patches: what is there to see at once, and what the statistics of pictures add.

A released patch is the mean of the parts of a patch, one upon the other. Which part a detail
belongs to is not in it; but smooth pictures are more likely, so neighbours tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scotoma.attacks.views import block_side, enlarged, normalize, plain_size, unnormalize
from scotoma.core.errors import NotApplicableError, SettingsError
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.blocks import from_blocks, pad_to_blocks, to_blocks

__all__ = ["FittedUnmix", "PatchMeans", "Unmix", "mixed_patch"]

_KEPT_SHARE = 0.2


def mixed_patch(release: Release) -> tuple[int, int]:
    """Return the side of a patch in the picture, and of its mean in the release, in pixels.

    Raises:
        NotApplicableError: Nothing was mixed, or the release is not as large as it says.
    """
    if release.metadata.get("scheme") != "mix":
        raise NotApplicableError(
            f"expected a release of scheme 'mix', got {release.metadata.get('scheme')!r}"
        )
    block, (height, _) = block_side(release), plain_size(release)
    whole = -(-height // block)
    mixed = release.data.shape[2] // whole
    if mixed * whole != release.data.shape[2] or not 0 < mixed <= block:
        raise NotApplicableError(
            f"expected a release of {whole} patches down, got {release.data.shape[2]} pixels"
        )
    return block, mixed


@dataclass(frozen=True)
class PatchMeans:
    """The mean of each patch, which mixing keeps: a thumbnail, enlarged."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`."""
        return unnormalize(_smooth(release), release)


@dataclass(frozen=True)
class Unmix:
    """The best linear guess of a patch from its mean and those around it (Wiener filter).

    What is guessed is the difference from the thumbnail enlarged, so that the least that it
    can learn is nothing.

    Args:
        detail: Side of what is looked at of each neighbour, in averaged squares.
        ridges: Added to the covariance, as shares of its mean variance; auxiliary pictures
            kept aside choose among them.
        most_patches: Patches learned from.

    Raises:
        SettingsError: A value out of range.

    Source:
        This project; Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time
        Series, 1949.
    """

    detail: int = 4
    ridges: tuple[float, ...] = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    most_patches: int = 2**15

    needs: ClassVar[frozenset[str]] = frozenset({"auxiliary", "simulate"})

    def __post_init__(self) -> None:
        if not (self.detail >= 1 and self.most_patches >= 1):
            raise SettingsError(
                "expected detail and most_patches of at least 1, got "
                f"{self.detail} and {self.most_patches}"
            )
        if not (self.ridges and all(ridge > 0 for ridge in self.ridges)):
            raise SettingsError(f"expected ridges above 0, got {self.ridges}")

    def fit(
        self,
        knowledge: Knowledge,
        *,
        generator: Generator,
        checkpoint: Path | None = None,  # noqa: ARG002
        on_step: Callable[[int, int], None] | None = None,
    ) -> FittedUnmix:
        """Solve for the filter; see :class:`~scotoma.core.protocols.TrainableAttack`.

        It is solved in one go, so no checkpoint is written.

        Raises:
            NotGrantedError: No simulation or auxiliary pictures.
            NotApplicableError: Nothing was mixed.
        """
        pictures, simulate = knowledge.auxiliary, knowledge.simulate
        if pictures is None or simulate is None:  # reading them raised already
            raise NotApplicableError("expected auxiliary pictures and a simulation, got none")
        release = simulate(pictures[:1], generator)
        block, mixed = mixed_patch(release)
        patches = (release.data.shape[2] // mixed) * (release.data.shape[3] // mixed)
        count = min(len(pictures), -(-self.most_patches // patches))
        order = torch.randperm(len(pictures), generator=generator)[:count]
        if count < 2:
            raise NotApplicableError(
                f"expected at least 2 auxiliary pictures, to learn from one, got {count}"
            )

        # Some pictures choose the ridge; all of them decide the filter.
        sums = [_Sums(), _Sums()]
        aside = max(1, round(_KEPT_SHARE * count))
        for step, place in enumerate(order.tolist()):
            picture = pictures[place : place + 1]
            one = simulate(picture, generator)
            plain = pad_to_blocks(normalize(picture.double(), release), block)
            wanted = to_blocks(plain - _smooth(one), block)[0].flatten(1).T
            sums[step < aside].add(_context(one, self.detail), wanted)
            if on_step:
                on_step(step + 1, count)
        kept = sums[1]
        ridge = min(self.ridges, key=lambda ridge: kept.error(sums[0].solve(ridge)))
        return FittedUnmix((sums[0] + kept).solve(ridge), block, mixed, self.detail)


class _Sums:
    """Second moments of what is seen and what is wanted."""

    def __init__(self, square: Tensor | None = None, cross: Tensor | None = None) -> None:
        self.square = torch.zeros(()) if square is None else square
        self.cross = torch.zeros(()) if cross is None else cross

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(self.square + other.square, self.cross + other.cross)

    def add(self, seen: Tensor, wanted: Tensor) -> None:
        self.square, self.cross = self.square + seen.T @ seen, self.cross + seen.T @ wanted

    def solve(self, ridge: float) -> Tensor:
        loaded = self.square.clone()
        loaded.diagonal().add_(ridge * float(loaded.diagonal().mean()))
        weights: Tensor = torch.linalg.solve(loaded, self.cross)
        return weights

    def error(self, weights: Tensor) -> float:
        """Return the sum of squared errors of a filter, less what no filter changes."""
        return float((weights * (self.square @ weights - 2 * self.cross)).sum())


@dataclass(frozen=True, eq=False)
class FittedUnmix:
    """The filter, as an attack that needs nothing but the release.

    Args:
        weights: ``(D, 3*M*M)`` float64, from what is seen around a patch to the patch.
        block: Side of a patch ``M``.
        mixed: Side of its mean.
        detail: As of :class:`Unmix`.
    """

    weights: Tensor
    block: int
    mixed: int
    detail: int

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`."""
        found = mixed_patch(release)
        if found != (self.block, self.mixed):
            raise NotApplicableError(
                f"expected patches of {self.block} pixels mixed to {self.mixed}, got {found}"
            )
        rows, columns = (side // self.mixed for side in release.data.shape[-2:])
        blocks = (_context(release, self.detail) @ self.weights).reshape(
            len(release.data), rows, columns, -1
        )
        details = from_blocks(blocks.permute(0, 3, 1, 2), self.block)
        return unnormalize(_smooth(release) + details, release)


def _smooth(release: Release) -> Tensor:
    """Return the patches' means, enlarged to ``(B, 3, H', W')``, as the network reads them."""
    block, mixed = mixed_patch(release)
    means = F.avg_pool2d(release.data.double(), mixed)
    return enlarged(means, (means.shape[-2] * block, means.shape[-1] * block))


def _context(release: Release, detail: int) -> Tensor:
    """Return each patch's mean, what is around it in less detail, and a one: ``(B*P, D)``."""
    _, mixed = mixed_patch(release)
    data = release.data.double()
    own = to_blocks(data, mixed)
    side = min(detail, mixed)
    while mixed % side:
        side -= 1
    coarse = to_blocks(F.avg_pool2d(data, mixed // side), side)
    around = F.pad(coarse, (1, 1, 1, 1), mode="replicate")
    rows, columns = own.shape[-2:]
    near = [
        around[..., 1 + down : 1 + down + rows, 1 + across : 1 + across + columns]
        for down in (-1, 0, 1)
        for across in (-1, 0, 1)
        if down or across
    ]
    seen = torch.cat([own, *near, torch.ones_like(own[:, :1])], 1)
    return seen.permute(0, 2, 3, 1).flatten(0, 2)
