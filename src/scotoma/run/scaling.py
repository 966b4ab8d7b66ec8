"""What the bytes of an 8-bit release mean: fixed by scheme and preprocessing alone."""

from __future__ import annotations

import math

from scotoma.images.ciphertext import Scaling
from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = ["SIGMAS", "scaling_for"]

SIGMAS = 5.0
"""Half the range for mixed values, in root mean squares of uniformly drawn pixels.

Measured on 200 ImageNet pictures, ``orthogonal``, block 16: of MobileNetV2's (SqueezeNet's)
decisions 6 (12) change at 4, 1 (6) at 5 and 2 (5) at 6, where 1.6e-3, 1.6e-4 and 3e-7 of the
values are clipped: below 5 clipping decides, above it the coarser step.
"""

_IN_PLACE = ("mix", "shuffle")
_MOVED = ("permute",)


def scaling_for(settings: EncryptSettings, preprocessing: Preprocessing) -> Scaling:
    """Return the range that 256 levels are spread over.

    Where values only move, that is exactly what pixels can be: nothing is clipped, and where
    they stay in their channel every level is a pixel's level. Where a map mixes them, sums of
    many pixels are nearly normal, and the range is :data:`SIGMAS` of them to either side.

    Args:
        settings: Scheme and options.
        preprocessing: Mean and deviation that pixels were normalized by.

    Security:
        Nothing here depends on a picture, so the range tells nothing of one.
    """
    pairs = list(zip(preprocessing.mean, preprocessing.std, strict=True))
    low = [min(0.0, -mean / std) for mean, std in pairs]  # zero is what padding holds
    high = [max(0.0, (1 - mean) / std) for mean, std in pairs]
    within = settings.inner if settings.scheme == "block-shuffle" else ""
    if settings.scheme in _IN_PLACE or within == "none":
        return Scaling.between(low, high)
    if settings.scheme in _MOVED or within == "permute":
        return Scaling.between([min(low)] * 3, [max(high)] * 3)
    squares = [((0.5 - mean) ** 2 + 1 / 12) / std**2 for mean, std in pairs]
    reach = SIGMAS * math.sqrt(sum(squares) / len(squares))
    return Scaling.between([-reach] * 3, [reach] * 3)
