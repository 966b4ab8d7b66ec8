"""How much of light and dark comes through: correlations of brightness.

A release may give a picture away up to scale and sign, which an error in decibels misses
and the eye does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "block_brightness_correlation",
    "correlation",
    "luma",
    "luma_correlation",
    "signed_block_brightness_correlation",
]

_LUMA = (0.299, 0.587, 0.114)
_BLOCKS_ACROSS = 14  # where a release has no blocks of its own: as 16 of 224 pixels
_LEAST_SPREAD = 1e-6  # below, a float32 picture is constant


def luma(images: Tensor) -> Tensor:
    """Return ``(B, H, W)`` float64 brightness of ``(B, 3, H, W)`` pictures (ITU-R BT.601)."""
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=images.device)
    return torch.einsum("bchw,c->bhw", images.double(), weights)


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return ``(B,)`` Pearson correlations of ``(B, ...)`` numbers; of a constant it is 0."""
    flat = [values.double().flatten(1) for values in (one, other)]
    centred = [values - values.mean(1, keepdim=True) for values in flat]
    spreads = [values.square().mean(1).sqrt() for values in centred]
    product = (centred[0] * centred[1]).mean(1)
    varies = (spreads[0] > _LEAST_SPREAD) & (spreads[1] > _LEAST_SPREAD)
    found = product / (spreads[0] * spreads[1]).where(varies, torch.ones_like(product))
    return torch.where(varies, found, 0.0).clamp(-1, 1)


def signed_block_brightness_correlation(
    guesses: Tensor, originals: Tensor, context: Mapping[str, Any]
) -> Tensor:
    """Return per picture the correlation of the block means of brightness.

    Args:
        guesses: ``(B, 3, H, W)`` in [0, 1].
        originals: The same of the pictures.
        context: ``block`` is the blocks' side; without one the shorter side holds 14 blocks.
            Blocks that the border cuts count like whole ones.

    Returns:
        ``(B,)`` in [-1, 1]; 0 where either has one brightness all over.
    """
    block = context.get("block") or max(1, min(originals.shape[2:]) // _BLOCKS_ACROSS)
    means = (
        F.avg_pool2d(luma(images)[:, None], int(block), ceil_mode=True, count_include_pad=False)
        for images in (guesses, originals)
    )
    return correlation(*means)


def block_brightness_correlation(
    guesses: Tensor, originals: Tensor, context: Mapping[str, Any]
) -> Tensor:
    """Return :func:`signed_block_brightness_correlation` without its sign.

    A negative shows what the picture shows. Chance is above 0: any two natural pictures
    correlate somewhat, so read it beside the trivial guess.
    """
    return signed_block_brightness_correlation(guesses, originals, context).abs()


def luma_correlation(guesses: Tensor, originals: Tensor, context: Mapping[str, Any]) -> Tensor:  # noqa: ARG001
    """Return per picture the correlation of the pixels' brightness, ``(B,)`` in [0, 1]."""
    return correlation(luma(guesses), luma(originals)).abs()
