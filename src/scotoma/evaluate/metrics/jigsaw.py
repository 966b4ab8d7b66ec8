"""How well patches were put back beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scotoma.core.errors import NotApplicableError
from scotoma.ops.blocks import to_blocks

__all__ = ["neighbour_accuracy"]

_LEVELS = 255
_DIRECTIONS = ((0, 1), (1, 0))  # right, below

Pairs = Counter[tuple[int, int, int]]


def neighbour_accuracy(guesses: Tensor, originals: Tensor, context: Mapping[str, Any]) -> Tensor:
    """Return per picture the share of neighbouring patches that are so in the guess, too.

    A pair counts if a patch like the one has a patch like the other at the same side in the
    guess. What a patch of the guess stands for is the original's patch that is nearest, so
    a guess need not be exact. Where patches are the same to 8 bits, nobody can tell which is
    which: they stand for each other, and a pair of two such counts neither as right nor as
    wrong, as an empty sky is in order whatever was done to it. A pair found twice but there
    once counts once.

    Args:
        guesses: ``(B, 3, H, W)`` in [0, 1].
        originals: The same of the pictures.
        context: ``block`` is the side of a patch; what it leaves over at the border is not
            looked at.

    Returns:
        ``(B,)`` in [0, 1]; 0 where no two neighbours differ.

    Raises:
        NotApplicableError: The release has no patches, or only one.

    Source:
        Cho, Avidan, Freeman, A Probabilistic Image Jigsaw Puzzle Solver, CVPR 2010, Sec. 5
        (neighbor comparison).
    """
    block = context.get("block")
    if not block or max(originals.shape[2:]) < 2 * block or min(originals.shape[2:]) < block:
        raise NotApplicableError(
            f"neighbour_accuracy: expected pictures of at least two patches, got patches of side "
            f"{block} in {tuple(originals.shape[2:])} pixels"
        )
    height, width = (side - side % block for side in originals.shape[2:])
    cut = (images[..., :height, :width].double() for images in (guesses, originals))
    grids = zip(*(to_blocks(images, block) for images in cut), strict=True)
    found = [_accuracy(tiles, patches) for tiles, patches in grids]
    return torch.tensor(found, dtype=torch.float64)


def _accuracy(tiles: Tensor, patches: Tensor) -> float:
    grid = patches.shape[1:]
    rows = patches.flatten(1).T
    kinds = torch.unique((rows * _LEVELS).round(), dim=0, return_inverse=True)[1]
    nearest = torch.cdist(tiles.flatten(1).T, rows).argmin(1)
    there = _pairs(kinds.view(grid))
    shown = _pairs(kinds[nearest].view(grid))
    return (there & shown).total() / there.total() if there else 0.0


def _pairs(kinds: Tensor) -> Pairs:
    """Count neighbours ``(direction, one, other)`` of two kinds in a grid of patches."""
    counts: Pairs = Counter()
    rows, columns = kinds.shape
    for direction, (down, right) in enumerate(_DIRECTIONS):
        ones = kinds[: rows - down, : columns - right].flatten().tolist()
        others = kinds[down:, right:].flatten().tolist()
        pairs = zip(ones, others, strict=True)
        counts.update((direction, one, other) for one, other in pairs if one != other)
    return counts
