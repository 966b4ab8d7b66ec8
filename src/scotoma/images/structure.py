"""Walks a picture file's own structure before any decoder sees it.

Decoders are lenient where we must not be: they fill what is missing with grey or
black, skip checksums, inflate whatever a file tells them to, and take the first of
many frames. Each check here reads only lengths, checksums and headers, so a file
that declares a gigantic picture is known for what it is before memory is asked for.

Not seen here: wrong bits inside of compressed data that has no checksum, which decode to
a wrong picture of the right size (JPEG, lossy WebP, AVIF), and scans missing from a
progressive JPEG that ends as it should.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from scotoma.images.formats import unreadable
from scotoma.images.tiff import read_pages

__all__ = ["Container", "check_stream", "inspect_container"]

_MAX_INFLATED_BYTES = 16 * 2**20
"""What a compressed profile or comment may expand to; real ones stay under 4 MiB."""

_BLOCK_BYTES = 2**20
_UNDAMAGED = "get an undamaged copy"


@dataclass(frozen=True)
class Container:
    """What a file's structure says.

    Args:
        data: The bytes that a decoder needs: trailers and PNG comments are cut off.
        size: ``(width, height)`` as declared; None where only the decoder can tell.
        frames: How many pictures there are.
        icc: Colour profile, where it had to be unpacked here (PNG).
        stream: Compressed pixel data, where :func:`check_stream` has to look at it (PNG).
        stream_bytes: How much ``stream`` has to expand to.
    """

    data: bytes
    size: tuple[int, int] | None = None
    frames: int = 1
    icc: bytes | None = None
    stream: tuple[bytes, ...] = ()
    stream_bytes: int = 0


class _TruncatedError(Exception):
    """The file ends before its structure does."""


class _DamagedError(Exception):
    """The structure contradicts itself; the message continues after "got"."""


def inspect_container(data: bytes, format: str, name: str) -> Container:  # noqa: A002
    """Check a file's structure and return what it says.

    Args:
        data: The file's content.
        format: Its format, as :func:`~scotoma.images.formats.identify` told.
        name: The file's name, for messages.

    Raises:
        UnreadableImageError: The file ends early, or its structure is damaged.
    """
    whole = f"a whole {format.upper()} picture"
    try:
        return _INSPECTORS[format](data)
    except (_TruncatedError, struct.error, IndexError) as error:
        got = f"a truncated file of {len(data)} bytes"
        raise unreadable(name, whole, got, _UNDAMAGED) from error
    except _DamagedError as error:
        raise unreadable(name, whole, str(error), _UNDAMAGED) from error


def check_stream(container: Container, name: str) -> None:
    """Raise unless the pixel stream is as long as the picture: a decoder leaves the rest black.

    To be called when the declared size is known to be reasonable: it bounds the work.

    Args:
        container: What :func:`inspect_container` returned.
        name: The file's name, for messages.

    Raises:
        UnreadableImageError: The stream ends early or is damaged.
    """
    expected, total = container.stream_bytes, 0
    inflater = zlib.decompressobj()
    try:
        for pending in container.stream:
            while pending and total < expected and not inflater.eof:
                total += len(inflater.decompress(pending, _BLOCK_BYTES))
                pending = inflater.unconsumed_tail
        while total < expected and (block := inflater.decompress(b"", _BLOCK_BYTES)):
            total += len(block)
    except zlib.error as error:
        got = f"pixel data that is damaged ({error})"
        raise unreadable(name, "a whole PNG picture", got, _UNDAMAGED) from error
    if total < expected:
        got = f"pixel data that ends early ({total} of {expected} bytes)"
        raise unreadable(name, "a whole PNG picture", got, _UNDAMAGED)


# --- JPEG: segments up to the end-of-image marker -------------------------------------------

_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # neither a stuffed byte nor a restart
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_END, _SCAN = 0xD9, 0xDA
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_FILLER = bytes(16)


def _inspect_jpeg(data: bytes) -> Container:
    size, frame, position, scans = None, 0, 2, 0
    while True:
        marker, position = _next_marker(data, position)
        if marker == _END:
            break
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if length < 2 or position + length > len(data):
            raise _TruncatedError
        if marker in _FRAMES and size is None:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size, frame = (width, height), marker
        position += length
        if marker == _SCAN:
            scans += 1
            end = _SCAN_END.search(data, position)
            if end is None:
                raise _TruncatedError
            position = end.start()
    if size is None or not scans:
        raise _DamagedError("a JPEG without picture data")
    if frame in _SEQUENTIAL and scans == 1:
        # A decoder that meets the end mark early paints the rest grey and says nothing.
        # Without the mark it asks for more data, which fails as it should; the filler is
        # what a decoder reads ahead.
        return Container(data[: position - 2] + _FILLER, size)
    return Container(data[:position], size)


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """Return the next marker and the position after it; bytes between segments are skipped."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            raise _TruncatedError
        position += 1
        if data[position] not in (0x00, 0xFF):
            return data[position], position + 1


