"""Key files: a ring of keys on disk, sealed under a passphrase or, on request, raw.

A key file is one JSON object, and has one spelling::

    {"magic": "scotoma-key", "version": 1, "form": "sealed",
     "kdf": "argon2id", "memory_kib": 65536, "passes": 3, "lanes": 4, "salt": "...",
     "cipher": "aes-256-gcm", "nonce": "...", "content": "...", "sha256": "..."}

    {"magic": "scotoma-key", "version": 1, "form": "raw", "content": "...", "sha256": "..."}

``content`` is the keys' secrets in base64, 32 bytes each, oldest first: in a sealed file
encrypted, bound to all entries before it. ``sha256`` is of all entries before it, so that
damage is told from a wrong passphrase, and before a passphrase is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scotoma.core import sealing
from scotoma.core.errors import (
    CipherKeyError,
    FileError,
    KeyFileError,
    UnsafePathError,
    WrongPassphraseError,
)
from scotoma.core.keys import SECRET_BYTES, Key, KeyRing, export_secret

__all__ = ["Passphrase", "is_sealed", "read_key_file", "rotate_key_file", "write_key_file"]

Passphrase = str | Callable[[], str]
"""A passphrase, or what asks for it when it is needed."""

_MAGIC = "scotoma-key"
_VERSION = 1
_START: dict[str, type] = {"magic": str, "version": int, "form": str}
_END: dict[str, type] = {"content": str, "sha256": str}
_FIELDS = {"raw": {**_START, **_END}, "sealed": {**_START, **sealing.HEADER, **_END}}
_LARGEST_FILE = 2**20
_SHORTEST_PASSPHRASE = 8


def write_key_file(
    path: Path,
    ring: KeyRing,
    *,
    passphrase: str | None = None,
    raw: bool = False,
    replace: bool = False,
) -> None:
    """Write a key file that its owner alone can read, whole or not at all.

    Args:
        path: Where to; its folder must exist.
        ring: The keys.
        passphrase: Seals the file; at least 8 characters, better several random words.
        raw: Write the secrets as they are; then no passphrase may be given.
        replace: Whether a file at ``path`` may be replaced; a link there is followed.

    Raises:
        CipherKeyError: No passphrase and not ``raw``, both, or too short a passphrase.
        UnsafePathError: A file is there already and ``replace`` is False.
        FileError: It cannot be written; what was there stays as it was.

    Security:
        Sealed, the file is as strong as its passphrase: each guess costs 64 MiB and three
        passes of Argon2id. Raw, it is as strong as the account and the disk it lies on.
    """
    if raw and passphrase is not None:
        raise CipherKeyError("expected a raw key file or a passphrase, got both; leave out one")
    if not raw and passphrase is None:
        raise CipherKeyError(
            "expected a passphrase to seal the key file with, got none; give one, or ask for "
            "an unsealed file with raw=True"
        )
    if passphrase is not None and not len(passphrase) >= _SHORTEST_PASSPHRASE:
        raise CipherKeyError(
            f"expected a passphrase of at least {_SHORTEST_PASSPHRASE} characters, got a shorter "
            "one; take several random words"
        )
    data = _serialize(_entries_of(ring, passphrase))
    _place(path.resolve() if replace else path, data, replace=replace)


def read_key_file(path: Path, passphrase: Passphrase | None = None) -> KeyRing:
    """Return the keys in a key file.

    Args:
        path: The file.
        passphrase: For a sealed file; a function is called only if the file is sealed and whole.

    Raises:
        KeyFileError: Not there, not a key file, damaged, from a newer version, asking for too
            much memory, or raw and readable by others.
        WrongPassphraseError: The passphrase does not open it (or somebody altered both the
            file and its checksum).
        CipherKeyError: It is sealed and no passphrase was given.
    """
    ring, _ = _read_ring(path, passphrase)
    return ring


def rotate_key_file(path: Path, passphrase: Passphrase | None = None) -> KeyRing:
    """Add a new current key to a key file, in the form that it has, and return its ring.

    Args:
        path: The file; earlier keys stay in it and go on reading their releases.
        passphrase: For a sealed file; it stays the same.

    Raises:
        KeyFileError: As for :func:`read_key_file`.
        CipherKeyError: As for :func:`read_key_file`, or the ring is full.
        FileError: It cannot be written; it stays as it was.
    """
    ring, words = _read_ring(path, passphrase)
    rotated = ring.rotate()
    _place(path.resolve(), _serialize(_entries_of(rotated, words)), replace=True)
    return rotated


def is_sealed(path: Path) -> bool:
    """Return whether a key file needs a passphrase.

    Raises:
        KeyFileError: As for :func:`read_key_file`.
    """
    return bool(_read_entries(path)["form"] == "sealed")


# -- keys to entries and back -----------------------------------------------------------


def _entries_of(ring: KeyRing, passphrase: str | None) -> dict[str, Any]:
    """Return a file's entries but for the checksum; without a passphrase, of a raw file."""
    content = b"".join(map(export_secret, ring.keys))
    about = {"magic": _MAGIC, "version": _VERSION}
    if passphrase is None:
        return {**about, "form": "raw", "content": sealing.encode(content)}
    header, sealed = sealing.seal(content, passphrase, {**about, "form": "sealed"})
    return {**header, "content": sealing.encode(sealed)}


