"""Lossless picture formats for latents: PNG and WebP, through Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from scotoma.core.errors import BitstreamError
from scotoma.images.bitstreams.codecs import CodecKind, CodecSettings, Latents, tile, untile

__all__ = ["PNG", "WEBP"]

_LONGEST_WEBP = 16_383
_PNG_HEAD = 33  # bytes of signature and IHDR


class _StillCodec:
    """Codes the tiled picture in one format.

    Args:
        format_: As Pillow names it.
        options: For writing.
        shape: Of a frame, ``(C, H, W)``.
    """

    def __init__(
        self, format_: str, options: dict[str, int | bool], shape: tuple[int, int, int]
    ) -> None:
        self._format = format_
        self._options = options
        self._shape = shape
        height, width = tile(np.zeros(shape, np.uint8)).shape
        self._size = (width, height)
        if format_ == "WEBP" and max(self._size) > _LONGEST_WEBP:
            raise BitstreamError(
                f"expected tiles that make a picture of at most {_LONGEST_WEBP} pixels a side for "
                f"webp, got {width}×{height}; choose another codec"
            )

    def encode(self, latents: Latents) -> bytes:
        buffer = io.BytesIO()
        image = Image.fromarray(tile(latents))
        if self._format == "WEBP":
            image = image.convert("RGB")  # WebP has no grey; its colour transform takes it back
        image.save(buffer, self._format, **self._options)
        return buffer.getvalue()

    def setup_size(self, payload: bytes) -> int:
        return min(_PNG_HEAD, len(payload)) if self._format == "PNG" else 0

    def decode(self, payload: bytes) -> Latents:
        self._check_size(payload)
        with Image.open(io.BytesIO(payload), formats=[self._format]) as image:
            if image.size != self._size:
                raise BitstreamError(f"expected {self._size} pixels, got {image.size}")
            pixels = np.asarray(image)
        if self._format == "WEBP":
            if pixels.ndim != 3 or (pixels != pixels[..., :1]).any():
                raise BitstreamError("expected a grey picture, got colours")
            pixels = pixels[..., 0]
        if pixels.ndim != 2 or pixels.dtype != np.uint8:
            raise BitstreamError(f"expected 8-bit grey, got {pixels.shape} of {pixels.dtype}")
        return untile(pixels, self._shape)

    def _check_size(self, payload: bytes) -> None:
        """Refuse a payload that says another size before anything of that size is made."""
        if self._format == "PNG":
            found = tuple(int.from_bytes(payload[at : at + 4], "big") for at in (16, 20))
        else:
            # A simple lossless file: RIFF header, then one VP8L chunk.
            if payload[12:16] != b"VP8L" or payload[20:21] != b"\x2f":
                raise BitstreamError("expected one lossless WebP picture, got another kind")
            bits = int.from_bytes(payload[21:25], "little")
            found = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        if found != self._size:
            raise BitstreamError(f"expected {self._size} pixels, got {found}")


def _make_png(_: CodecSettings, shape: tuple[int, int, int], __: object) -> _StillCodec:
    return _StillCodec("PNG", {"compress_level": 9}, shape)


def _make_webp(_: CodecSettings, shape: tuple[int, int, int], __: object) -> _StillCodec:
    return _StillCodec("WEBP", {"lossless": True, "quality": 70, "method": 4}, shape)


def _has_webp() -> bool:
    from PIL import features

    return bool(features.check("webp"))


PNG = CodecKind("a PNG picture", None, _make_png, lambda: True)
WEBP = CodecKind("a lossless WebP picture", None, _make_webp, _has_webp)
