"""How one frame of latents becomes bytes: what every codec does, and which there are.

Latents are ``(C, H, W)`` bytes. Picture and video codecs code them as one grey picture of
tiles, a channel each (:func:`tile`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import BitstreamError, SettingsError
from scotoma.core.registry import Registry

__all__ = [
    "MAX_VALUES",
    "CodecKind",
    "CodecSettings",
    "LatentCodec",
    "check_latents",
    "check_shape",
    "codecs",
    "tile",
    "untile",
]

MAX_VALUES = 1 << 23
"""More values than one frame of any camera's latents has."""

_LONGEST_SIDE = 1 << 14

Latents = NDArray[np.uint8]


@dataclass(frozen=True)
class CodecSettings:
    """How latents are coded.

    Args:
        name: A codec; ``scotoma list codecs`` names those that work here.
        quantizer: Loses precision: the codec's own scale, greater is coarser; None is
            lossless, so that the server computes on just what the camera quantized.

    Raises:
        UnknownNameError: No such codec; the message suggests the nearest.
        SettingsError: A quantizer that the codec does not have.
    """

    name: str = "entropy"
    quantizer: int | None = None

    def __post_init__(self) -> None:
        kind = codecs.get(self.name)
        if self.quantizer is None:
            if kind.has_lossless:
                return
            raise SettingsError(
                f"expected a quantizer for codec {self.name!r}, which is never lossless, got none"
            )
        lowest, highest = kind.quantizers or (1, 0)
        is_whole = isinstance(self.quantizer, int) and not isinstance(self.quantizer, bool)
        if not (is_whole and lowest <= self.quantizer <= highest):
            known = f"from {lowest} to {highest}" if kind.quantizers else "of None (lossless only)"
            raise SettingsError(
                f"expected a quantizer {known} for codec {self.name!r}, got {self.quantizer!r}"
            )


class LatentCodec(Protocol):
    """Codes frames of one shape, each on its own: same input, same bytes."""

    def encode(self, latents: Latents) -> bytes:
        """Return the payload of ``(C, H, W)`` latents."""

    def setup_size(self, payload: bytes) -> int:
        """Return how many of the first bytes are alike in all payloads of these settings."""

    def decode(self, payload: bytes) -> Latents:
        """Return the latents of a payload from anywhere.

        Raises:
            BitstreamError: It cannot be decoded, or to another size.
        """


@dataclass(frozen=True)
class CodecKind:
    """One codec.

    Args:
        summary: What it is, in a few words.
        quantizers: Least and greatest quantizer; None where it is lossless only.
        make: Opens it for frames of a shape; raises MissingExtraError where it cannot work here.
        is_here: Whether it works here, cheaply told.
        has_lossless: Whether it can also be lossless.
    """

    summary: str
    quantizers: tuple[int, int] | None
    make: Callable[[CodecSettings, tuple[int, int, int], Any], LatentCodec]
    is_here: Callable[[], bool]
    has_lossless: bool = True


codecs: Registry[CodecKind] = Registry("codec")
codecs.defer("entropy", "scotoma.images.bitstreams.entropy:ENTROPY")
codecs.defer("png", "scotoma.images.bitstreams.still:PNG")
codecs.defer("webp", "scotoma.images.bitstreams.still:WEBP")
codecs.defer("hevc", "scotoma.images.bitstreams.video:HEVC")
codecs.defer("av1", "scotoma.images.bitstreams.video:AV1")
codecs.defer("vvc", "scotoma.images.bitstreams.vvc:VVC")


def check_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape that latents can have.

    Raises:
        BitstreamError: It is none.
    """
    if (
        len(shape) != 3
        or not all(type(side) is int and 1 <= side <= _LONGEST_SIDE for side in shape)
        or math.prod(shape) > MAX_VALUES
    ):
        raise BitstreamError(
            f"expected latents (C, H, W) of sides from 1 to {_LONGEST_SIDE} and at most "
            f"{MAX_VALUES} values, got {shape}"
        )
    channels, height, width = shape
    return channels, height, width


def check_latents(latents: Latents, shape: tuple[int, int, int]) -> Latents:
    """Return latents of a shape, contiguous.

    Raises:
        BitstreamError: Another shape or type.
    """
    if latents.dtype != np.uint8 or latents.shape != shape:
        raise BitstreamError(
            f"expected latents {shape} of uint8, got {latents.shape} of {latents.dtype}"
        )
    return np.ascontiguousarray(latents)


def tile(latents: Latents) -> Latents:
    """Return ``(C, H, W)`` latents as one picture, a tile per channel, row by row.

    The picture is as near to a square as whole rows of tiles allow; places without a channel
    repeat the last one, which costs a codec least.
    """
    channels, height, width = latents.shape
    down, across = _grid(latents.shape)
    filled = np.concatenate([latents, np.repeat(latents[-1:], down * across - channels, axis=0)])
    rows = filled.reshape(down, across, height, width).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(rows.reshape(down * height, across * width))


def untile(picture: Latents, shape: tuple[int, int, int]) -> Latents:
    """Return the ``(C, H, W)`` latents that :func:`tile` laid out.

    Raises:
        BitstreamError: A picture of another size.
    """
    channels, height, width = shape
    down, across = _grid(shape)
    if picture.shape != (down * height, across * width):
        raise BitstreamError(
            f"expected a picture of {down * height}×{across * width} values, got {picture.shape}"
        )
    tiles = picture.reshape(down, height, across, width).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiles.reshape(down * across, height, width)[:channels])


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many tiles there are down and across."""
    channels, height, width = shape
    across = min(channels, max(1, math.isqrt(channels * height // width)))
    return -(-channels // across), across