def _read_ring(path: Path, passphrase: Passphrase | None) -> tuple[KeyRing, str | None]:
    """Return a file's ring and the passphrase that opened it, None if it is raw."""
    entries = _read_entries(path)
    content = sealing.decode(entries["content"])
    if entries["form"] == "raw":
        return _ring_of(content, path), None
    if passphrase is None:
        raise CipherKeyError(
            f"expected a passphrase, for {path} is sealed, got none; give the one that sealed it"
        )
    words = passphrase if isinstance(passphrase, str) else passphrase()
    header = {name: value for name, value in entries.items() if name not in _END}
    opened = sealing.open_sealed(header, content, words)
    if opened is None:
        raise WrongPassphraseError(
            f"expected the passphrase that sealed {path}, got another one; try again (or somebody "
            "altered the file on purpose: take a backup)"
        )
    return _ring_of(opened, path), words


def _ring_of(content: bytes, path: Path) -> KeyRing:
    if not content or len(content) % SECRET_BYTES:
        raise KeyFileError(
            f"expected whole keys of {SECRET_BYTES} bytes in {path}, got {len(content)} bytes; "
            "take a backup"
        )
    starts = range(0, len(content), SECRET_BYTES)
    return KeyRing(Key.from_bytes(content[start : start + SECRET_BYTES]) for start in starts)


# -- entries to bytes and back ----------------------------------------------------------


def _serialize(entries: Mapping[str, Any]) -> bytes:
    """Return the one spelling of a key file."""
    body = {name: value for name, value in entries.items() if name != "sha256"}
    checksum = hashlib.sha256(sealing.canonical(body)).hexdigest()
    return json.dumps({**body, "sha256": checksum}, indent=2).encode("ascii") + b"\n"


def _parse(data: bytes) -> dict[str, Any]:
    """Return a JSON object; of anything else, an empty one.

    The decoder's errors hold what they decoded, secrets included, and so end here.
    """
    with contextlib.suppress(ValueError, RecursionError):
        entries = json.loads(data)
        return entries if isinstance(entries, dict) else {}
    return {}


def _read_entries(path: Path) -> dict[str, Any]:
    """Return a file's entries, once form, checksum, parameters and mode are as they should be."""
    data, mode = _read(path)
    entries = _parse(data)
    if entries.get("magic") != _MAGIC:
        raise KeyFileError(
            f"expected a scotoma key file, got {path}, which is none or is damaged; "
            "take a backup, or make a new one: scotoma keygen FILE"
        )
    if entries.get("version") != _VERSION:
        raise KeyFileError(
            f"expected key file version {_VERSION}, got another one in {path}; update scotoma "
            "(or the file is damaged: take a backup)"
        )
    form = str(entries.get("form"))
    types = [(name, type(value)) for name, value in entries.items()]
    if types != list(_FIELDS.get(form, {}).items()) or _serialize(entries) != data:
        raise KeyFileError(
            f"expected {path} as scotoma wrote it, got a damaged or edited file; take a backup"
        )
    if form == "raw":
        _check_private(mode, path)
    elif problem := sealing.check_header(entries):
        raise KeyFileError(f"{problem} in {path}; scotoma writes no such file: take a backup")
    return entries


def _check_private(mode: int, path: Path) -> None:
    # On Windows the mode says nothing of who may read.
    if os.name == "posix" and mode & 0o077:
        raise KeyFileError(
            f"expected a raw key file that only you can read (mode 0600), got {path} with mode "
            f"{mode & 0o777:04o}; others may have copied it: make a new key, or, if you are sure "
            f"that nobody did, run: chmod 600 {path}"
        )


# -- bytes to disk and back -------------------------------------------------------------


def _read(path: Path) -> tuple[bytes, int]:
    """Return a regular file's content and mode."""
    try:
        # Opening a pipe could keep us waiting for ever.
        if stat.S_ISREG(path.stat().st_mode):
            with path.open("rb") as file:
                return file.read(_LARGEST_FILE), os.fstat(file.fileno()).st_mode
    except FileNotFoundError as error:
        raise KeyFileError(
            f"expected a key file at {path}, got nothing there; make one: scotoma keygen FILE"
        ) from error
    except OSError as error:
        raise KeyFileError(
            f"expected to read {path}, got {error.strerror or error}; check its permissions"
        ) from error
    raise KeyFileError(f"expected a key file, got {path}, which is no regular file; name the file")


def _place(path: Path, data: bytes, *, replace: bool) -> None:
    """Put a file of mode 0600 into place, seen whole or not at all."""
    part = None
    try:
        if not replace:
            # Reserves the name: unlike a rename, this fails where a file is, or a link.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            handle, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(path)
            _sync_folder(path.parent)
        except BaseException:
            for leftover in [part, *([] if replace else [path])]:
                if leftover is not None:
                    with contextlib.suppress(OSError):
                        Path(leftover).unlink()
            raise
    except FileExistsError as error:
        raise UnsafePathError(
            f"expected no file at {path}, got one; choose another name, or add a new key to it "
            "with scotoma keygen --rotate"
        ) from error
    except OSError as error:
        raise FileError(
            f"expected to write {path}, got {error.strerror or error}; check that its folder "
            "exists, its permissions, and free space"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make a new name last through a power cut: a lost key is a lost dataset."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
