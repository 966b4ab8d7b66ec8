"""Chosen plaintext: impulses make the map readable column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Generator, Tensor

from scotoma.attacks.statistics.classes import from_classes, map_period, to_classes
from scotoma.attacks.views import (
    block_side,
    plain_blocks,
    plain_size,
    release_blocks,
    unnormalize,
)
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.blocks import from_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ChosenPlaintext"]

_BATCH = 32
_GREY, _STEP = 0.5, 0.5
_CUT = 1e-6


@dataclass(frozen=True)
class ChosenPlaintext:
    """Have pictures encrypted whose every block holds one impulse; answers are the map's columns.

    Blocks that change places are found by numbering them in brightness, bit by bit.

    Security:
        One picture per value of a block, and one per bit of the number of blocks, recover any
        fixed affine map of blocks exactly. Fresh noise and spreading over the picture stop this
        form; see :class:`~scotoma.attacks.algebra.noise_space.NoiseSpace` for another.

    Source:
        Ours; the standard chosen-plaintext attack on a Hill cipher.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"protect"})

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`.

        Raises:
            NotApplicableError: The oracle answers the same picture differently each time.
        """
        protect = cast("Callable[[Tensor], Release]", knowledge.protect)
        block, period = block_side(release), map_period(release)
        grey = torch.full((1, 3, *plain_size(release)), _GREY)
        twice = release_blocks(protect(torch.cat([grey, grey])))
        start = twice[:1]
        if not torch.allclose(twice[1:], start, rtol=_CUT, atol=_CUT):
            raise NotApplicableError(
                "expected an oracle that answers the same picture alike, got two answers: fresh "
                "noise or order drowns impulses; try noise-space"
            )
        begin = plain_blocks(grey, release)
        maps = []
        for chosen in torch.split(_impulses(block, plain_size(release)), _BATCH):
            steps = (plain_blocks(chosen, release) - begin).amax((1, 2, 3), keepdim=True)
            answers = (release_blocks(protect(chosen)) - start) / steps
            # One place of each class tells its map: (entries, d', P_h, P_w).
            maps.append(answers[:, :, : period[0], : period[1]])
        inverse = torch.linalg.pinv(torch.cat(maps).permute(2, 3, 0, 1), rtol=_CUT).flatten(0, 1)

        def decrypt(encrypted: Tensor) -> Tensor:
            shape = (len(encrypted), *encrypted.shape[2:])
            plain = to_classes(encrypted - start, period) @ inverse
            return from_classes(plain, period, shape)

        order = _read_order(protect, decrypt, block, begin)
        found = decrypt(release_blocks(release)).flatten(2)[:, :, order.argsort()]
        found = found.view(-1, *begin.shape[1:]) + begin
        return unnormalize(from_blocks(found, block), release)


def _read_order(
    protect: Callable[[Tensor], Release],
    decrypt: Callable[[Tensor], Tensor],
    block: int,
    begin: Tensor,
) -> Tensor:
    """Return which block each place of a release holds: blocks are numbered in brightness."""
    rows, columns = begin.shape[2:]
    number = torch.arange(rows * columns)
    bits = torch.stack([number >> bit & 1 for bit in range(len(number).bit_length())])
    pictures = from_blocks(bits.view(-1, 1, rows, columns).expand(-1, 3 * block**2, -1, -1), block)
    release = protect(pictures.float())
    seen = decrypt(release_blocks(release)).mean(1).flatten(1) > 0
    order: Tensor = (seen.long() << torch.arange(len(bits))[:, None]).sum(0)
    return order if torch.equal(order.sort().values, number) else number


def _impulses(block: int, size: tuple[int, int]) -> Tensor:
    """Return one picture per value of a block: grey, and in every block that one is white."""
    pictures = torch.full((3 * block**2, 3, *size), _GREY)
    for entry, picture in enumerate(pictures):
        channel, rest = divmod(entry, block**2)
        row, column = divmod(rest, block)
        picture[channel, row::block, column::block] += _STEP
    return pictures
