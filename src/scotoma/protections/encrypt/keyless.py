"""Schemes without a key: what anyone could undo if only they knew how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scotoma.core.errors import SettingsError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = ["mix", "shuffle"]


def shuffle(images: Tensor, settings: EncryptSettings, generator: Generator | None) -> Tensor:
    """Return each picture's patches in a random order of its own (RS).

    Args:
        images: ``(B, C, H, W)``, sides multiples of the block.
        settings: ``block`` is the patch's side.
        generator: On the CPU.

    Raises:
        SettingsError: No generator.

    Security:
        Every patch stays as it is: text, skin and the histogram of the picture remain, and
        jigsaw solvers put a few hundred patches back together.

    Source:
        Hao et al., Human-imperceptible, Machine-recognizable Images, arXiv 2306.03679.
    """
    from scotoma.ops.blocks import count_blocks, draw_orders, move_blocks

    if generator is None:
        raise SettingsError("expected a generator for a fresh order of patches, got none")
    rows, columns = count_blocks(images.shape[2], images.shape[3], settings.block)
    orders = draw_orders(len(images), rows * columns, generator).to(images.device)
    return move_blocks(images, orders, settings.block)


def mix(
    images: Tensor,
    settings: EncryptSettings,
    generator: Generator | None,  # noqa: ARG001
) -> Tensor:
    """Return each patch as the mean of its sub-patches, ``(B, C, H/m, W/m)`` (MI).

    Args:
        images: ``(B, C, H, W)``, sides multiples of the block.
        settings: ``block`` is the patch's side, ``sub_patches`` are ``m*m``.
        generator: Not read; mixing draws nothing.

    Security:
        The mean of every patch remains: a thumbnail of one pixel per patch.

    Source:
        Hao et al., Human-imperceptible, Machine-recognizable Images, arXiv 2306.03679.
    """
    from scotoma.ops.blocks import mix_patches

    return mix_patches(images, settings.block, settings.parts)
