"""Look-up of painted regions among auxiliary ones that were painted the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from scotoma.attacks.restoration.crops import (
    Examples,
    cut,
    fill_of,
    learn_examples,
    paste,
    read_boxes,
    reads_nothing,
)
from scotoma.core.errors import NotApplicableError, SettingsError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["Dictionary"]


@dataclass(frozen=True)
class Dictionary:
    """For each patch of a painted region: the originals of those painted most alike.

    The painted patch is written as a weighted sum of its nearest auxiliary patches at the same
    place, and the sum of their originals with these weights is the guess. What the sum misses
    of the painted patch is added. Patches overlap and are averaged.

    Args:
        neighbours: How many are summed; 1 is plain look-up.
        patch: Side as a share of the region, in (0, 1]; 1 looks up whole regions.
        ridge: Evens out the weights; as a share of the patches' variance.
        side: Of regions while they are compared, in pixels.

    Raises:
        SettingsError: A value out of range.

    Source:
        Ma, Zhang, Qi, Hallucinating face by position-patch, Pattern Recognition 2010.

    Differences from the paper:
        Only the nearest patches are summed, which is ``neighbours``; patches of a region,
        whatever it shows.
    """

    neighbours: int = 150
    patch: float = 0.34
    ridge: float = 0.3
    side: int = 64

    needs: ClassVar[frozenset[str]] = frozenset({"simulate", "auxiliary"})

    def __post_init__(self) -> None:
        if not (self.neighbours >= 1 and 0 < self.patch <= 1 and self.side >= 8):
            raise SettingsError(
                "expected at least 1 neighbour, a patch in (0, 1] and a side of at least 8, got "
                f"{self.neighbours}, {self.patch}, {self.side}"
            )
        if not self.ridge > 0:
            raise SettingsError(f"expected a ridge above 0, got {self.ridge}")

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        """Guess the regions; see :class:`~scotoma.core.protocols.Attack`."""
        boxes = read_boxes(release)
        if reads_nothing(fill_of(release)):
            raise NotApplicableError(
                "expected a fill that leaves a trace of what it covers, got "
                f"{fill_of(release)!r}, by which nothing can be looked up; "
                "try mean-region, or deblur for what the surroundings tell"
            )
        examples = learn_examples(knowledge, generator, self.side, 0.0)
        painted = cut(release.data.float(), boxes, self.side, 0.0)
        return paste(release.data.float(), boxes, self._restore(painted, examples), 0.0)

    def _restore(self, painted: Tensor, examples: Examples) -> Tensor:
        patch = max(4, round(self.patch * self.side))
        starts = torch.linspace(0, self.side - patch, max(1, round(2 * self.side / patch) - 1))
        places = sorted({round(start) for start in starts.tolist()})
        total, weight = torch.zeros_like(painted), torch.zeros_like(painted[:1, :1])
        window = _window(patch)
        for top in places:
            for left in places:
                part = (..., slice(top, top + patch), slice(left, left + patch))
                found = self._look_up(
                    painted[part], examples.painted[part], examples.originals[part]
                )
                total[part] += window * found
                weight[part] += window
        return total / weight

    def _look_up(self, queries: Tensor, painted: Tensor, originals: Tensor) -> Tensor:
        """Return guesses of ``(B, 3, p, p)`` queries from ``(N, 3, p, p)`` examples."""
        wanted, known = queries.flatten(1), painted.flatten(1)
        count = min(self.neighbours, len(known))
        nearest = torch.cdist(wanted, known).topk(count, largest=False).indices
        near = known[nearest]
        offsets = (near - wanted[:, None]).double()
        gram = offsets @ offsets.mT
        # Weights sum to one, so that brightness is kept.
        scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-9)[:, None, None]
        eye = torch.eye(count, dtype=torch.float64)
        ones = torch.ones(len(wanted), count, 1).double()
        weights: Tensor = torch.linalg.solve(gram + self.ridge * scale * eye, ones)
        weights = (weights / weights.sum(1, keepdim=True)).float().mT
        missed = wanted - (weights @ near)[:, 0]
        sums = (weights @ originals.flatten(1)[nearest])[:, 0]
        guesses: Tensor = (sums + missed).view(queries.shape)
        return guesses


def _window(side: int) -> Tensor:
    """Return ``(side, side)`` weights that fall towards the edge, none of them zero."""
    ramp = 1 - (torch.linspace(-1, 1, side)).abs() + 1 / side
    return ramp[:, None] * ramp[None]
