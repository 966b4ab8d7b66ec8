"""Release files: what leaves the owner, as safetensors or as an 8-bit PNG.

Both hold the same two things: an *envelope*, one line of JSON with the release's public
metadata, and the ciphertext's numbers. ::

    NAME.safetensors   header: envelope     tensor "release" (B, C, H, W), float32 or float16
    NAME.png           iTXt chunk: envelope  RGB, one picture, value = offset + scale * byte

Any other reader of safetensors or PNG opens them too. A SHA-256 in the envelope finds
truncation and corruption; for keyed releases an HMAC under the key finds tampering, which
only the key's holder can check.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import (
    FileError,
    ImageError,
    ReleaseError,
    SettingsError,
    UnknownNameError,
)
from scotoma.images import ciphertext_png, ciphertext_safetensors
from scotoma.images.ciphertext_envelope import Envelope, Scaling
from scotoma.images.read import read_file
from scotoma.images.write import write_atomically

if TYPE_CHECKING:
    from scotoma.core.keys import Key, KeyRing
    from scotoma.core.protocols import Release

__all__ = [
    "RELEASE_SUFFIXES",
    "CipherEncoding",
    "Scaling",
    "clipped_fraction",
    "decode_release",
    "encode_release",
    "is_release",
    "read_release",
    "write_release",
]

RELEASE_SUFFIXES = frozenset({".safetensors", ".png"})
"""What may be a release in a folder; :func:`is_release` tells."""

_SUFFIXES = {"png": ".png", "safetensors": ".safetensors"}
_DTYPES = {"float16": np.float16, "float32": np.float32}


@dataclass(frozen=True)
class CipherEncoding:
    """How a release is written.

    Args:
        format: ``safetensors``, or ``png`` for 8 bits per value.
        dtype: ``float32`` or ``float16``; ``png`` ignores it.
        scaling: What a PNG's bytes mean; required for ``png``, ignored otherwise.

    Raises:
        UnknownNameError: No such format or type; the message suggests the nearest.
        SettingsError: ``png`` without a scaling.
    """

    format: str = "safetensors"
    dtype: str = "float32"
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        if self.format not in _SUFFIXES:
            raise UnknownNameError("release format", self.format, _SUFFIXES)
        if self.dtype not in _DTYPES:
            raise UnknownNameError("release dtype", self.dtype, _DTYPES)
        if self.format == "png" and self.scaling is None:
            raise SettingsError("expected a scaling for png, got none; say what a byte means")

    @property
    def suffix(self) -> str:
        """The file name's ending, with its dot."""
        return _SUFFIXES[self.format]


def encode_release(
    release: Release, encoding: CipherEncoding | None = None, *, key: Key | None = None
) -> bytes:
    """Encode a release as a file's content: same input, same bytes.

    Args:
        release: ``data`` of shape ``(B, C, H, W)``; for PNG ``(1, 3, H, W)``.
        encoding: Format and type; float32 safetensors by default.
        key: The key that made it, which seals it; None for key-less schemes.

    Returns:
        The file's content.

    Raises:
        ImageError: Data of another shape, not finite, or beyond float16.
        ReleaseError: The release names another key than ``key``, or a key and none came.
    """
    encoding = encoding or CipherEncoding()
    key_id = release.metadata.get("key_id")
    if key_id != (key.key_id if key is not None else None):
        raise ReleaseError(
            f"expected the key {key_id} that made the release, to seal it, "
            f"got {key.key_id if key is not None else 'none'}"
        )
    values = release.data.detach().float().cpu().numpy()
    _check_values(values)
    if encoding.format == "png" and encoding.scaling is not None:
        array = _to_bytes(values, encoding.scaling)
        envelope = Envelope.seal(release.metadata, array, key=key, scaling=encoding.scaling)
        return ciphertext_png.pack(envelope.to_json(), array)
    floats = _to_floats(values, encoding.dtype)
    envelope = Envelope.seal(release.metadata, floats, key=key)
    return ciphertext_safetensors.pack(envelope.to_json(), floats)


