"""What keyed schemes derive from a key: the maps of blocks, and their order.

Labels name all that a derivation depends on, so that no two ciphers share a part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from scotoma.core.keys import Key
    from scotoma.protections.encrypt.maps import BlockMaps, Layout
    from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = [
    "derive_block_shuffle",
    "derive_one_orthogonal",
    "derive_one_permutation",
    "derive_orthogonal_per_block",
]


def derive_one_orthogonal(key: Key, settings: EncryptSettings, layout: Layout) -> BlockMaps:
    """Return one Haar-random orthogonal matrix for all blocks.

    Security:
        The norm of a block is not hidden, and as many known blocks as a block has entries
        give the matrix. See docs/encryption.md.

    Source:
        Aso, Chuman, Kiya, A Privacy Preserving Method with a Random Orthogonal Matrix for
        ConvMixer Models, arXiv 2301.03843.
    """
    from scotoma.protections.encrypt.maps import BlockMaps

    forward = _orthogonal(key, "orthogonal", settings, layout, (1, 1))
    return BlockMaps(settings.block, forward, forward.mT)


def derive_one_permutation(key: Key, settings: EncryptSettings, layout: Layout) -> BlockMaps:
    """Return one permutation of a block's entries, channels included, for all blocks.

    Security:
        All values of a block stay in it, so its histogram and mean do.
    """
    from scotoma.protections.encrypt.maps import BlockMaps

    forward = _permutation(key, "permute", settings, layout)
    return BlockMaps(settings.block, forward, forward.mT)


def derive_orthogonal_per_block(key: Key, settings: EncryptSettings, layout: Layout) -> BlockMaps:
    """Return a Haar-random orthogonal matrix for every position within the period.

    Source:
        Lin, Imaizumi, Kiya, 2024 (an independent key per block).

    Differences from the paper:
        A period bounds the number of matrices; without one every position has its own.
    """
    from scotoma.protections.encrypt.maps import BlockMaps

    period = settings.period or (layout.rows, layout.columns)
    forward = _orthogonal(key, "orthogonal-per-block", settings, layout, period)
    return BlockMaps(settings.block, forward, forward.mT)


def derive_block_shuffle(key: Key, settings: EncryptSettings, layout: Layout) -> BlockMaps:
    """Return one order of a picture's blocks, and the same inner map for all of them.

    Source:
        Kiya et al., Image and Model Transformation with Secret Key for Vision Transformer,
        arXiv 2207.05366 (blocks and position embedding moved alike).
    """
    import torch

    from scotoma.ops.keyed_maps import derive_permutation
    from scotoma.protections.encrypt.maps import BlockMaps

    label = _label("block-shuffle/order", settings, layout, (layout.rows, layout.columns))
    order = derive_permutation(key, label, layout.positions)
    if settings.inner == "orthogonal":
        forward = _orthogonal(key, "block-shuffle", settings, layout, (1, 1))
    elif settings.inner == "permute":
        forward = _permutation(key, "block-shuffle", settings, layout)
    else:
        size = layout.channels * settings.block**2
        forward = torch.eye(size, dtype=torch.float64)[None, None]
    return BlockMaps(settings.block, forward, forward.mT, order)


def _orthogonal(
    key: Key, scheme: str, settings: EncryptSettings, layout: Layout, period: tuple[int, int]
) -> Tensor:
    from scotoma.ops.keyed_maps import derive_orthogonal

    label = _label(f"{scheme}/orthogonal", settings, layout, period)
    size = layout.channels * settings.block**2
    matrices = derive_orthogonal(key, label, size, period[0] * period[1])
    return matrices.view(*period, size, size)


def _permutation(key: Key, scheme: str, settings: EncryptSettings, layout: Layout) -> Tensor:
    from scotoma.ops.keyed_maps import derive_permutation_matrix

    label = _label(f"{scheme}/permutation", settings, layout, (1, 1))
    return derive_permutation_matrix(key, label, layout.channels * settings.block**2)[None]


def _label(part: str, settings: EncryptSettings, layout: Layout, grid: tuple[int, int]) -> str:
    return f"{part}/{settings.block}/{layout.channels}/{grid[0]}x{grid[1]}"
