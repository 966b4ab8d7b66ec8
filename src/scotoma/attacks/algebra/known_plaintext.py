"""Known plaintext: pictures whose releases are known give the map away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Generator, Tensor

from scotoma.attacks.algebra.linear import fit_linear, fit_rotation, relative_error
from scotoma.attacks.algebra.order import match_blocks
from scotoma.attacks.statistics.classes import from_classes, map_period, to_classes
from scotoma.attacks.views import block_side, plain_blocks, release_blocks, unnormalize
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.blocks import from_blocks

__all__ = ["KnownPlaintext"]

_ROTATION = 1e-6  # of the mean square: what float32 leaves of a rotation that is one


@dataclass(frozen=True)
class KnownPlaintext:
    """Learn the linear map from releases back to pictures from known pairs.

    Tried in turn: a rotation for each class of positions, which one picture may fix; any affine
    map for each class; the same after blocks were put back in order; one affine map of whole
    pictures, which needs many pairs but no structure at all. What predicts the known pairs best
    is used.

    Security:
        Every linear scheme falls to enough pairs: as many known blocks under one map as a block
        has values, or as many pictures as a release has values. Only another key stops it.

    Source:
        Schönemann 1966 (rotation); Hoerl, Kennard, Ridge Regression, Technometrics 1970.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`."""
        pictures, made = cast("tuple[Tensor, Release]", knowledge.pairs)
        wanted, known = plain_blocks(pictures, release), release_blocks(made)
        asked, period = release_blocks(release), map_period(release)
        guess, error = _by_class(known, wanted, asked, period)
        if error > _ROTATION and known.shape[1] == wanted.shape[1]:
            order = match_blocks(known, wanted)
            moved = wanted.flatten(2)[:, :, order].view_as(wanted)
            other, missed = _by_class(known, moved, asked, period)
            if missed < error:
                back = torch.empty_like(order)
                back[order] = torch.arange(len(order))
                guess, error = other.flatten(2)[:, :, back].view_as(other), missed
        if error > _ROTATION and len(known) > 1:
            whole, missed = fit_linear(*(part.flatten(1)[None] for part in (known, wanted, asked)))
            if missed < error:
                guess = whole.view(len(asked), *wanted.shape[1:])
        return unnormalize(from_blocks(guess, block_side(release)), release)


def _by_class(
    known: Tensor, wanted: Tensor, asked: Tensor, period: tuple[int, int]
) -> tuple[Tensor, float]:
    """Return guesses with one map per class of positions, and their expected relative error."""
    shape = (len(asked), *asked.shape[2:])
    inputs, outputs, new = (to_classes(part, period) for part in (known, wanted, asked))
    if known.shape[1] == wanted.shape[1]:
        turn = fit_rotation(inputs, outputs)
        error = relative_error(inputs @ turn, outputs)
        if error < _ROTATION:
            return from_classes(new @ turn, period, shape), error
    if inputs.shape[1] < 2:
        return torch.zeros(len(asked), *wanted.shape[1:], dtype=wanted.dtype), 1.0
    guess, error = fit_linear(inputs, outputs, new)
    return from_classes(guess, period, shape), error
