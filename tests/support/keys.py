"""Key files for commands under test, and the watch that nothing of them is shown."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from scotoma.core.key_files import write_key_file
from scotoma.core.keys import Key, KeyRing, export_secret

__all__ = ["SECRETS", "assert_no_secret", "write_keys"]

SECRETS = (bytes(range(40, 72)), bytes(range(100, 132)))
"""Of ``k.key`` and ``other.key``."""


def write_keys(folder: Path) -> tuple[Key, Key]:
    """Write ``k.key`` and ``other.key``, not sealed, and return their keys."""
    keys = (Key.from_bytes(SECRETS[0]), Key.from_bytes(SECRETS[1]))
    for name, key in zip(("k.key", "other.key"), keys, strict=True):
        write_key_file(folder / name, KeyRing([key]), raw=True)
    return keys


def assert_no_secret(folder: Path, *texts: str) -> None:
    """Fail if a secret is in one of ``texts``, or in a file under ``folder`` but a key file."""
    forms = list(_forms(SECRETS))
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path, content in contents.items():
        if path.suffix != ".key":
            assert not any(form in content for form in forms), f"a secret is in {path}"
    for text in texts:
        assert not any(form in text.encode() for form in forms)


def _forms(secrets: Iterable[bytes]) -> Iterable[bytes]:
    for secret in secrets:
        for key in (Key.from_bytes(secret), Key.from_bytes(secret).subkey("encrypt/")):
            raw = export_secret(key)
            yield raw[:16]
            yield raw.hex()[:24].encode()
            yield base64.b64encode(raw)[:20]
            yield repr(raw)[2:40].encode()
