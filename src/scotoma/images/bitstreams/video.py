"""HEVC and AV1 intra pictures of latents, through PyAV (FFmpeg with x265, SVT-AV1, dav1d).

Each frame is one picture of its own. Decoders of both are defined in integers, so that every
machine decodes the same latents. HEVC codes 4:0:0. SVT-AV1 has no 4:0:0: its chroma is all
128, which costs a few bytes. One thread, so that the bytes do not depend on the machine.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction
from typing import Any

import numpy as np

from scotoma.core.errors import BitstreamError, MissingExtraError
from scotoma.images.bitstreams.codecs import CodecKind, CodecSettings, Latents, tile, untile

__all__ = ["AV1", "GREY", "HEVC", "VideoPicture", "require_av"]

_SMALLEST = 64
GREY = 128
"""Chroma that is none."""
_LARGEST_BLOCK = 128
_START = b"\0\0\1"
_FIRST_NON_PICTURE = 32  # NAL unit types from here on are parameter sets and messages


class VideoPicture:
    """The tiled picture of latents as video codecs take it, and back from their decoders.

    The picture's sides are filled up to multiples of 8, and to 64 at least, with its last row
    and column.

    Args:
        decoder: As FFmpeg names it.
        layouts: FFmpeg's pixel formats that a decoded picture may have.
        shape: Of a frame, ``(C, H, W)``.

    Attributes:
        height: Of the filled picture.
        width: Of the filled picture.

    Raises:
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, decoder: str, layouts: tuple[str, ...], shape: tuple[int, int, int]) -> None:
        self._av = require_av()
        self._decoder = decoder
        self._layouts = layouts
        self._shape = shape
        self._inner = tile(np.zeros(shape, np.uint8)).shape
        self.height, self.width = (max(_SMALLEST, -(-side // 8) * 8) for side in self._inner)

    def fill(self, latents: Latents) -> Latents:
        """Return the filled picture of ``(C, H, W)`` latents."""
        picture = tile(latents)
        height, width = picture.shape
        return np.pad(picture, ((0, self.height - height), (0, self.width - width)), mode="edge")

    def decode(self, payload: bytes) -> Latents:
        """Return the latents of a payload from anywhere.

        Raises:
            BitstreamError: Not one picture of this size and layout.
        """
        context = self._av.CodecContext.create(self._decoder, "r")
        context.thread_count = 1
        # Decoders count whole blocks; a payload that says more is refused before memory is taken.
        sides = (-(-side // _LARGEST_BLOCK) * _LARGEST_BLOCK for side in (self.height, self.width))
        context.options = {"max_pixels": str(math.prod(sides))}
        frames = [
            frame for packet in (self._av.Packet(payload), None) for frame in context.decode(packet)
        ]
        if len(frames) != 1:
            raise BitstreamError(f"expected one picture, got {len(frames)}")
        (frame,) = frames
        layout = frame.format.name
        if (frame.width, frame.height) != (self.width, self.height) or layout not in self._layouts:
            raise BitstreamError(
                f"expected a picture of {self.width}×{self.height} {self._layouts[0]}, got "
                f"{frame.width}×{frame.height} {layout}"
            )
        height, width = self._inner
        return untile(_luma(frame)[:height, :width], self._shape)


class _VideoCodec(VideoPicture):
    """Codes the tiled picture with one of FFmpeg's encoders.

    Args:
        encoder: As FFmpeg names it.
        decoder: As FFmpeg names it.
        layout: FFmpeg's pixel format.
        options: Of the encoder.
        shape: Of a frame, ``(C, H, W)``.
    """

    def __init__(
        self,
        encoder: str,
        decoder: str,
        layout: str,
        options: dict[str, str],
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__(decoder, (layout,), shape)
        self._encoder = encoder
        self._layout = layout
        self._options = options

    def encode(self, latents: Latents) -> bytes:
        context = self._av.CodecContext.create(self._encoder, "w")
        context.width, context.height = self.width, self.height
        context.pix_fmt = self._layout
        context.time_base = Fraction(1, 25)
        context.framerate = 25
        context.thread_count = 1
        context.options = self._options
        frame = self._frame(self.fill(latents))
        return b"".join(bytes(part) for ask in (frame, None) for part in context.encode(ask))

    def setup_size(self, payload: bytes) -> int:
        if self._encoder == "libx265":
            return _parameter_sets_size(payload)
        return _sequence_header_size(payload)

    def _frame(self, picture: Latents) -> Any:
        frame = self._av.VideoFrame(self.width, self.height, self._layout)
        luma, *chroma = frame.planes
        rows = np.zeros((self.height, luma.line_size), np.uint8)
        rows[:, : self.width] = picture
        luma.update(rows.tobytes())
        for plane in chroma:
            plane.update(bytes([GREY]) * plane.buffer_size)
        frame.pts = 0
        return frame


def _luma(frame: Any) -> Latents:
    """Return a decoded picture's brightness; of ten bits, the nearest of eight."""
    plane = frame.planes[0]
    if not frame.format.name.endswith("10le"):
        found: Latents = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return found
    values = np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)
    nearest: Latents = np.minimum((values + 2) >> 2, 255).astype(np.uint8)
    return nearest


def require_av() -> Any:
    """Return the module.

    Raises:
        MissingExtraError: It is not installed.
    """
    # SVT-AV1 tells of its settings on standard error; it reads this when it is first opened.
    os.environ.setdefault("SVT_LOG", "1")
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("coding as HEVC or AV1", "av", "encode") from error
    av.logging.set_level(None)
    return av


def _parameter_sets_size(payload: bytes) -> int:
    """Return where the first picture's NAL unit begins in an HEVC stream of start codes."""
    place = payload.find(_START)
    while 0 <= place < len(payload) - len(_START):
        kind = payload[place + len(_START)] >> 1 & 63
        if kind < _FIRST_NON_PICTURE:
            return place
        place = payload.find(_START, place + 1)
    return 0


def _sequence_header_size(payload: bytes) -> int:
    """Return where the first OBU that is neither delimiter nor sequence header begins."""
    place = 0
    while place < len(payload):
        kind = payload[place] >> 3 & 15
        if kind not in (1, 2) or not payload[place] & 2:
            return place
        size = shift = 0
        place += 1
        while place < len(payload):
            size |= (payload[place] & 127) << shift
            shift += 7
            place += 1
            if payload[place - 1] < 128:
                break
        place += size
    return 0


def _make_hevc(settings: CodecSettings, shape: tuple[int, int, int], _: object) -> _VideoCodec:
    rate = "lossless=1" if settings.quantizer is None else f"qp={settings.quantizer}"
    details = "keyint=1:info=0:pools=none:frame-threads=1:log-level=none:bframes=0:rc-lookahead=0"
    options = {"x265-params": f"{rate}:{details}:repeat-headers=1", "preset": "medium"}
    options["tune"] = "psnr"
    return _VideoCodec("libx265", "hevc", "gray", options, shape)


def _make_av1(settings: CodecSettings, shape: tuple[int, int, int], _: object) -> _VideoCodec:
    details = "lp=1:keyint=1"
    if settings.quantizer is None:
        options = {"svtav1-params": f"lossless=1:{details}"}
    else:
        options = {"svtav1-params": details, "qp": str(settings.quantizer)}
    return _VideoCodec("libsvtav1", "libdav1d", "yuv420p", {**options, "preset": "6"}, shape)


def _has(encoder: str, decoder: str) -> bool:
    try:
        av = require_av()
    except MissingExtraError:
        return False
    return {encoder, decoder} <= set(av.codecs_available)


HEVC = CodecKind("HEVC intra, 4:0:0", (0, 51), _make_hevc, lambda: _has("libx265", "hevc"))
AV1 = CodecKind("AV1 intra", (1, 63), _make_av1, lambda: _has("libsvtav1", "libdav1d"))
