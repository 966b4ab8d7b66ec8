"""``scotoma keygen`` as its users meet it: files, ids, warnings, and no secret anywhere."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import Result, scotoma

from scotoma.core.key_files import is_sealed, read_key_file
from scotoma.core.keys import export_secret

PASSPHRASE = "correct horse battery"
VARIABLE = {"SCOTOMA_PASSPHRASE": PASSPHRASE}


def keygen(folder: Path, *words: object, env: dict[str, str] | None = None) -> Result:
    result = scotoma("keygen", *words, cwd=folder, env=env)
    assert_silent(folder, result.out + result.err)
    return result


def assert_silent(folder: Path, text: str) -> None:
    assert PASSPHRASE not in text
    assert "Traceback" not in text
    for path in folder.glob("*.key"):
        for key in read_key_file(path, PASSPHRASE).keys:
            secret = export_secret(key)
            for shown in (secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1]):
                assert shown[:16] not in text


def test_a_new_key_is_sealed_and_named(tmp_path: Path) -> None:
    result = keygen(tmp_path, "my.key", env=VARIABLE)
    assert (result.code, result.err) == (0, "")
    ring = read_key_file(tmp_path / "my.key", PASSPHRASE)
    assert result.out == f"key {ring.current.key_id} -> my.key\n"
    assert is_sealed(tmp_path / "my.key")
    assert stat.S_IMODE((tmp_path / "my.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["my.key"]


def test_json_tells_all_that_is_public(tmp_path: Path) -> None:
    (tmp_path / "words").write_text(PASSPHRASE + "\r\n", "utf-8", newline="")
    options = ("my.key", "--passphrase-file", "words", "--json")
    # The file wins over the environment.
    first = keygen(tmp_path, *options, env={"SCOTOMA_PASSPHRASE": "another passphrase"})
    second = keygen(tmp_path, *options, "--rotate")
    ids = read_key_file(tmp_path / "my.key", PASSPHRASE).ids()
    assert [(each.code, each.err) for each in (first, second)] == [(0, "")] * 2
    expected = {"path": "my.key", "key_id": ids[0], "ids": [ids[0]], "sealed": True}
    assert json.loads(first.out) == expected
    assert json.loads(second.out) == {**expected, "key_id": ids[1], "ids": list(ids)}


def test_rotation_names_the_new_key_and_the_earlier_ones(tmp_path: Path) -> None:
    keygen(tmp_path, "my.key", "--raw")
    before = read_key_file(tmp_path / "my.key")
    result = keygen(tmp_path, "my.key", "--rotate")
    ring = read_key_file(tmp_path / "my.key")
    assert result.code == 0
    assert ring.keys[:1] == before.keys
    assert result.out.splitlines() == [
        f"key {ring.current.key_id} -> my.key",
        f"earlier keys, for their releases: {before.current.key_id}",
    ]


def test_a_raw_key_comes_with_a_warning(tmp_path: Path) -> None:
    result = keygen(tmp_path, "my.key", "--raw")
    assert result.code == 0
    assert re.fullmatch(r"key [0-9a-f]{16} -> my\.key\n", result.out)
    assert "warning: my.key is not sealed; whoever can read it has the key" in result.err
    assert stat.S_IMODE((tmp_path / "my.key").stat().st_mode) == 0o600


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    keygen(tmp_path, "my.key", "--raw")
    before = (tmp_path / "my.key").read_bytes()
    for words in (("my.key", "--raw"), ("my.key",)):
        result = keygen(tmp_path, *words, env=VARIABLE)
        assert (result.code, result.out) == (1, "")
        assert "expected no file at my.key, got one" in result.err
        assert "--rotate" in result.err
    assert (tmp_path / "my.key").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "env", "message"),
    [
        (("a.key",), {}, "got none and no terminal to ask at; give --passphrase-file FILE or set"),
        (("a.key",), {"SCOTOMA_PASSPHRASE": ""}, "from SCOTOMA_PASSPHRASE, got nothing"),
        (("a.key",), {"SCOTOMA_PASSPHRASE": "short"}, "at least 8 characters, got a shorter one"),
        (("a.key", "--passphrase-file", "none"), VARIABLE, "got No such file or directory"),
        (("a.key", "--passphrase-file", "two"), {}, "only line of two, got several"),
        (("a.key", "--passphrase-file", "bytes"), {}, "as UTF-8 text, got other bytes"),
        (("none/a.key", "--raw"), {}, "check that its folder exists"),
        (("a.key", "--rotate"), VARIABLE, "got nothing there; make one"),
        (("a.key", "--raw", "--rotate"), {}, "expected --raw alone"),
        (("a.key", "--raw", "--passphrase-file", "two"), {}, "expected --raw alone"),
        ((), {}, "KEYFILE"),
    ],
)
def test_what_cannot_be_is_said(
    words: tuple[str, ...], env: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "two").write_text("one line\nanother line\n", "utf-8")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe some secret")
    result = keygen(tmp_path, *words, env=env)
    assert (result.code, result.out) == (1, "")
    assert message in " ".join(result.err.split())
    assert "some secret" not in result.err
    assert "another line" not in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes", "two"]


def test_a_wrong_passphrase_does_not_rotate(tmp_path: Path) -> None:
    keygen(tmp_path, "my.key", env=VARIABLE)
    before = (tmp_path / "my.key").read_bytes()
    result = keygen(tmp_path, "my.key", "--rotate", env={"SCOTOMA_PASSPHRASE": "another one"})
    assert (result.code, result.out) == (1, "")
    assert "expected the passphrase that sealed my.key, got another one" in result.err
    assert (tmp_path / "my.key").read_bytes() == before


def test_a_raw_key_open_to_others_is_not_rotated(tmp_path: Path) -> None:
    keygen(tmp_path, "my.key", "--raw")
    (tmp_path / "my.key").chmod(0o644)
    result = scotoma("keygen", "my.key", "--rotate", cwd=tmp_path)
    assert result.code == 1
    assert "run: chmod 600 my.key" in result.err


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("second", [PASSPHRASE, "something else"])
def test_a_terminal_is_asked_twice_and_shows_nothing(second: str, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "scotoma", "keygen", "my.key"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={name: text for name, text in os.environ.items() if name not in VARIABLE},
    )
    os.close(theirs)
    try:
        shown = read_until(ours, "Passphrase: ")
        os.write(ours, f"{PASSPHRASE}\n".encode())
        shown += read_until(ours, "The same again: ")
        os.write(ours, f"{second}\n".encode())
        shown += read_until(ours, "\0")
    finally:
        code = process.wait(30)
        os.close(ours)
    assert_silent(tmp_path, shown)
    if second == PASSPHRASE:
        assert code == 0
        assert read_key_file(tmp_path / "my.key", PASSPHRASE).current.key_id in shown
    else:
        assert code == 1
        assert "expected the same passphrase twice, got two" in shown
        assert not list(tmp_path.iterdir())


def read_until(terminal: int, text: str) -> str:
    """Return what a terminal shows until ``text``, or until its process ends."""
    shown = b""
    deadline = time.monotonic() + 30
    while text.encode() not in shown and time.monotonic() < deadline:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # Linux' way of saying that nobody is there any more
            break
        if not shown:
            break
    return shown.decode()
