"""Key files: they open for one passphrase, as they were written, and not otherwise."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scotoma.core import key_files, sealing
from scotoma.core.errors import (
    CipherKeyError,
    FileError,
    KeyFileError,
    UnsafePathError,
    WrongPassphraseError,
)
from scotoma.core.key_files import is_sealed, read_key_file, rotate_key_file, write_key_file
from scotoma.core.keys import Key, KeyRing, export_secret

PASSPHRASE = "correct horse bättery"
SECRETS = (bytes(range(32)), bytes(range(100, 132)))
RING = KeyRing(map(Key.from_bytes, SECRETS))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a sealed file's content (sealing takes a moment)."""
    path = tmp_path_factory.mktemp("keys") / "sealed.key"
    write_key_file(path, RING, passphrase=PASSPHRASE)
    return path.read_bytes()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("keys") / "raw.key"
    write_key_file(path, RING, raw=True)
    return path.read_bytes()


def put(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = folder / "some.key"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def rewritten(data: bytes, **entries: Any) -> bytes:
    """Return a file altered by somebody who also mends its checksum."""
    return key_files._serialize({**json.loads(data), **entries})


def errors_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that it is chained to, shown in a traceback or not."""
    if error is not None:
        yield error
        yield from errors_of(error.__cause__)
        yield from errors_of(error.__context__)


def assert_silent(error: BaseException) -> None:
    """Fail if an error or one behind it holds a secret, the passphrase, or a raw file's content."""
    parts = [PASSPHRASE[:12]]
    for secret in SECRETS:
        parts += [base64.b64encode(secret).decode()[:12], secret[:8].hex(), repr(secret[:6])[2:-1]]
    for each in errors_of(error):
        shown = "".join(traceback.format_exception(each)) + repr(each.args) + repr(vars(each))
        for name in ("doc", "object"):  # of the decoders' errors
            shown += repr(getattr(each, name, ""))
        assert not [part for part in parts if part in shown]


def refused(path: Path, kind: type[Exception], match: str, passphrase: Any = PASSPHRASE) -> None:
    with pytest.raises(kind, match=match) as caught:
        read_key_file(path, passphrase)
    assert_silent(caught.value)


def test_the_witness_of_these_tests_sees_secrets(raw: bytes) -> None:
    """A decoder's own error, behind one of ours, would fail every test of a refusal."""

    def careless() -> None:
        try:
            json.loads(raw + b"}")
        except ValueError:
            raise KeyFileError("damaged") from None

    with pytest.raises(KeyFileError) as caught:
        careless()
    with pytest.raises(AssertionError):
        assert_silent(caught.value)


# -- round trips ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sealed", "raw"])
def test_what_is_written_is_read(form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = put(tmp_path, request.getfixturevalue(form))
    assert read_key_file(path, PASSPHRASE).keys == RING.keys
    assert read_key_file(path, lambda: PASSPHRASE).keys == RING.keys
    assert is_sealed(path) == (form == "sealed")


def test_a_raw_file_asks_for_no_passphrase(raw: bytes, tmp_path: Path) -> None:
    def ask() -> str:
        raise AssertionError("asked")

    path = put(tmp_path, raw)
    assert read_key_file(path, ask).keys == read_key_file(path).keys == RING.keys


def test_a_damaged_file_fails_before_a_passphrase_is_asked_for(
    sealed: bytes, tmp_path: Path
) -> None:
    def ask() -> str:
        raise AssertionError("asked")

    refused(put(tmp_path, sealed[:-20]), KeyFileError, "damaged", ask)


def test_a_file_of_the_first_version_opens_for_ever(tmp_path: Path) -> None:
    """Written by the first version; never edit it."""
    path = put(tmp_path, GOLDEN_FILE)
    assert read_key_file(path, PASSPHRASE).keys == RING.keys


GOLDEN_FILE = b"""{
  "magic": "scotoma-key",
  "version": 1,
  "form": "sealed",
  "kdf": "argon2id",
  "memory_kib": 65536,
  "passes": 3,
  "lanes": 4,
  "salt": "yrRKNHAzY9UCk69YTOElXA==",
  "cipher": "aes-256-gcm",
  "nonce": "gVlzpnGROzNOaMO3",
  "content": "qrwooiZnclcQb/JXLL/xbinbonH5Py3tfrLzbu2AnOTDALw2Nj+YQgxpSXEM7ybl3zSaULwyXunz+oMbjUKD32ldWk1OugMWihIqigAAnnc=",
  "sha256": "114459d181d5d67a18c230b38e550a90e6c6b02d7479ef1180221ae5b6a21b8e"
}
"""  # noqa: E501


def test_letters_count_however_a_keyboard_spells_them(sealed: bytes, tmp_path: Path) -> None:
    assert "ä" in PASSPHRASE
    decomposed = PASSPHRASE.replace("ä", "a\u0308")
    assert read_key_file(put(tmp_path, sealed), decomposed).keys == RING.keys


def test_sealing_twice_shares_nothing(sealed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "again.key"
    write_key_file(path, RING, passphrase=PASSPHRASE)
    first, second = json.loads(sealed), json.loads(path.read_bytes())
    for name in ("salt", "nonce", "content"):
        assert first[name] != second[name]
    assert (first["memory_kib"], first["passes"], first["lanes"]) == (65_536, 3, 4)


def test_a_sealed_file_shows_neither_keys_nor_ids(sealed: bytes) -> None:
    entries = json.loads(sealed)
    content = base64.b64decode(entries["content"])
    assert len(content) == 32 * len(SECRETS) + 16
    for secret in SECRETS:
        assert secret[:4] not in content
        assert base64.b64encode(secret)[:8] not in sealed
    assert not [name for name in RING.ids() if name.encode() in sealed]


def test_the_seal_is_argon2id_and_aes_gcm(sealed: bytes) -> None:
    """Open it by hand, as the documentation says."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    entries = json.loads(sealed)
    key = Argon2id(
        salt=base64.b64decode(entries["salt"]),
        length=32,
        iterations=3,
        lanes=4,
        memory_cost=65_536,
    ).derive(PASSPHRASE.encode())
    header = {k: v for k, v in entries.items() if k not in ("content", "sha256")}
    data = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    nonce, content = (base64.b64decode(entries[name]) for name in ("nonce", "content"))
    assert AESGCM(key).decrypt(nonce, content, data) == b"".join(map(export_secret, RING.keys))


# -- what does not open -----------------------------------------------------------------


def test_another_passphrase_does_not_open(sealed: bytes, tmp_path: Path) -> None:
    path = put(tmp_path, sealed)
    refused(path, WrongPassphraseError, "try again", PASSPHRASE + " ")
    refused(path, WrongPassphraseError, "try again", "")
    refused(path, CipherKeyError, "is sealed, got none", None)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
@pytest.mark.parametrize("form", ["sealed", "raw"])
def test_no_byte_can_change(form: str, data: st.DataObject, request: pytest.FixtureRequest) -> None:
    content = bytearray(request.getfixturevalue(form))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    folder = request.getfixturevalue("tmp_path_factory").getbasetemp()
    refused(put(folder, bytes(content)), KeyFileError, "expected")


@pytest.mark.parametrize("form", ["sealed", "raw"])
def test_no_file_cut_short_or_grown_opens(
    form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    content: bytes = request.getfixturevalue(form)
    for size in range(len(content)):
        refused(put(tmp_path, content[:size]), KeyFileError, "expected")
    for more in (b"\n", b" ", b"\0", content):
        refused(put(tmp_path, content + more), KeyFileError, "expected")


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "100 GB": ({"memory_kib": 100_000_000}, "expected memory_kib from 1024 to 1048576"),
    "an age": ({"passes": 10**9}, "expected passes from 1 to 16"),
    "no pass": ({"passes": 0}, "expected passes from 1 to 16"),
    "negative": ({"memory_kib": -1}, "expected memory_kib from"),
    "many lanes": ({"lanes": 2**24 - 1}, "expected lanes from 1 to 16"),
    "huge number": ({"lanes": 10**4000}, "expected lanes from 1 to 16"),
    "true": ({"lanes": True}, "damaged or edited"),
    "float": ({"passes": 3.0}, "damaged or edited"),
    "NaN": ({"passes": float("nan")}, "damaged or edited"),
    "kdf": ({"kdf": "none"}, "expected kdf argon2id"),
    "cipher": ({"cipher": "none"}, "expected cipher aes-256-gcm"),
    "salt": ({"salt": ""}, "expected salt as 16 bytes"),
    "nonce": ({"nonce": "AAAA"}, "expected nonce as 12 bytes"),
    "no base64": ({"nonce": "?" * 16}, "expected nonce as 12 bytes"),
    "surrogate": ({"nonce": "\ud800" * 16}, "expected nonce as 12 bytes"),
    "version": ({"version": 2}, "expected key file version 1.*update scotoma"),
    "magic": ({"magic": "other"}, "which is none"),
    "form": ({"form": "raw"}, "damaged or edited"),
    "unknown form": ({"form": "other"}, "damaged or edited"),
    "list form": ({"form": []}, "damaged or edited"),
    "added entry": ({"more": 1}, "damaged or edited"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_entries_are_refused_before_any_work(
    name: str, sealed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stretch(*_: object) -> bytes:
        raise AssertionError("worked")

    monkeypatch.setattr(sealing, "_stretch", stretch)
    entries, match = HOSTILE[name]
    refused(put(tmp_path, rewritten(sealed, **entries)), KeyFileError, match)


ALTERED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "parameters": lambda e: {"passes": e["passes"] - 1},
    "salt": lambda e: {"salt": base64.b64encode(bytes(16)).decode()},
    "nonce": lambda e: {"nonce": base64.b64encode(bytes(12)).decode()},
    "content": lambda e: {"content": base64.b64encode(bytes(80)).decode()},
    "no content": lambda e: {"content": ""},
    "cut content": lambda e: {"content": e["content"][:60]},
}


@pytest.mark.parametrize("name", ALTERED)
def test_who_mends_the_checksum_still_lacks_the_passphrase(
    name: str, sealed: bytes, tmp_path: Path
) -> None:
    data = rewritten(sealed, **ALTERED[name](json.loads(sealed)))
    refused(put(tmp_path, data), WrongPassphraseError, "or somebody altered the file on purpose")


def test_the_header_is_bound_to_the_content() -> None:
    """Also the entries that no check reads: the associated data covers every one."""
    header, content = sealing.seal(b"content", "words", {"magic": "m", "version": 1})
    assert sealing.open_sealed(header, content, "words") == b"content"
    for change in ({"version": 2}, {"magic": "n"}, {"more": ""}):
        assert sealing.open_sealed({**header, **change}, content, "words") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 500_000, b'{"magic": 1' + b"0" * 5000 + b"}"],
)
def test_other_files_are_no_key_files(content: bytes, tmp_path: Path) -> None:
    refused(put(tmp_path, content), KeyFileError, "expected a scotoma key file")


@pytest.mark.parametrize("content", ["", "AAAA", "no base64", base64.b64encode(bytes(31)).decode()])
def test_raw_files_hold_whole_keys(content: str, raw: bytes, tmp_path: Path) -> None:
    refused(put(tmp_path, rewritten(raw, content=content)), KeyFileError, "expected whole keys")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    refused(tmp_path / "none.key", KeyFileError, "got nothing there; make one: scotoma keygen")
    refused(tmp_path, KeyFileError, "no regular file")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        started = time.monotonic()
        refused(tmp_path / "pipe", KeyFileError, "no regular file")
        assert time.monotonic() - started < 1


# -- who may read -----------------------------------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


@posix
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o660, 0o611])
def test_a_raw_file_open_to_others_is_refused(mode: int, raw: bytes, tmp_path: Path) -> None:
    path = put(tmp_path, raw, mode)
    refused(path, KeyFileError, f"got .* with mode {mode:04o}; .* run: chmod 600")
    path.chmod(0o400)
    assert read_key_file(path).keys == RING.keys


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("options", [{"raw": True}, {"passphrase": PASSPHRASE}])
def test_written_files_are_their_owners_alone(
    umask: int, options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "new.key"
    before = os.umask(umask)
    try:
        write_key_file(path, RING, **options)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        write_key_file(path, RING, **options, replace=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


# -- writing ----------------------------------------------------------------------------


def test_what_is_there_is_not_replaced(raw: bytes, tmp_path: Path) -> None:
    path = put(tmp_path, b"precious")
    with pytest.raises(UnsafePathError, match=r"expected no file at .*--rotate"):
        write_key_file(path, RING, raw=True)
    assert path.read_bytes() == b"precious"
    link = tmp_path / "link.key"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UnsafePathError):
        write_key_file(link, RING, raw=True)
    write_key_file(path, RING, raw=True, replace=True)
    assert path.read_bytes() == raw
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.key", "some.key"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_failed_write_leaves_nothing_and_loses_nothing(
    replace: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "some.key"
    if replace:
        path.write_bytes(b"precious")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match="got No space left on device") as caught:
        write_key_file(path, RING, raw=True, replace=replace)
    assert_silent(caught.value)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"precious"] * replace


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="got No such file or directory; check that its folder"):
        write_key_file(tmp_path / "none/some.key", RING, raw=True)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "expected a passphrase to seal the key file with, got none"),
        ({"raw": True, "passphrase": PASSPHRASE}, "got both"),
        ({"passphrase": ""}, "at least 8 characters"),
        ({"passphrase": "sesame!"}, "at least 8 characters"),
    ],
)
def test_careless_sealing_is_refused(options: dict[str, Any], match: str, tmp_path: Path) -> None:
    path = tmp_path / "some.key"
    with pytest.raises(CipherKeyError, match=match) as caught:
        write_key_file(path, RING, **options)
    assert "sesame" not in str(caught.value)
    assert_silent(caught.value)
    assert not list(tmp_path.iterdir())


# -- rotation ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sealed", "raw"])
def test_rotation_adds_a_key_in_the_same_form(
    form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before: bytes = request.getfixturevalue(form)
    path = put(tmp_path, before)
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        return PASSPHRASE

    ring = rotate_key_file(path, ask)
    assert len(asked) == (form == "sealed")
    assert ring.keys[:-1] == RING.keys
    assert len(set(ring.ids())) == 3
    assert is_sealed(path) == (form == "sealed")
    assert read_key_file(path, PASSPHRASE).keys == ring.keys
    if form == "sealed":
        first, second = json.loads(before), json.loads(path.read_bytes())
        assert first["nonce"] != second["nonce"]
        assert first["salt"] != second["salt"]


def test_a_failed_rotation_leaves_the_file(sealed: bytes, tmp_path: Path) -> None:
    path = put(tmp_path, sealed)
    with pytest.raises(WrongPassphraseError):
        rotate_key_file(path, "another one")
    assert path.read_bytes() == sealed
    assert len(list(tmp_path.iterdir())) == 1


def test_rotation_follows_a_link_to_where_the_key_lies(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    target = put(tmp_path / "stick", raw)
    link = tmp_path / "link.key"
    link.symlink_to(target)
    ring = rotate_key_file(link)
    assert link.is_symlink()
    assert read_key_file(target).keys == ring.keys