# --- PNG: chunks with their checksums -------------------------------------------------------

_KEPT_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""Adam7: first column, first row, column step, row step."""


def _inspect_png(data: bytes) -> Container:
    kept, packed, icc, frames = [data[:8]], [], None, 1
    position, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise _TruncatedError
        label = kind.decode("latin-1")
        if zlib.crc32(data[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise _DamagedError(f"a chunk {label!r} that does not match its checksum")
        if len(kept) == 1 and (kind != b"IHDR" or length != 13):
            raise _DamagedError(f"a PNG that starts with {label!r} instead of its header")
        body = data[position + 8 : end - 4]
        if kind in _KEPT_CHUNKS:
            kept.append(data[position:end])
        elif not kind[0] & 0x20:
            raise _DamagedError(f"a chunk {label!r} of unknown meaning")
        if kind == b"IDAT":
            packed.append(body)
        elif kind == b"acTL":
            frames = max(1, struct.unpack_from(">I", body)[0])
        elif kind in (b"iCCP", b"zTXt"):
            unpacked = _inflate(body[body.index(b"\0") + 2 :] if b"\0" in body else b"", label)
            icc = unpacked if kind == b"iCCP" else icc
        elif kind == b"iTXt" and re.match(rb"[^\0]*\0\x01", body):
            _inflate(body.split(b"\0", 4)[-1], label)
        position = end
    size = struct.unpack_from(">II", data, 16)
    if not packed:
        raise _DamagedError("a PNG without picture data")
    return Container(
        b"".join(kept), size, frames, icc, tuple(packed), _png_pixel_bytes(data[16:29])
    )


def _inflate(packed: bytes, label: str) -> bytes | None:
    inflater = zlib.decompressobj()
    try:
        unpacked = inflater.decompress(packed, _MAX_INFLATED_BYTES)
    except zlib.error:
        return None  # a broken profile or comment hurts nobody; the pixels are what counts
    if inflater.unconsumed_tail:
        raise _DamagedError(
            f"a decompression bomb: its chunk {label!r} expands beyond {_MAX_INFLATED_BYTES} bytes"
        )
    return unpacked


def _png_pixel_bytes(header: bytes) -> int:
    """Return how many bytes the filtered rows of a picture with this IHDR take."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colour not in _CHANNELS:
        raise _DamagedError(f"a PNG of unknown colour type {colour}")
    total = 0
    for x, y, dx, dy in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * depth * _CHANNELS[colour] // 8))
    return total


# --- WebP, AVIF, BMP, TIFF ------------------------------------------------------------------


def _inspect_webp(data: bytes) -> Container:
    end = 8 + int(struct.unpack_from("<I", data, 4)[0])
    if end > len(data):
        raise _TruncatedError
    kind, body = data[12:16], data[20:30]
    size = None
    if kind == b"VP8X":
        size = (int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1)
    elif kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        size = ((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1)
    elif kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        size = (width & 0x3FFF, height & 0x3FFF)
    return Container(data[:end], size)


def _inspect_avif(data: bytes) -> Container:
    position = 0
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
        elif length == 0:
            length = len(data) - position
        if length < 8:
            raise _DamagedError(f"a box {kind.decode('latin-1')!r} of {length} bytes")
        position += length
    if position > len(data):
        raise _TruncatedError
    return Container(data)


def _inspect_bmp(data: bytes) -> Container:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Container(data, (width, abs(height)))


def _inspect_tiff(data: bytes) -> Container:
    pages = read_pages(data)
    if not pages:
        raise _DamagedError("a TIFF without a picture")
    first = pages[0]
    if any(start + length > len(data) for start, length in first.strips):
        raise _TruncatedError
    # A reduced copy of the same picture is no second picture.
    frames = 1 + sum(not page.is_reduced for page in pages[1:])
    return Container(data, first.size, frames)


_INSPECTORS: dict[str, Callable[[bytes], Container]] = {
    "avif": _inspect_avif,
    "bmp": _inspect_bmp,
    "jpeg": _inspect_jpeg,
    "png": _inspect_png,
    "tiff": _inspect_tiff,
    "webp": _inspect_webp,
}
