"""The PNG container of a release: four chunks, one possible order, nothing else.

::

    IHDR   8-bit RGB, not interlaced
    iTXt   the envelope, under the keyword "scotoma_release"
    IDAT   rows without a filter: ciphertext has no neighbours to predict from
    IEND

Every picture viewer shows it. Chunks that others may add could change what a viewer sees or
carry data that no checksum covers, so a file that has any is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import ReleaseError
from scotoma.images.ciphertext_envelope import MARK, damaged
from scotoma.images.ciphertext_safetensors import MAX_HEADER
from scotoma.images.read import MAX_PIXELS

__all__ = ["is_marked", "is_png", "pack", "unpack"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LABEL = MARK.encode("ascii") + b"\0\0\0\0\0"  # neither compressed nor in any language
_RGB = (8, 2, 0, 0, 0)
_CHANNELS = 3
_HEADER = ">IIBBBBB"


def is_png(data: bytes) -> bool:
    """Return whether a file's content begins like a PNG."""
    return data.startswith(_SIGNATURE)


def is_marked(data: bytes) -> bool:
    """Return whether a file's first bytes claim to be a release as PNG."""
    start = len(_SIGNATURE) + 12 + struct.calcsize(_HEADER) + 8
    return is_png(data) and data[start : start + len(_LABEL)] == _LABEL


def pack(text: str, array: NDArray[np.generic]) -> bytes:
    """Return the file's content.

    Args:
        text: The envelope.
        array: ``(1, 3, H, W)`` uint8.
    """
    _, _, height, width = array.shape
    rows = np.zeros((height, 1 + width * _CHANNELS), np.uint8)  # each begins with filter type 0
    rows[:, 1:] = array[0].transpose(1, 2, 0).reshape(height, -1)
    return b"".join(
        [
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(_HEADER, width, height, *_RGB)),
            _chunk(b"iTXt", _LABEL + text.encode("ascii")),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)),
            _chunk(b"IEND", b""),
        ]
    )


def unpack(data: bytes, name: str) -> tuple[str, NDArray[np.generic]]:
    """Return the envelope and the bytes as ``(1, 3, H, W)``.

    Args:
        data: The file's content.
        name: The file's name, for messages.

    Raises:
        ReleaseError: Truncated, damaged, changed by other software, or no release.
    """
    if not is_marked(data):
        raise ReleaseError(
            f"{name}: expected a release, got an ordinary PNG, or one whose metadata were "
            "stripped on the way; name a file that scotoma encrypt wrote, and pass it on unchanged"
        )
    chunks = dict(_chunks(data, name))
    if list(chunks) != [b"IHDR", b"iTXt", b"IDAT", b"IEND"] or chunks[b"IEND"]:
        raise damaged(name, "other PNG chunks, as image software writes them")
    width, height = _size(chunks[b"IHDR"], name)
    text = chunks[b"iTXt"][len(_LABEL) :]
    if len(text) > MAX_HEADER:
        raise damaged(name, f"metadata of {len(text)} bytes, more than any release has")
    if not text.isascii():
        raise damaged(name, "metadata that are not ASCII")
    rows = _inflate(chunks[b"IDAT"], height * (1 + width * _CHANNELS), name)
    table = np.frombuffer(rows, np.uint8).reshape(height, -1)
    if table[:, 0].any():
        raise damaged(name, "filtered rows, as image software writes them")
    pixels = table[:, 1:].reshape(height, width, _CHANNELS).transpose(2, 0, 1)
    return text.decode("ascii"), np.ascontiguousarray(pixels[None])


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of every chunk; raise where one is torn, altered or repeated."""
    place = len(_SIGNATURE)
    seen = set()
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4].rjust(4, b"\0"))
        end = place + 12 + size
        if end > len(data):
            raise damaged(name, "a truncated file")
        kind, content = data[place + 4 : place + 8], data[place + 8 : end - 4]
        if data[place:end] != _chunk(kind, content):
            raise damaged(name, "a chunk that does not match its checksum")
        if kind in seen:
            raise damaged(name, "other PNG chunks, as image software writes them")
        seen.add(kind)
        yield kind, content
        place = end


def _size(header: bytes, name: str) -> tuple[int, int]:
    if len(header) != struct.calcsize(_HEADER):
        raise damaged(name, "a damaged header")
    width, height, *form = struct.unpack(_HEADER, header)
    if tuple(form) != _RGB or not (width > 0 and height > 0):
        raise damaged(name, "another kind of PNG than 8-bit RGB")
    if width * height > MAX_PIXELS:
        raise damaged(name, f"{width}×{height} pixels, more than any release has")
    return width, height


def _inflate(packed: bytes, size: int, name: str) -> bytes:
    """Decompress exactly ``size`` bytes, whatever more the stream may claim to hold."""
    machine = zlib.decompressobj()
    try:
        rows = machine.decompress(packed, size + 1)
    except zlib.error as error:
        raise damaged(name, "data that cannot be decompressed") from error
    if len(rows) != size or not machine.eof or machine.unused_data:
        raise damaged(name, f"another number of pixel bytes than {size}")
    return rows
