"""``scotoma decrypt`` as its users meet it: pictures back, or the reason why not."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import Result, here, scotoma
from support.keys import assert_no_secret, write_keys
from support.tiny_models import SIDE, write_pictures

COUNT = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_files: tuple[Path, Path]) -> Path:
    """Return a folder with pictures, key files, and their releases in ``rel``."""
    folder = tmp_path_factory.mktemp("decrypt")
    write_pictures(folder / "in", COUNT)
    shutil.copy(tiny_files[0], folder / "m.safetensors")
    write_keys(folder)
    for out, words in (
        ("rel", ("--scheme", "orthogonal", "--key", "k.key")),
        ("png", ("--scheme", "permute", "--key", "k.key", "--format", "png")),
        ("loose", ("--scheme", "shuffle")),
    ):
        model = ("--model", "scotoma:m.safetensors", "--block", "8")
        assert scotoma("encrypt", "in", "-o", out, *words, *model, cwd=folder).code == 0
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """Return a copy to change at will."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def decrypt(place: Path, *words: object, key: str = "k.key") -> Result:
    result = scotoma("decrypt", *words, "-o", "back", "--key", key, cwd=place)
    assert_no_secret(place, result.out, result.err)
    assert "Traceback" not in result.err
    return result


def as_seen(path: Path) -> np.ndarray:
    """Return what the tiny model sees of a picture, by Pillow alone."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = SIDE / min(image.size)
    size = (int(image.width * scale), int(image.height * scale))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((image.width - SIDE) / 2), round((image.height - SIDE) / 2)
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE))).astype(int)


@pytest.mark.parametrize(("folder", "most"), [("rel", 0), ("png", 1)])
def test_pictures_come_back_as_the_model_saw_them(place: Path, folder: str, most: int) -> None:
    result = decrypt(place, folder, "--json")
    assert (result.code, result.err) == (0, "")
    summary = json.loads(result.out)
    assert (summary["images"], summary["failed"]) == (COUNT, 0)
    for path in (place / "in").iterdir():
        with Image.open(place / "back" / path.name) as image:
            found = np.asarray(image).astype(int)
        assert np.abs(found - as_seen(path)).max() <= most


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
def test_pictures_that_came_back_are_their_owners_alone(place: Path) -> None:
    assert decrypt(place, "rel").code == 0
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (place / "back").glob("*.png")}
    assert modes == {0o600}


def test_the_wrong_key_names_both(place: Path) -> None:
    result = decrypt(place, "rel", key="other.key")
    assert result.code == 3
    said = json.loads((place / "back/summary.json").read_text("utf-8"))
    (other,) = said["key_ids"]
    ours = json.loads((place / "rel/summary.json").read_text("utf-8"))["key_id"]
    lines = result.err.splitlines()
    assert len(lines) == COUNT
    assert all(ours in line and other in line for line in lines)
    assert not list((place / "back").glob("*.png"))


def test_a_rotated_key_file_reads_what_came_before(place: Path) -> None:
    assert scotoma("keygen", "k.key", "--rotate", cwd=place).code == 0
    assert decrypt(place, "rel").code == 0


def test_keyless_releases_cannot_be_undone(place: Path) -> None:
    result = decrypt(place, "loose")
    assert result.code == 3
    assert result.err.count("key-less scheme 'shuffle'") == COUNT


def test_changed_and_foreign_files_are_refused(place: Path) -> None:
    whole = (place / "rel/000.safetensors").read_bytes()
    (place / "rel/cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (place / "rel/bent.safetensors").write_bytes(whole[:-9] + b"\x99" + whole[-8:])
    (place / "rel/huge.safetensors").write_bytes((2**63).to_bytes(8, "little") + bytes(100))
    shutil.copy(place / "m.safetensors", place / "rel/model.safetensors")
    shutil.copy(place / "in/000.png", place / "rel/picture.png")
    (place / "rel/notes.txt").write_text("not looked at", "utf-8")
    result = decrypt(place, "rel")
    assert result.code == 3
    lines = {Path(line.split(": ")[1]).name: line for line in result.err.splitlines()}
    assert set(lines) == {
        *("cut.safetensors", "bent.safetensors", "huge.safetensors"),
        *("model.safetensors", "picture.png"),
    }
    assert "SHA-256" in lines["bent.safetensors"]
    assert "another kind" in lines["model.safetensors"]
    assert "ordinary PNG" in lines["picture.png"]
    assert len(list((place / "back").glob("*.png"))) == COUNT


def test_releases_are_not_written_over(place: Path) -> None:
    before = {path: path.read_bytes() for path in (place / "png").iterdir()}
    result = scotoma("decrypt", "png", "-o", "png", "--key", "k.key", cwd=place)
    assert result.code == 1
    assert "choose another output folder" in result.err
    assert before == {path: path.read_bytes() for path in (place / "png").iterdir()}


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["nowhere", "-o", "back", "--key", "k.key"], "nowhere, which does not exist"),
        (["rel", "-o", "back"], "--key"),
        (["rel", "-o", "back", "--key", "gone.key"], "gone.key"),
        (["rel", "--key", "k.key"], "--out"),
    ],
)
def test_mistakes_are_named(place: Path, words: list[str], fragment: str) -> None:
    result = here("decrypt", *words, cwd=place)
    assert (result.code, result.out) == (1, "")
    assert fragment in result.err
    assert not (place / "back").exists()
