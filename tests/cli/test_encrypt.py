"""``scotoma encrypt`` as its users meet it: what is written, said, refused, and resumed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.bad_files import bad_files
from support.commands import Result, here, scotoma, start
from support.keys import assert_no_secret, write_keys
from support.tiny_models import make_picture, write_pictures

from scotoma.core.keys import Key
from scotoma.images.ciphertext import read_release

COUNT = 5
MODEL = ("--model", "scotoma:m.safetensors")
BLOCK = ("--block", "8")


@pytest.fixture
def place(tmp_path: Path, tiny_files: tuple[Path, Path]) -> Path:
    """Return a folder with pictures in ``in``, a model, and two key files."""
    write_pictures(tmp_path / "in", COUNT)
    shutil.copy(tiny_files[1], tmp_path / "m.safetensors")
    write_keys(tmp_path)
    return tmp_path


def encrypt(place: Path, *words: object, out: str = "out", scheme: str = "orthogonal") -> Result:
    result = scotoma(
        *("encrypt", "in", "-o", out, "--scheme", scheme, *MODEL, *BLOCK, *words), cwd=place
    )
    assert_no_secret(place, result.out, result.err)
    assert "Traceback" not in result.err
    return result


KEY = ("--key", "k.key")


def releases(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("manifest.jsonl", "summary.json")
    }


def key_of(place: Path) -> Key:
    from scotoma.core.key_files import read_key_file

    return read_key_file(place / "k.key").current


def test_a_run_says_what_it_did_and_nothing_else(place: Path) -> None:
    result = encrypt(place, *KEY)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"{COUNT} files, 0 failed; ")
    assert result.out.endswith(" -> out\n")
    assert {path.name for path in (place / "out").iterdir()} == {
        "manifest.jsonl",
        "summary.json",
        *(f"{n:03d}.safetensors" for n in range(COUNT)),
    }
    for name in releases(place / "out"):
        read_release(place / "out" / name, key=key_of(place))


def test_json_is_all_that_stdout_holds(place: Path) -> None:
    result = encrypt(place, *KEY, "--json", "--dataset", "summer", "--format", "png")
    assert (result.code, result.err) == (0, "")
    summary = json.loads(result.out)
    assert summary == json.loads((place / "out/summary.json").read_text("utf-8"))
    assert (summary["images"], summary["failed"]) == (COUNT, 0)
    assert (summary["scheme"], summary["dataset"]) == ("orthogonal", "summer")
    assert summary["key_id"] == key_of(place).key_id
    for name in releases(place / "out"):
        with Image.open(place / "out" / name) as image:
            assert (image.mode, image.size) == ("RGB", (32, 32))


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("permute", (*KEY, "--dtype", "float16")),
        ("orthogonal-per-block", (*KEY, "--period", "2x1")),
        ("block-shuffle", (*KEY, "--inner", "permute")),
        ("shuffle", ("--seed", "4")),
        ("mix", ("--sub-patches", "16", "--format", "png")),
    ],
)
def test_every_scheme_takes_its_options(place: Path, scheme: str, words: tuple[str, ...]) -> None:
    result = encrypt(place, *words, scheme=scheme)
    assert (result.code, result.err) == (0, "")
    (first, *_) = sorted((place / "out").glob("000.*"))
    release = read_release(first)
    assert release.metadata["scheme"] == scheme
    if scheme == "orthogonal-per-block":
        assert release.metadata["settings"]["period"] == [2, 1]
    if scheme == "mix":
        assert tuple(release.data.shape) == (1, 3, 8, 8)


def test_small_blocks_are_made_with_a_word_of_warning(place: Path) -> None:
    result = encrypt(place, *KEY, "--block", "4")
    assert result.code == 0
    assert "note: in blocks of 4 pixels outlines stay visible" in result.err


def test_a_sealed_key_takes_a_passphrase(place: Path) -> None:
    variable = {"SCOTOMA_PASSPHRASE": "correct horse battery"}
    assert scotoma("keygen", "sealed.key", cwd=place, env=variable).code == 0
    words = ("encrypt", "in", "-o", "out", "--scheme", "permute", "--key", "sealed.key", *MODEL)
    for env, fragment in (
        ({}, "--passphrase-file"),
        ({"SCOTOMA_PASSPHRASE": "wrong horse"}, "got another one"),
    ):
        result = scotoma(*words, cwd=place, env=env)
        assert result.code == 1
        assert fragment in result.err
        assert "horse" not in result.err
        assert not (place / "out").exists()
    assert scotoma(*words, *BLOCK, cwd=place, env=variable).code == 0
    (place / "words").write_text("correct horse battery\n", "utf-8")
    assert scotoma(*words, *BLOCK, "--passphrase-file", "words", cwd=place).code == 0
    assert "horse" not in (place / "out/manifest.jsonl").read_text("utf-8")


MISTAKES = {
    "no key": ("orthogonal", [], "scotoma keygen KEYFILE"),
    "key for none": ("shuffle", [*KEY], "leave it out"),
    "dataset for none": ("mix", ["--dataset", "a"], "dataset"),
    "scheme": ("ortogonal", [*KEY], "did you mean 'orthogonal'?"),
    "key file": ("orthogonal", ["--key", "nowhere.key"], "nowhere.key"),
    "key file of another kind": ("orthogonal", ["--key", "m.safetensors"], "m.safetensors"),
    "model": ("orthogonal", [*KEY, "--model", "embeded"], "did you mean 'embedded'?"),
    "format": ("orthogonal", [*KEY, "--format", "pgn"], "did you mean 'png'?"),
    "dtype": ("orthogonal", [*KEY, "--dtype", "float64"], "release dtype"),
    "block": ("orthogonal", [*KEY, "--block", "0"], "block"),
    "inner": ("block-shuffle", [*KEY, "--inner", "permut"], "did you mean 'permute'?"),
    "inner elsewhere": ("permute", [*KEY, "--inner", "permute"], "inner"),
    "period": ("orthogonal-per-block", [*KEY, "--period", "2,2"], "2x2"),
    "sub-patches": ("mix", ["--sub-patches", "5"], "square"),
    "seed": ("shuffle", ["--seed", "-1"], "seed"),
    "device": ("orthogonal", [*KEY, "--device", "cudaa"], "such as cpu"),
    "input": ("orthogonal", [*KEY, "nowhere"], "nowhere, which does not exist"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_nothing_is_made(place: Path, mistake: str) -> None:
    scheme, words, fragment = MISTAKES[mistake]
    common = ("--scheme", scheme, *MODEL, *BLOCK)
    result = here("encrypt", "in", "-o", "out", *common, *words, cwd=place)
    assert_no_secret(place, result.out, result.err)
    assert "Traceback" not in result.err
    assert result.code == 1
    assert result.out == ""
    assert fragment in result.err
    assert not (place / "out").exists()


def test_originals_stay_and_no_run_takes_anothers_folder(place: Path) -> None:
    before = releases(place / "in")
    result = encrypt(place, *KEY, out="in")
    assert result.code == 1
    assert "choose another output folder" in result.err
    assert releases(place / "in") == before
    assert scotoma("anonymize", "in", "-o", "out", *MODEL, "--regions", "none", cwd=place).code == 0
    result = encrypt(place, *KEY)
    assert result.code == 1
    assert "another command" in result.err
    assert encrypt(place, *KEY, out="rel").code == 0
    anonymize = ("anonymize", "in", "-o", "rel", *MODEL, "--regions", "none")
    result = scotoma(*anonymize, cwd=place)
    assert result.code == 1
    assert "Choose another output folder" in result.err


def test_bad_files_end_with_3_and_nothing_plain(place: Path) -> None:
    kinds = bad_files()
    for name, data, _ in kinds.values():
        (place / "in" / name).write_bytes(data)
    result = encrypt(place, *KEY, "--json")
    assert result.code == 3
    named = result.err.splitlines()
    assert len(named) == len(kinds)
    assert all(line.startswith("failed: ") for line in named)
    summary = json.loads(result.out)
    assert (summary["images"], summary["failed"]) == (COUNT + len(kinds), len(kinds))
    assert set(releases(place / "out")) == {f"{n:03d}.safetensors" for n in range(COUNT)}


def test_no_release_shows_its_picture(place: Path) -> None:
    """Neither a release as it is nor one seen under the wrong key looks like the picture."""
    assert encrypt(place, *KEY).code == 0
    other = ("--key", "other.key")
    assert encrypt(place, *other, out="other").code == 0
    for name, data in releases(place / "out").items():
        assert data != releases(place / "other")[name]
        first, second = (read_release(place / folder / name).data for folder in ("out", "other"))
        correlation = float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])
        assert abs(correlation) < 0.15


def test_a_killed_run_goes_on_where_it_was(place: Path) -> None:
    for number in range(40):
        picture = make_picture(300 + number, 600, 500)
        Image.fromarray(picture).save(place / "in" / f"big{number:02d}.png", compress_level=0)
    words = ("--scheme", "shuffle", *MODEL, *BLOCK)
    assert scotoma("encrypt", "in", "-o", "whole", *words, cwd=place).code == 0
    chance = random.Random(5)
    manifest = place / "out/manifest.jsonl"
    for wanted in (3, 15):
        process = start(
            *("encrypt", "in", "-o", "out", *words),
            cwd=place,
            out=place / "stdout",
            err=place / "stderr",
        )
        while process.is_alive():
            if manifest.exists() and manifest.read_bytes().count(b"\n") >= wanted:
                break
        time.sleep(chance.uniform(0, 0.01))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run was over before it was killed"
        for name in releases(place / "out"):
            if not Path(name).name.startswith("."):
                read_release(place / "out" / name)
    stamps = {path: path.stat().st_mtime_ns for path in (place / "out").glob("[!.]*.safetensors")}
    assert len(stamps) >= 14
    result = scotoma("encrypt", "in", "-o", "out", *words, cwd=place)
    assert (result.code, result.err) == (0, "")
    assert releases(place / "out") == releases(place / "whole")
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
