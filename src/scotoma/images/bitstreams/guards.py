"""What keeps a record as it was written: a checksum, or the seal of a key."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from scotoma.core.keys import Key

__all__ = ["CHECK_BYTES", "Checksum", "Guard", "Seal", "digest_of"]

CHECK_BYTES = 4
"""Of a checksum."""

_TAG_BYTES = 16
_NONCE_BYTES = 12
_PURPOSE = "bitstream"


class Guard(Protocol):
    """Closes payloads and opens them again; what else belongs to them is ``bound``.

    Both also return what the next record is bound to.
    """

    overhead: int
    check_bytes: int

    def close(self, payload: bytes, bound: bytes) -> tuple[bytes, bytes, bytes]:
        """Return the payload as written, its check, and the next one's bond."""

    def open(self, written: bytes, check: bytes, bound: bytes) -> tuple[bytes, bytes] | None:
        """Return the payload and the next one's bond; None where anything was changed."""


class Checksum:
    """Finds damage; who means harm can make it fit."""

    overhead = 0
    check_bytes = CHECK_BYTES

    def close(self, payload: bytes, bound: bytes) -> tuple[bytes, bytes, bytes]:
        """Return the payload as written, its check, and the next one's bond."""
        digest = digest_of(bound, payload)
        return payload, digest[:CHECK_BYTES], digest

    def open(self, written: bytes, check: bytes, bound: bytes) -> tuple[bytes, bytes] | None:
        """Return the payload and the next one's bond; None where anything was changed."""
        digest = digest_of(bound, written)
        return (written, digest) if digest[:CHECK_BYTES] == check else None


class Seal:
    """AES-256-GCM under a key of its own.

    The nonce is a MAC of all that is sealed: a nonce comes again only where the same payload
    comes again at the same place of the same stream, and then the ciphertext is the same, too.
    """

    overhead = _NONCE_BYTES
    check_bytes = _TAG_BYTES

    def __init__(self, key: Key) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        from scotoma.core.keys import export_secret

        self._key = key.subkey(_PURPOSE)
        self._cipher = AESGCM(export_secret(self._key))

    def close(self, payload: bytes, bound: bytes) -> tuple[bytes, bytes, bytes]:
        """Return the payload as written, its check, and the next one's bond."""
        nonce = self._key.mac(digest_of(bound, payload))[:_NONCE_BYTES]
        sealed = self._cipher.encrypt(nonce, payload, bound)
        tag = sealed[-_TAG_BYTES:]
        return nonce + sealed[:-_TAG_BYTES], tag, tag

    def open(self, written: bytes, check: bytes, bound: bytes) -> tuple[bytes, bytes] | None:
        """Return the payload and the next one's bond; None where anything was changed."""
        from cryptography.exceptions import InvalidTag

        try:
            nonce, sealed = written[:_NONCE_BYTES], written[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, sealed + check, bound), check
        except InvalidTag:
            return None


def digest_of(*parts: bytes) -> bytes:
    """Return the SHA-256 of parts, each led by its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
