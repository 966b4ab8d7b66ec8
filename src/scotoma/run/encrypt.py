"""Encrypt folders of pictures: read, preprocess, protect, encode, prove, write, go on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from scotoma.core.errors import CipherKeyError, ImageError, SettingsError
from scotoma.images.ciphertext import (
    CipherEncoding,
    clipped_fraction,
    decode_release,
    encode_release,
)
from scotoma.images.read import decode_picture
from scotoma.models.preprocessing import Preprocessing
from scotoma.ops.generators import seeded_generator
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings
from scotoma.run.conversion import (
    Conversion,
    ConversionSummary,
    Converted,
    convert_all,
    fingerprint_of,
)

if TYPE_CHECKING:
    from scotoma.core.keys import Key
    from scotoma.core.protocols import Release

__all__ = ["Encryptor", "encrypt"]

_DOMAIN = b"scotoma fresh randomness 2\0"


def encrypt(
    inputs: Sequence[Path],
    out: Path,
    settings: EncryptSettings,
    preprocessing: Preprocessing,
    *,
    key: Key | None = None,
    encoding: CipherEncoding | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_progress: Callable[[Conversion, bool], None] | None = None,
) -> ConversionSummary:
    """Encrypt pictures into ``out`` and return the summary, also written there.

    Args:
        inputs: Picture files and folders.
        out: Output folder; mirrors the input tree and holds ``manifest.jsonl`` and
            ``summary.json``. Pictures that an earlier run finished are skipped.
        settings: Scheme and its options.
        preprocessing: Of the model that will read the releases.
        key: For a keyed scheme, and only for one.
        encoding: Format of the releases; float32 safetensors by default.
        seed: Of key-less schemes' fresh randomness.
        device: Where pictures are encrypted.
        on_progress: Called after each picture with its line, and whether it was skipped.

    Raises:
        FileError: An input is missing, or ``out`` cannot be written.
        CipherKeyError: No key for a keyed scheme, or one for a key-less one.
        SettingsError: Settings that cannot be used.

    Security:
        The releases may be published; the manifest names the inputs and their hashes, with
        which anyone who guesses a picture can check the guess.
    """
    encryptor = Encryptor(
        settings, preprocessing, key=key, encoding=encoding, seed=seed, device=device
    )
    facts = {
        "scheme": settings.scheme,
        "settings": settings.to_config(),
        "dataset": settings.dataset,
        "key_id": None if key is None else key.key_id,
        "format": encryptor.encoding.format,
        "seed": seed,
    }
    return convert_all(inputs, out, encryptor, facts=facts, on_progress=on_progress)


class Encryptor:
    """Turns a picture file's content into a release file's.

    Args:
        settings: Scheme and its options.
        preprocessing: Of the model that will read the releases.
        key: For a keyed scheme, and only for one.
        encoding: Format of the releases.
        seed: Of key-less schemes' fresh randomness.
        device: Where pictures are encrypted.

    Raises:
        CipherKeyError: No key for a keyed scheme, or one for a key-less one.
        SettingsError: A negative seed, or a scheme and format that do not go together.
    """

    private = False

    def __init__(
        self,
        settings: EncryptSettings,
        preprocessing: Preprocessing,
        *,
        key: Key | None = None,
        encoding: CipherEncoding | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if not 0 <= seed < 2**63:
            raise SettingsError(f"expected a seed from 0 to 2^63 - 1, got {seed}")
        self._protection = open_protection(settings, preprocessing)
        if self._protection.keyed != (key is not None):
            raise CipherKeyError(_KEY_ADVICE[self._protection.keyed].format(settings.scheme))
        self._preprocessing = preprocessing
        self._key = key
        self._seed = seed
        self._device = device
        self.encoding = encoding or CipherEncoding()
        # Finds what cannot be before the first picture is read, and derives the maps.
        grey = torch.zeros(1, *preprocessing.input_size, device=device)
        self._encode(self._protection.protect(grey, key, generator=Generator()))

    @property
    def suffix(self) -> str:
        """Of the releases, with its dot."""
        return self.encoding.suffix

    @property
    def fingerprint(self) -> str:
        """Changes with anything that could change a release; says nothing of the key but its id."""
        return fingerprint_of(
            command="encrypt",
            settings=asdict(self._protection.settings),
            preprocessing=self._preprocessing.to_config(),
            encoding=asdict(self.encoding),
            key_id=None if self._key is None else self._key.key_id,
            seed=self._seed,
        )

    def convert(self, data: bytes, name: str) -> Converted:
        """Return the release file of a picture file's content.

        Raises:
            UnreadableImageError: It is no whole picture.
            ImageError: The release would be the picture itself, or cannot be encoded.
        """
        # The stored numbers, as the model's own preprocessing would read them.
        picture = decode_picture(data, name=name, keep_profile=True)
        images = self._preprocessing.transform(picture.to_pil())[None]
        generator = _generator_of(data, self._seed, self._key)
        release = self._protection.protect(images.to(self._device), self._key, generator=generator)
        _check_hidden(release.data.cpu(), images, name)
        facts = {}
        if self.encoding.format == "png" and self.encoding.scaling is not None:
            facts["clipped"] = round(clipped_fraction(release, self.encoding.scaling), 6)
        return Converted(self._encode(release), facts)

    def _encode(self, release: Release) -> bytes:
        """Return the file's content once it has been read back."""
        data = encode_release(release, self.encoding, key=self._key)
        decode_release(data, name="the release", key=self._key)
        return data


_KEY_ADVICE = {
    True: "expected a key for scheme {!r}, got none; make one with scotoma keygen and give --key",
    False: "expected no key for scheme {!r}, which has none, got one; leave --key out, or choose "
    "a keyed scheme: scotoma list protections",
}


def _generator_of(data: bytes, seed: int, key: Key | None) -> Generator:
    """Return a picture's own randomness: the same in any order of work, never another picture's.

    It comes from the content, under a label, and from the key where there is one: neither the
    picture's name nor the hash in the manifest tells it to anyone who does not have the picture.
    All of the hash goes into it; of a seed, torch would use 32 bits, which can be tried out.
    """
    digest = hashlib.sha256(_DOMAIN + seed.to_bytes(8, "little"))
    digest.update(data)
    secret = _DOMAIN + digest.digest()
    return seeded_generator(secret if key is None else key.mac(secret))


def _check_hidden(data: Tensor, images: Tensor, name: str) -> None:
    """Refuse a release that is the picture itself, however that came about."""
    varies = bool((images != images[:, :, :1, :1]).any())
    if varies and data.shape[1] == images.shape[1]:
        height, width = images.shape[2:]
        if torch.equal(data[..., :height, :width], images):
            raise ImageError(
                f"{name}: expected a release that hides the picture, got the picture itself (all "
                "its blocks are alike, or it is one block); use smaller blocks or another scheme"
            )
