"""Decrypt folders of releases for who holds the key: verify, undo, write pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scotoma.core.errors import ModelError, ReleaseError
from scotoma.images.ciphertext import RELEASE_SUFFIXES, decode_release
from scotoma.images.write import Encoding, encode_picture
from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.encrypt.encryption import Encryption, open_protection
from scotoma.protections.encrypt.settings import EncryptSettings
from scotoma.run.conversion import (
    Conversion,
    ConversionSummary,
    Converted,
    convert_all,
    fingerprint_of,
)

if TYPE_CHECKING:
    from scotoma.core.keys import KeyRing

__all__ = ["Decryptor", "decrypt"]

_READING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
_MOST_KEPT = 4


def decrypt(
    releases: Sequence[Path],
    out: Path,
    ring: KeyRing,
    *,
    device: str = "cpu",
    on_progress: Callable[[Conversion, bool], None] | None = None,
) -> ConversionSummary:
    """Decrypt releases into ``out`` as PNG pictures and return the summary, also written there.

    The pictures are what the model would have read: normalization is undone and rounded to
    8 bits; resize and crop are not undone.

    Args:
        releases: Release files and folders of them.
        out: Output folder; mirrors the input tree and holds ``manifest.jsonl`` and
            ``summary.json``. Releases that an earlier run finished are skipped.
        ring: Holds the keys that made them.
        device: Where they are decrypted.
        on_progress: Called after each release with its line, and whether it was skipped.

    Raises:
        FileError: An input is missing, or ``out`` cannot be written.
    """
    decryptor = Decryptor(ring, device=device)
    return convert_all(
        releases,
        out,
        decryptor,
        facts={"key_ids": list(ring.ids())},
        suffixes=RELEASE_SUFFIXES,
        on_progress=on_progress,
    )


class Decryptor:
    """Turns a release file's content into a PNG picture's.

    Args:
        ring: Holds the keys that made the releases.
        device: Where they are decrypted.
    """

    suffix = ".png"
    private = True

    def __init__(self, ring: KeyRing, *, device: str = "cpu") -> None:
        self._ring = ring
        self._device = device
        self._protections: dict[str, Encryption] = {}

    @property
    def fingerprint(self) -> str:
        """Changes with the keys' public ids."""
        return fingerprint_of(command="decrypt", key_ids=self._ring.ids())

    def convert(self, data: bytes, name: str) -> Converted:
        """Return the picture file of a release file's content.

        Raises:
            ReleaseError: Damaged, altered, key-less, or not ours.
            CipherKeyError: The ring lacks the key; the message says which it has.
        """
        # The seal is checked before anything that the metadata ask for is computed.
        release = decode_release(data, name=name, key=self._ring)
        if len(release.data) != 1:
            raise ReleaseError(
                f"{name}: expected a release of one picture, got {len(release.data)}; "
                "open it with scotoma.images.ciphertext.read_release"
            )
        key = self._ring.find(str(release.metadata["key_id"]))
        protection = self._open(release.metadata)
        images = protection.unprotect(
            type(release)(release.data.to(self._device), release.metadata), key
        )
        pixels = _to_pixels(images[0].cpu(), _preprocessing_of(release.metadata, name))
        facts = {"scheme": release.metadata["scheme"], "key_id": key.key_id}
        return Converted(encode_picture(pixels, Encoding()), facts)

    def _open(self, metadata: Mapping[str, Any]) -> Encryption:
        """Return the protection that made a release, kept so that maps are derived once."""
        settings = EncryptSettings.from_metadata(metadata)
        name = repr(settings)
        if name not in self._protections:
            while len(self._protections) >= _MOST_KEPT:
                self._protections.pop(next(iter(self._protections)))
            self._protections[name] = open_protection(settings)
        return self._protections[name]


def _preprocessing_of(metadata: Mapping[str, Any], name: str) -> Preprocessing:
    missing = [field for field in _READING if metadata.get(field) is None]
    if missing:
        raise ReleaseError(
            f"{name}: expected metadata with {', '.join(missing)}, got none; this release says "
            "not how its picture was normalized"
        )
    try:
        return Preprocessing.from_config({field: metadata[field] for field in _READING})
    except ModelError as error:
        raise ReleaseError(f"{name}: {error}") from error


def _to_pixels(image: Tensor, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return ``(H, W, 3)`` uint8 of ``(3, H, W)`` normalized values."""
    mean = torch.tensor(preprocessing.mean)[:, None, None]
    std = torch.tensor(preprocessing.std)[:, None, None]
    levels = ((image * std + mean) * 255).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
