"""``scotoma encode``, ``decode`` and ``export`` as their users meet them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.commands import here, scotoma
from support.keys import assert_no_secret, write_keys
from support.splits import write_split, write_video
from support.tiny_models import write_pictures

COUNT = 3
SPLIT = ("--split", "split.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_files: tuple[Path, Path]) -> Path:
    """Return a folder with pictures, a video, keys, a split and the streams of all."""
    folder = tmp_path_factory.mktemp("encode")
    write_pictures(folder / "in", COUNT)
    write_video(folder / "in" / "clip.mp4", 5)
    write_split(folder / "split.safetensors", tiny_files[0])
    write_keys(folder)
    result = scotoma("encode", "in", "-o", "open", *SPLIT, "--json", cwd=folder)
    assert result.code == 0, result.err
    assert json.loads(result.out)["codec"] == "entropy"
    sealed = scotoma("encode", "in", "-o", "sealed", *SPLIT, "--key", "k.key", cwd=folder)
    assert sealed.code == 0, sealed.err
    assert_no_secret(folder, sealed.out, sealed.err)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """Return a copy to change at will."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_frame_gets_a_line_of_json(place: Path) -> None:
    result = scotoma("decode", "open", *SPLIT, "--top", "2", cwd=place)
    assert (result.code, result.err) == (0, "")
    found = lines(result.out)
    assert len(found) == COUNT + 5
    assert [line["frame"] for line in found if "clip" in str(line["input"])] == list(range(5))
    assert all(len(line["answers"]) == 2 and line["error"] is None for line in found)
    sealed = scotoma("decode", "sealed", *SPLIT, "--key", "k.key", "-o", "a.jsonl", cwd=place)
    assert (sealed.code, sealed.out) == (0, "")
    again = lines((place / "a.jsonl").read_text())
    assert [line["answers"] for line in again] == [line["answers"][:1] for line in found]
    assert not list(place.glob("*.part"))


def test_damaged_and_foreign_streams_exit_with_3_and_the_reason(place: Path) -> None:
    (first, *_) = sorted((place / "open").glob("0*.latents"))
    first.write_bytes(first.read_bytes()[:-3])
    (place / "open" / "x.latents").write_bytes(b"something else")
    result = scotoma("decode", "open", *SPLIT, cwd=place)
    assert result.code == 3
    assert "Traceback" not in result.err
    reasons = [str(line["error"]) for line in lines(result.out) if line["error"]]
    assert len(reasons) == 2
    assert "cut off within" in reasons[0]
    assert "expected a bitstream" in reasons[1]


def test_keys_are_asked_for_and_open_streams_are_not_taken_for_sealed(place: Path) -> None:
    for words, reason in (
        (("sealed",), "to open a sealed stream, got none"),
        (("sealed", "--key", "other.key"), "expected key"),
        (("open", "--key", "k.key"), "got an open one"),
    ):
        result = scotoma("decode", *words, *SPLIT, cwd=place)
        assert result.code == 3
        assert all(reason in str(line["error"]) for line in lines(result.out))
        assert_no_secret(place, result.out, result.err)


def test_halves_are_exported(place: Path) -> None:
    result = scotoma("export", *SPLIT, "-o", "halves", "--json", cwd=place)
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert (place / said["camera"]).is_file()
    assert (place / said["server"]).is_file()


def test_mistakes_are_named(place: Path) -> None:
    for words, reason in (
        (("encode", "in", "-o", "o", *SPLIT, "--codec", "hvec"), "did you mean 'hevc'"),
        (("encode", "in", "-o", "o", *SPLIT, "--quantizer", "1"), "expected a quantizer"),
        (("encode", "in", "-o", "in", *SPLIT), "choose another output folder"),
        (("encode", "in", "-o", "o", "--split", "none.safetensors"), "none.safetensors"),
        (("decode", "nowhere", *SPLIT), "does not exist"),
        (("decode", "open", *SPLIT, "-o", "no/such/a.jsonl"), "expected to write"),
        (("encode", "in", "-o", "o", *SPLIT, "--every", "0"), "every 0"),
    ):
        result = here(*words, cwd=place)
        assert result.code == 1, words
        assert reason in result.err
        assert not (place / "o").exists()