def decode_release(data: bytes, *, name: str, key: Key | KeyRing | None = None) -> Release:
    """Decode a release file's content.

    Args:
        data: The file's content.
        name: The file's name, for messages.
        key: The key that made it, or a ring with it, to find tampering too; None checks for
            corruption only.

    Returns:
        The release, its data float32 on the CPU.

    Raises:
        ReleaseError: Truncated, corrupt, altered, of another key, or no release at all.
        CipherKeyError: The ring lacks the key; the message says which it has.

    Security:
        Without the key anyone can write a file that passes: its SHA-256 is public. Nothing
        in the file is executed, and no more memory is taken than its content accounts for.
    """
    from torch import from_numpy

    from scotoma.core.protocols import Release

    container = ciphertext_png if ciphertext_png.is_png(data) else ciphertext_safetensors
    text, array = container.unpack(data, name)
    envelope = Envelope.from_json(text, name)
    envelope.check(array, name, key=key)
    if envelope.scaling is not None:
        values = envelope.scaling.dequantize(array)
    else:
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise ReleaseError(f"{name}: expected finite values, got others; encrypt the picture again")
    return Release(from_numpy(values), envelope.metadata)


def is_release(data: bytes) -> bool:
    """Return whether a file's content claims to be a release; it may still be damaged.

    Args:
        data: The file's content, or its first 64 KiB.
    """
    return ciphertext_png.is_marked(data) or ciphertext_safetensors.is_marked(data)


def write_release(
    path: Path, release: Release, encoding: CipherEncoding | None = None, *, key: Key | None = None
) -> None:
    """Write a release in one step: a reader sees the whole file or none.

    Args:
        path: The file; its suffix must be the encoding's.
        release: As for :func:`encode_release`.
        encoding: As for :func:`encode_release`.
        key: As for :func:`encode_release`.

    Raises:
        FileError: Another suffix, or it cannot be written.
        ImageError: Data that the encoding cannot hold.
        ReleaseError: Another key.
    """
    encoding = encoding or CipherEncoding()
    if path.suffix.lower() != encoding.suffix:
        raise FileError(f"expected a name ending in {encoding.suffix}, got {path}; rename it")
    write_atomically(path, encode_release(release, encoding, key=key))


def read_release(path: Path, *, key: Key | KeyRing | None = None) -> Release:
    """Read a release file.

    Args:
        path: The file.
        key: As for :func:`decode_release`.

    Raises:
        UnreadableImageError: It cannot be opened.
        ReleaseError: As for :func:`decode_release`.
        CipherKeyError: As for :func:`decode_release`.
    """
    return decode_release(read_file(path), name=str(path), key=key)


def clipped_fraction(release: Release, scaling: Scaling) -> float:
    """Return the fraction of values that a scaling's bytes cannot reach."""
    low, high = scaling.bounds()
    values = release.data.detach().float().cpu().numpy()
    return float(((values < low) | (values > high)).mean())


def _check_values(values: NDArray[np.float32]) -> None:
    if values.ndim != 4 or not values.size:
        raise ImageError(f"expected release data (B, C, H, W), got {values.shape}")
    if not np.isfinite(values).all():
        raise ImageError("expected finite release data, got NaN or infinity; check the input")


def _to_bytes(values: NDArray[np.float32], scaling: Scaling) -> NDArray[np.uint8]:
    if values.shape[0] != 1 or values.shape[1] != 3:
        raise ImageError(
            f"expected one picture of three channels for png, got {values.shape}; "
            "write safetensors instead"
        )
    return scaling.quantize(values)


def _to_floats(values: NDArray[np.float32], dtype: str) -> NDArray[np.floating[Any]]:
    with np.errstate(over="ignore"):  # what overflows is no longer finite, which is looked at
        floats: NDArray[np.floating[Any]] = values.astype(_DTYPES[dtype])
    if not np.isfinite(floats).all():
        raise ImageError(
            f"expected values that {dtype} can hold, got up to {np.abs(values).max():.3g}; "
            "write float32 instead"
        )
    return floats
