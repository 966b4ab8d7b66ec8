"""Fresh noise fills a space: who may repeat a picture often enough learns it and looks beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Generator, Tensor

from scotoma.attacks.views import block_side, plain_blocks, plain_size, unnormalize
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.blocks import from_blocks
from scotoma.ops.natural_blocks import block_transform, natural_deviations

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NoiseSpace"]

_BATCH = 64
_GREY, _STEP = 0.5, 0.5
_SPARE = 8
_CUT = 1e-6


@dataclass(frozen=True)
class NoiseSpace:
    """Have one picture encrypted until its releases span the noise, then read patterns beside it.

    Differences of releases of the same picture are noise alone. Once there are as many as noise
    has dimensions, what is orthogonal to them is the picture, rotated, without noise. The
    rest of the budget asks for one pattern of one block each, the strongest in natural pictures
    first: brightness of every block, then colour, then slopes.

    Args:
        queries: Pictures that the oracle may encrypt.

    Security:
        Needs more queries than noise has dimensions, ``noise_planes * H * W``, however the noise
        is mixed with the picture; from there on every query reads one pattern of all pictures.

    Source:
        Ours.
    """

    queries: int = 2048

    needs: ClassVar[frozenset[str]] = frozenset({"protect"})

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`.

        Raises:
            NotApplicableError: The budget does not reach beyond the noise.
        """
        protect = cast("Callable[[Tensor], Release]", knowledge.protect)
        block, size = block_side(release), plain_size(release)
        grey = torch.full((1, 3, *size), _GREY)
        begin = plain_blocks(grey, release)
        noise = release.data[0].numel() - begin.numel()
        if noise < 1:
            raise NotApplicableError(
                "expected a release of more values than its pictures have, which noise fills, got "
                f"{tuple(release.data.shape[1:])}; try chosen-plaintext"
            )
        left = self.queries - noise - _SPARE
        if left < 1:
            raise NotApplicableError(
                f"expected more than {noise + _SPARE} chosen pictures, which the noise of a "
                f"release takes to be known, got a budget of {self.queries}; "
                "below it answers are noise"
            )
        repeats = _answers(protect, grey.expand(noise + _SPARE, -1, -1, -1))
        start = repeats.mean(0)
        space = torch.linalg.svd(repeats - start, full_matrices=False)[2][:noise]

        def beside(data: Tensor) -> Tensor:
            moved = data - start
            rest: Tensor = moved - (moved @ space.T) @ space
            return rest

        chosen = _patterns(block, size, left)
        steps = plain_blocks(chosen, release) - begin
        answers = beside(_answers(protect, chosen))
        read = beside(release.data.double().flatten(1)) @ torch.linalg.pinv(answers, rtol=_CUT)
        found = (read @ steps.flatten(1)).view(-1, *begin.shape[1:]) + begin
        return unnormalize(from_blocks(found, block), release)


def _answers(protect: Callable[[Tensor], Release], pictures: Tensor) -> Tensor:
    """Return ``(N, E)`` releases, float64."""
    parts = [protect(part).data.double().flatten(1) for part in torch.split(pictures, _BATCH)]
    return torch.cat(parts)


def _patterns(block: int, size: tuple[int, int], count: int) -> Tensor:
    """Return ``(count, 3, H, W)`` pictures, grey but for one cosine of one block each."""
    rows, columns = (-(-side // block) for side in size)
    cosines = block_transform(3, block)[natural_deviations(3, block).argsort(descending=True)]
    places = rows * columns
    number = torch.arange(min(count, len(cosines) * places))
    waves = cosines[number // places]
    steps = torch.zeros(len(number), 3 * block**2, places, dtype=torch.float64)
    steps[number, :, number % places] = _STEP * waves / waves.abs().amax(1, keepdim=True)
    pictures = from_blocks(_GREY + steps.view(len(number), -1, rows, columns), block)
    return pictures[..., : size[0], : size[1]].float()
