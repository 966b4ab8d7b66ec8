"""Rewrite the stems of a network, so that it reads encrypted blocks and answers as before.

Two forms, both exact. A patch embedding keeps its class and gets another weight: the adapted
network has the ordinary state dict of its architecture. Any other convolution becomes a
:class:`BlockStem`. Either way the network never holds the plain picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from scotoma.core.errors import ModelError, UnsupportedModelError
from scotoma.models.graph_modules import with_convolution_modules
from scotoma.models.positions import permute_positions
from scotoma.models.stem_layer import BlockStem, BlockStemSettings
from scotoma.models.stem_weights import answer_range, block_weight, dense_weight, patch_weight
from scotoma.models.stems import Stem, copy_sharing, find_stems
from scotoma.ops.diffusion import Diffusion

__all__ = ["BlockStem", "BlockStemSettings", "adapt_stems", "valid_blocks"]


def adapt_stems(
    network: nn.Module,
    input_size: tuple[int, int, int],
    block: int,
    inverse: Tensor,
    order: Tensor | None = None,
    diffusion: Diffusion | None = None,
) -> nn.Module:
    """Return the network that answers to encrypted pictures as ``network`` does to plain ones.

    Args:
        network: Reads ``(B, C, H, W)``; not changed.
        input_size: ``(C, H, W)`` of the plain pictures.
        block: Block side ``M``, in pixels.
        inverse: ``(P_h, P_w, C*M*M, C'*M*M)`` float64: what makes a plain block of an encrypted
            one, for block ``(i, j)`` the map ``[i % P_h, j % P_w]``.
        order: ``(N,)`` int64: place ``n`` of the release holds the block of place ``order[n]``;
            maps go by the place in the release. None where blocks stay.
        diffusion: How the values of all blocks were spread at last; None where they were not.

    Returns:
        A network for releases ``(B, C', H', W')``, sides rounded up to multiples of ``M``. It
        shares every untouched parameter with ``network``. Patch embeddings with one map and no
        diffusion take any size that the network takes; otherwise other sizes are refused.

    Raises:
        UnsupportedModelError: The network's structure or this block side does not allow it.
        ModelError: ``inverse`` or ``order`` of the wrong shape, or not finite.

    Security:
        Who holds both networks can solve for the maps wherever the stem has at least as many
        outputs per block as pixels: an adapted network is to be kept like the key.

    Differences from the paper:
        The paper adapts one patch embedding whose patch is the block. Here blocks may be parts
        or multiples of patches, kernels may overlap blocks, and maps may change with the place.

    Example:
        >>> plain = nn.Conv2d(3, 8, 3, padding=1)
        >>> rotation = torch.linalg.qr(torch.randn(48, 48, dtype=torch.float64)).Q
        >>> adapted = adapt_stems(plain, (3, 32, 32), 4, rotation.T[None, None])
        >>> images = torch.randn(1, 3, 32, 32)
        >>> blocks = torch.nn.functional.pixel_unshuffle(images, 4)
        >>> mixed = torch.einsum("oi,bihw->bohw", rotation.float(), blocks)
        >>> release = torch.nn.functional.pixel_shuffle(mixed, 4)
        >>> torch.allclose(adapted(release), plain(images), atol=1e-5)
        True
    """
    _check_maps(inverse, input_size[0], block)
    if any(isinstance(part, fx.GraphModule) for part in network.modules()):
        network = with_convolution_modules(copy_sharing(network))
    if order is not None:
        network = permute_positions(network, input_size, block, order)
    stems = find_stems(network, input_size)
    _check_block(stems, block)
    release_size = _release_size(input_size, block, inverse)
    if release_size[1:] != input_size[1:]:
        stems = _with_margins_at(stems, network, (input_size[0], *release_size[1:]))
    replacements = []
    for stem in stems:
        module = network.get_submodule(stem.module)
        adapted = _adapt(stem, module, input_size, block, inverse, diffusion)
        replacements.append((module, adapted))
    whole = copy_sharing(network, replacements)
    _check_forgotten(whole, [module for module, _ in replacements], inverse)
    return whole


def valid_blocks(stems: Sequence[Stem], *, limit: int = 64) -> list[int]:
    """Return the block sides up to ``limit`` that all the stems can read."""
    return [
        block
        for block in range(1, limit + 1)
        if all(_is_multiple(stem, block) or _is_part(stem, block) for stem in stems)
    ]


def _is_multiple(stem: Stem, block: int) -> bool:
    return all(block % stride == 0 for stride in stem.stride) and stem.operation != "linear"


def _is_part(stem: Stem, block: int) -> bool:
    whole = all(side % block == 0 for side in stem.kernel)
    return stem.is_own_weight and stem.is_patch and whole


def _check_block(stems: Sequence[Stem], block: int) -> None:
    for stem in stems:
        if not (_is_multiple(stem, block) or _is_part(stem, block)):
            rows, columns = stem.stride
            # Blocks of one pixel would be read too, but everyone sees such a picture.
            fitting = [side for side in valid_blocks(stems) if side > 1]
            raise UnsupportedModelError(
                f"the stem {stem.module!r} steps by {rows} x {columns} pixels and cannot read "
                f"blocks of {block}; use a block side of "
                f"{', '.join(map(str, fitting)) or 'more than 64'}"
            )


def _check_maps(inverse: Tensor, channels: int, block: int) -> None:
    size = channels * block * block
    if inverse.ndim != 4 or inverse.shape[2] != size or inverse.shape[3] % (block * block):
        raise ModelError(
            f"expected inverse maps (P_h, P_w, {size}, C' * {block * block}) for {channels} "
            f"channels and blocks of {block}, got {tuple(inverse.shape)}"
        )
    if inverse.shape[3] < size:
        raise ModelError(f"expected at least {size} encrypted values, got {inverse.shape[3]}")
    if not bool(torch.isfinite(inverse).all()):
        raise ModelError("expected finite inverse maps; derive them again")


def _release_size(
    input_size: tuple[int, int, int], block: int, inverse: Tensor
) -> tuple[int, int, int]:
    _, height, width = input_size
    channels = inverse.shape[3] // block**2
    return channels, math.ceil(height / block) * block, math.ceil(width / block) * block


def _with_margins_at(
    stems: Sequence[Stem], network: nn.Module, size: tuple[int, int, int]
) -> tuple[Stem, ...]:
    """Return the stems with the margins that the network puts around a picture of this size."""
    if not any(any(stem.margin) for stem in stems):
        return tuple(stems)
    there = {stem.module: stem.margin for stem in find_stems(network, size)}
    return tuple(replace(stem, margin=there[stem.module]) for stem in stems)


def _check_forgotten(adapted: nn.Module, plain: Sequence[nn.Module], inverse: Tensor) -> None:
    """Raise where the adapted network still has weights of a plain stem.

    They and the adapted ones together give the maps away, to whoever has nothing but this network.
    """
    if torch.equal(inverse, torch.eye(*inverse.shape[2:]).to(inverse).expand_as(inverse)):
        return  # blocks change places only, and so the stem may stay as it was
    secret = [value for stem in plain for value in stem.parameters() if value.ndim > 1]
    kept = {**dict(adapted.named_parameters()), **dict(adapted.named_buffers())}
    for name, value in kept.items():
        same = [w for w in secret if w.shape == value.shape and w.device == value.device]
        if any(torch.equal(value, weight) for weight in same):
            raise UnsupportedModelError(
                f"expected a network that has its first layer's weights once, got a plain copy as "
                f"{name!r}, by which anyone could solve for the cipher; remove it"
            )


def _adapt(
    stem: Stem,
    module: nn.Module,
    input_size: tuple[int, int, int],
    block: int,
    inverse: Tensor,
    diffusion: Diffusion | None,
) -> nn.Module:
    release_size = _release_size(input_size, block, inverse)
    fits = stem.output_size(*release_size[1:]) == stem.output_size(*input_size[1:])
    same = inverse.shape[:2] == (1, 1) and inverse.shape[2] == inverse.shape[3]
    if diffusion is None and same and fits and _is_part(stem, block):
        return _adapt_patches(stem, module, block, inverse[0, 0])
    if not _is_multiple(stem, block):
        raise UnsupportedModelError(
            f"the stem {stem.module!r} reads patches of {stem.kernel[0]} x {stem.kernel[1]}; "
            f"blocks of {block} fit it only with one map for all places, no extra planes, nothing "
            f"spread and a picture of whole patches, got {tuple(inverse.shape)} maps for "
            f"{input_size}; take blocks of a multiple of the patch"
        )
    return _adapt_overlapping(stem, module, input_size, block, inverse, diffusion)


def _adapt_patches(stem: Stem, module: nn.Module, block: int, inverse: Tensor) -> nn.Module:
    adapted = copy_sharing(module)
    weight = patch_weight(_exact(stem.weight), inverse.cpu().double(), block)
    if stem.places is not None:  # a matrix product: one column per pixel, in its own order
        columns = torch.empty_like(weight.flatten(1))
        columns[:, stem.places] = weight.flatten(1)
        weight = columns
    adapted.weight = _parameter(weight, stem, module)
    return adapted


def _adapt_overlapping(
    stem: Stem,
    module: nn.Module,
    input_size: tuple[int, int, int],
    block: int,
    inverse: Tensor,
    diffusion: Diffusion | None,
) -> BlockStem:
    settings = _settings(stem, input_size, block, inverse, diffusion)
    maps = inverse.cpu().double()
    weight = block_weight(
        dense_weight(_exact(stem.weight), stem.groups),
        maps[0, 0],
        block,
        stem.stride,
        (stem.padding[0], stem.padding[2]),
        stem.dilation,
        settings.ranges,
    )
    adapted = BlockStem(settings).to(stem.weight.device, stem.weight.dtype)
    adapted.weight = _parameter(weight.permute(0, 2, 3, 1).contiguous(), stem, module)
    if stem.bias is not None:
        owned = getattr(module, "bias", None)
        shared = isinstance(owned, nn.Parameter) and torch.equal(owned, stem.bias)
        adapted.bias = owned if shared else nn.Parameter(stem.bias.clone())
    if adapted.places is not None and stem.places is not None:
        adapted.places.copy_(stem.places)
    if adapted.alignment is not None:
        # Every block first goes over to the map of block (0, 0): never to plain pixels.
        common = torch.linalg.pinv(maps[0, 0])
        adapted.alignment.copy_((common @ maps).flatten(0, 1))
    if diffusion is not None and adapted.orders is not None and adapted.matrices is not None:
        adapted.orders.copy_(diffusion.inverse_orders)
        adapted.matrices.copy_(diffusion.matrices)
    adapted.train(module.training)
    return adapted


def _settings(
    stem: Stem,
    input_size: tuple[int, int, int],
    block: int,
    inverse: Tensor,
    diffusion: Diffusion | None,
) -> BlockStemSettings:
    channels, height, width = _release_size(input_size, block, inverse)
    output = stem.output_size(*input_size[1:])
    if min(output) < 1:
        raise UnsupportedModelError(f"the stem {stem.module!r} has no output for {input_size}")
    ranges = []
    for axis, side in enumerate((height, width)):
        first, last = answer_range(
            block, stem.kernel[axis], stem.stride[axis], stem.padding[2 * axis], stem.dilation[axis]
        )
        # Outputs that no pixel reaches are there too: wide padding makes some.
        blocks, share = side // block, block // stem.stride[axis]
        ranges.append((min(first, 0), max(last, output[axis] - 1 - (blocks - 1) * share)))
    return BlockStemSettings(
        block=block,
        release_size=(channels, height, width),
        features=stem.weight.shape[0],
        output=output,
        share=(block // stem.stride[0], block // stem.stride[1]),
        ranges=(ranges[0], ranges[1]),
        margin=stem.margin,
        cell=stem.cell,
        period=(inverse.shape[0], inverse.shape[1]),
        has_bias=stem.bias is not None,
        rounds=0 if diffusion is None else len(diffusion.orders),
        group=0 if diffusion is None else diffusion.matrices.shape[-1],
    )


def _exact(weight: Tensor) -> Tensor:
    return weight.detach().cpu().double()


def _parameter(weight: Tensor, stem: Stem, module: nn.Module) -> nn.Parameter:
    trained = any(parameter.requires_grad for parameter in module.parameters())
    return nn.Parameter(weight.to(stem.weight.device, stem.weight.dtype), requires_grad=trained)
