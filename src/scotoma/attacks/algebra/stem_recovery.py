"""Two models give the key's maps away: the public one, and the same one adapted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Generator, Tensor, nn

from scotoma.attacks.statistics.classes import from_classes, to_classes
from scotoma.attacks.statistics.spatial_lag import LagICA
from scotoma.attacks.views import block_side, release_blocks, unnormalize
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release
from scotoma.models.stem_layer import BlockStem
from scotoma.models.stem_weights import block_weight, dense_weight
from scotoma.models.stems import Stem, find_stems
from scotoma.ops.blocks import from_blocks
from scotoma.ops.diffusion import gather_values

__all__ = ["AdaptedStatistics", "StemRecovery", "recover_order", "undo_rounds"]

_CUT = 1e-5  # of the largest singular value: below it float32 weights tell nothing
_FEW = 2


@dataclass(frozen=True)
class StemRecovery:
    """Solve ``W' = W · A⁻¹`` for the inverse map, and decrypt with it.

    A stem that overlaps is a larger ``W`` of the same kind: its answer to one block. Where it
    has fewer outputs per block than values, the least map that fits is used, and what the stem
    does not see stays unknown. An order of blocks shows in the rows of the position embedding.

    Security:
        Holds against every scheme that rewrites a public model exactly. Fine-tuning the adapted
        model, or a checkpoint that is not public, stand in its way.

    Source:
        Ours; the equation is Aso, Chuman, Kiya's (arXiv 2301.03843), read backwards.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"adapted_model", "public_model"})

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`.

        Raises:
            NotApplicableError: The models do not belong together.
        """
        public = cast("nn.Module", knowledge.public_model)
        adapted = cast("nn.Module", knowledge.adapted_model)
        release = undo_rounds(release, adapted)
        block, blocks = block_side(release), release_blocks(release)
        size = release.metadata["input_size"]
        stem = find_stems(public, (size[0], size[1], size[2]))[0]
        layer = _layer(adapted, stem.module)
        if isinstance(layer, BlockStem):
            plain, hidden = _answers(stem, layer, block)
            if layer.alignment is not None:
                blocks = _aligned(blocks, layer)
        else:
            plain = _cells(stem.weight, block)
            depth, height, width = release.data.shape[1:]
            hidden = _cells(find_stems(adapted, (depth, height, width))[0].weight, block)
        if len(plain) != len(hidden):
            raise NotApplicableError(
                "expected an adapted model with the public one's first layer rewritten, got one "
                f"with {len(hidden)} answers per block against {len(plain)}"
            )
        inverse = torch.linalg.pinv(plain, rtol=_CUT) @ hidden
        found = torch.einsum("de,behw->bdhw", inverse, blocks)
        order = recover_order(public, adapted, found.shape[2] * found.shape[3])
        if order is not None:
            back = torch.empty_like(order)
            back[order] = torch.arange(len(order))
            found = found.flatten(2)[:, :, back].view_as(found)
        return unnormalize(from_blocks(found, block), release)


@dataclass(frozen=True)
class AdaptedStatistics:
    """Undo with the adapted model what it undoes itself, then look for the smoothest directions.

    A scheme that spreads values over the picture hands the way back to whoever reads its
    releases. What is left are blocks under one map, and :class:`LagICA` is run on them.

    Security:
        Holds against schemes with rounds. Of the others the adapted model tells nothing here
        that releases do not.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"adapted_model"})

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`.

        Raises:
            NotApplicableError: The model undoes no rounds.
        """
        adapted = cast("nn.Module", knowledge.adapted_model)
        gathered = undo_rounds(release, adapted)
        if gathered is release:
            raise NotApplicableError(
                "expected an adapted model that gathers what was spread, got one without "
                "rounds: it tells no more than releases do"
            )
        return LagICA().run(gathered, knowledge, generator=generator)


def undo_rounds(release: Release, adapted: nn.Module) -> Release:
    """Return the release as the adapted model's stem has it once its values are gathered.

    Args:
        release: Made for the model.
        adapted: Without rounds in its stem, the release comes back as it is.
    """
    for layer in adapted.modules():
        if isinstance(layer, BlockStem) and layer.orders is not None and layer.matrices is not None:
            orders, matrices = layer.orders.detach().cpu(), layer.matrices.detach().cpu().double()
            data = gather_values(release.data.double(), orders, matrices)
            return Release(data, release.metadata)
    return release


def recover_order(public: nn.Module, adapted: nn.Module, count: int) -> Tensor | None:
    """Return the order of blocks that two position embeddings tell, or none if they do not differ.

    Args:
        public: Has a parameter ``(..., T, D)``, rows for ``T >= count`` tokens.
        adapted: Has the same rows of it in another order.
        count: Blocks of a picture; they are the last tokens.

    Returns:
        ``(count,)`` int64: the release's block ``n`` is the picture's block ``order[n]``.
    """
    after = dict(adapted.named_parameters())
    for name, before in public.named_parameters():
        other = after.get(name)
        if other is None or before.ndim < _FEW or before.shape != other.shape:
            continue
        if before.shape[-2] < count or torch.equal(before, other):
            continue
        old, new = (
            rows.detach().reshape(-1, *rows.shape[-2:])[0, -count:].cpu().double()
            for rows in (before, other)
        )
        order = torch.cdist(new, old).argmin(1)
        if torch.equal(old[order], new) and len(set(order.tolist())) == count:
            return order
    return None


def _layer(adapted: nn.Module, name: str) -> nn.Module:
    try:
        return adapted.get_submodule(name)
    except AttributeError as error:
        raise NotApplicableError(
            f"expected an adapted model with a module {name!r} like the public one's; "
            "the two belong to different architectures"
        ) from error


def _cells(weight: Tensor, block: int) -> Tensor:
    """Return ``(D * cells, C*M*M)``: a patch embedding's answers to each block of its patch."""
    features, channels, height, width = weight.shape
    if height % block or width % block:
        raise NotApplicableError(
            f"expected a stem of whole {block}-pixel blocks, got {height} × {width} pixels"
        )
    cells = (
        weight.detach()
        .cpu()
        .double()
        .view(features, channels, height // block, block, width // block, block)
    )
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels * block**2)


def _answers(stem: Stem, layer: BlockStem, block: int) -> tuple[Tensor, Tensor]:
    """Return ``(answers, d)`` of the plain stem and ``(answers, d')`` of the adapted one."""
    size = stem.weight.shape[1] * stem.groups * block**2
    plain = block_weight(
        dense_weight(stem.weight.detach().cpu().double(), stem.groups),
        torch.eye(size, dtype=torch.float64),
        block,
        stem.stride,
        (stem.padding[0], stem.padding[2]),
        stem.dilation,
        layer.settings.ranges,
    )
    hidden = layer.weight.detach().cpu().double().permute(0, 3, 1, 2)
    return plain.flatten(1).T, hidden.flatten(1).T


def _aligned(blocks: Tensor, layer: BlockStem) -> Tensor:
    """Return blocks that all went through the map of the first position."""
    shape = (len(blocks), *blocks.shape[2:])
    maps = layer.alignment
    if maps is None:
        return blocks
    turned = to_classes(blocks, layer.settings.period) @ maps.detach().cpu().double().mT
    return from_classes(turned, layer.settings.period, shape)
