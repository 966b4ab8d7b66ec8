"""``hardened``: whiten, drown in noise, spread over the whole picture.

::

    block b ── G ──► whitened ─┐
                               Q ──► C'·M·M values; all blocks' ── P₁ R₁ P₂ R₂ ──► release
    fresh noise n ── t ────────┘

    one block, before spreading:  Q · [G·b ; t·n],  Q orthogonal, secret
    one round:                    every value moves (P), runs of 256 are rotated (R); both secret

It is linear in the picture, so a first layer ``W`` becomes ``[W·G⁻¹ 0]·Qᵀ`` after the rounds are
undone, and answers exactly as before, whatever the noise was.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scotoma.core.keys import Key
    from scotoma.protections.encrypt.maps import BlockMaps, Layout
    from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = ["ROUNDS", "derive_hardened", "pictures_per_label"]

ROUNDS = 2
"""Rounds of spreading: with one, values of the same block still meet in few groups."""

_SHARE = 5


def derive_hardened(key: Key, settings: EncryptSettings, layout: Layout) -> BlockMaps:
    """Return the maps, the noise and the spreading that a key decides.

    Security:
        Rests on the number of a release's values: with as many releases as it has noise
        dimensions the noise can be projected out, with as many known pairs as it has values
        linear algebra undoes it. See docs/hardened.md for what is measured below that.
    """
    import torch

    from scotoma.ops.diffusion import Diffusion, group_size
    from scotoma.ops.keyed_maps import derive_orthogonal, derive_permutation
    from scotoma.ops.natural_blocks import block_transform, natural_deviations
    from scotoma.protections.encrypt.maps import BlockMaps

    channels, block, planes = layout.channels, settings.block, settings.noise_planes
    inner, outer = channels * block**2, (channels + planes) * block**2
    size = outer * layout.positions
    label = f"hardened/{block}/{channels}+{planes}/{layout.rows}x{layout.columns}"

    mixing = derive_orthogonal(key, f"{label}/mixing", outer, 1)
    # Of a release's mean square, which is 1, the picture gets one part and the noise the others.
    gain = math.sqrt(outer / inner / (1 + settings.noise**2))
    whitening, spread = block_transform(channels, block), natural_deviations(channels, block)
    forward = mixing[..., :inner] * (gain / spread) @ whitening
    inverse = whitening.T * (spread / gain) @ mixing[..., :inner].mT

    side = group_size(size)
    orders = [derive_permutation(key, f"{label}/order/{r}", size) for r in range(ROUNDS)]
    matrices = derive_orthogonal(key, f"{label}/rounds", side, ROUNDS)
    return BlockMaps(
        block,
        forward[None],
        inverse[None],
        noise=mixing[None, ..., inner:].contiguous(),
        level=1.0,
        diffusion=Diffusion(torch.stack(orders), matrices),
    )


def pictures_per_label(settings: EncryptSettings, layout: Layout) -> int:
    """Return how many pictures should share a key and label at most.

    A fifth of the release's noise dimensions; what attackers get from more and from fewer is
    measured in docs/hardened.md.
    """
    return max(1, settings.noise_planes * settings.block**2 * layout.positions // _SHARE)
