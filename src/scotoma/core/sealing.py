"""Seals bytes under a passphrase: Argon2id stretches it, AES-256-GCM encrypts and authenticates.

What is sealed travels with a header that says how, in plain sight. The header is associated
data: whoever changes a character of it, or adds an entry, makes the opening fail.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import secrets
import unicodedata
from collections.abc import Mapping
from typing import Any

from scotoma.core.errors import CipherKeyError

__all__ = ["HEADER", "canonical", "check_header", "decode", "encode", "open_sealed", "seal"]

HEADER: dict[str, type] = {
    "kdf": str,
    "memory_kib": int,
    "passes": int,
    "lanes": int,
    "salt": str,
    "cipher": str,
    "nonce": str,
}
"""The entries that :func:`seal` adds to a header, in order, and their types."""

# RFC 9106, Sec. 4, second recommended option.
_ARGON2ID = {"memory_kib": 65_536, "passes": 3, "lanes": 4}
# What a header may ask of us: a hostile one must not take the machine's memory or an hour.
_BOUNDS = {"memory_kib": (1_024, 1_048_576), "passes": (1, 16), "lanes": (1, 16)}
_SALT_BYTES = 16
_NONCE_BYTES = 12
_KEY_BYTES = 32


def seal(content: bytes, passphrase: str, about: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Encrypt ``content``, each time differently.

    Args:
        content: What must stay secret; its length does not.
        passphrase: Opens it again.
        about: What else is bound to the content and stays readable; JSON-able.

    Returns:
        The header (``about``, then how it was sealed), and the sealed content.

    Raises:
        CipherKeyError: Argon2id cannot run here.

    Security:
        Each guess at the passphrase costs 64 MiB and three passes. Salt and nonce are fresh
        each time, so no AES key is ever used twice.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header = {
        **about,
        "kdf": "argon2id",
        **_ARGON2ID,
        "salt": encode(secrets.token_bytes(_SALT_BYTES)),
        "cipher": "aes-256-gcm",
        "nonce": encode(secrets.token_bytes(_NONCE_BYTES)),
    }
    cipher = AESGCM(_stretch(passphrase, header))
    return header, cipher.encrypt(decode(header["nonce"]), content, canonical(header))


def open_sealed(header: Mapping[str, Any], sealed: bytes, passphrase: str) -> bytes | None:
    """Return the content, or None where the passphrase, header or content is not the one sealed.

    Args:
        header: As :func:`seal` returned it, nothing more; checked by :func:`check_header`.
        sealed: As :func:`seal` returned it.
        passphrase: As given to :func:`seal`.

    Raises:
        CipherKeyError: Argon2id cannot run here.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = AESGCM(_stretch(passphrase, header))
    with contextlib.suppress(InvalidTag):
        return cipher.decrypt(decode(header["nonce"]), sealed, canonical(header))
    return None


def check_header(header: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a header that has all entries of the right types, or None.

    Checked before any work is done or memory taken.
    """
    for name, (low, high) in _BOUNDS.items():
        if not low <= header[name] <= high:
            return f"expected {name} from {low} to {high}, got {header[name]}"
    for name, known in (("kdf", "argon2id"), ("cipher", "aes-256-gcm")):
        if header[name] != known:
            return f"expected {name} {known}, got another one"
    for name, size in (("salt", _SALT_BYTES), ("nonce", _NONCE_BYTES)):
        if len(decode(header[name])) != size:
            return f"expected {name} as {size} bytes in base64, got another length or no base64"
    return None


def _stretch(passphrase: str, header: Mapping[str, Any]) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    # Keyboards and systems spell the same letter in several ways; NFC is one of them.
    words = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    try:
        function = Argon2id(
            salt=decode(header["salt"]),
            length=_KEY_BYTES,
            iterations=header["passes"],
            lanes=header["lanes"],
            memory_cost=header["memory_kib"],
        )
        return function.derive(words)
    except UnsupportedAlgorithm:
        problem = "a build of the cryptography package without it; install its wheel from PyPI"
    except MemoryError:
        problem = f"too little memory; free {header['memory_kib'] // 1024} MiB"
    raise CipherKeyError(f"expected to run Argon2id, got {problem}")


def canonical(entries: Mapping[str, Any]) -> bytes:
    """Return the one spelling of a JSON object that is authenticated or hashed."""
    return json.dumps(entries, sort_keys=True, separators=(",", ":")).encode("ascii")


def encode(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def decode(text: str) -> bytes:
    """Return the bytes of a base64 text; those of a text that is none are empty.

    A decoder's error could show what it was decoding.
    """
    with contextlib.suppress(binascii.Error, ValueError):
        return base64.b64decode(text, validate=True)
    return b""
