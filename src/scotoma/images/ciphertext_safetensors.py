"""The safetensors container of a release: one tensor, one line of metadata, one possible form.

::

    8 bytes    length of the header, little endian
    header     JSON, padded with spaces to a multiple of 8
    numbers    little endian, rows first

Written and read here without the library, whose own header may come in any order: so the
same release is the same bytes everywhere, and not one byte can change unnoticed.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import ReleaseError
from scotoma.images.ciphertext_envelope import MARK, damaged

__all__ = ["MAX_HEADER", "is_marked", "pack", "unpack"]

MAX_HEADER = 1 << 16
"""More than any release's metadata take; what claims more is not read."""

_TENSOR = "release"
_NAMES = {"float16": "F16", "float32": "F32"}
_TYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


def pack(text: str, array: NDArray[np.generic]) -> bytes:
    """Return the file's content.

    Args:
        text: The envelope.
        array: ``(B, C, H, W)`` float32 or float16.
    """
    little = np.ascontiguousarray(array, _TYPES[_NAMES[array.dtype.name]])
    return _header(text, array.dtype.name, array.shape) + little.tobytes()


def unpack(data: bytes, name: str) -> tuple[str, NDArray[np.generic]]:
    """Return the envelope and the numbers.

    Args:
        data: The file's content.
        name: The file's name, for messages.

    Raises:
        ReleaseError: Truncated, longer than it should be, of another form, or no release.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 16 or size > len(data) - 8:
        raise ReleaseError(
            f"{name}: expected a release, as safetensors or PNG, got a truncated file or another "
            "kind of one; get an undamaged copy"
        )
    if size > MAX_HEADER:
        raise _foreign(name)
    text, shape, dtype = _parse(data[8 : 8 + size], name)
    if data[: 8 + size] != _header(text, dtype.name, shape):
        raise damaged(name, "a header of another form")
    body = memoryview(data)[8 + size :]
    expected = math.prod(shape) * dtype.itemsize
    if len(body) != expected:
        raise damaged(name, f"{len(body)} bytes of numbers instead of {expected}")
    array = np.frombuffer(body, dtype).reshape(shape)
    return text, array.astype(dtype.newbyteorder("="))


def is_marked(data: bytes) -> bool:
    """Return whether a file's first bytes claim to be a release in safetensors."""
    size = int.from_bytes(data[:8], "little")
    return size <= MAX_HEADER and f'"{MARK}"'.encode() in data[8 : 8 + size]


def _header(text: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    header = {
        "__metadata__": {MARK: text},
        _TENSOR: {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [0, size]},
    }
    line = json.dumps(header, separators=(",", ":")).encode("ascii")
    line += b" " * (-len(line) % 8)
    return len(line).to_bytes(8, "little") + line


def _parse(line: bytes, name: str) -> tuple[str, tuple[int, ...], np.dtype[Any]]:
    """Return envelope, shape and type from the header."""
    try:
        header = json.loads(line)
        text = header["__metadata__"][MARK]
        described = header[_TENSOR]
        dtype = _TYPES[described["dtype"]]
        shape = tuple(described["shape"])
    except (ValueError, RecursionError) as error:
        raise damaged(name, "a header that is no JSON") from error
    except (KeyError, TypeError) as error:
        raise _foreign(name) from error
    if not isinstance(text, str) or not all(type(side) is int and side > 0 for side in shape):
        raise damaged(name, "a header of another form")
    if len(shape) != 4:
        raise damaged(name, f"{len(shape)} dimensions instead of 4")
    return text, shape, dtype


def _foreign(name: str) -> ReleaseError:
    return ReleaseError(
        f"{name}: expected a release, got a safetensors file of another kind (such as a model's "
        "weights); name a file that scotoma encrypt wrote"
    )
