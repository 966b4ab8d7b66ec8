"""``scotoma train split`` as a process: it trains, reports, and its file encodes and answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from support.commands import scotoma
from support.tiny_models import CLASSES, make_picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number in range(10):
        path = root / CLASSES[number % len(CLASSES)] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(make_picture(number, 32, 32)).save(path)
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    lines = ["channels = 3", "hidden = 6", "epochs = 1", "batch_size = 5", "calibration = 10"]
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_it_trains_a_file_that_encodes_and_answers(
    folder: Path, recipe: Path, tiny_files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "split.safetensors"
    trained = scotoma(
        *("train", "split", "--model", f"scotoma:{tiny_files[0]}", "--at", "blocks.0"),
        *("--data", folder, "--test", folder, "--recipe", recipe, "-o", out, "--json"),
        cwd=tmp_path,
    )
    assert trained.code == 0, trained.err
    report = json.loads(trained.out)
    assert report["recipe"]["channels"] == 3
    assert [epoch["number"] for epoch in report["history"]] == [1]
    assert not out.with_name(out.name + ".checkpoint").exists()
    picture = folder / CLASSES[0] / "0.png"
    streams = tmp_path / "streams"
    encoded = scotoma("encode", picture, "-o", streams, "--split", out, cwd=tmp_path)
    assert encoded.code == 0, encoded.err
    decoded = scotoma("decode", streams, "--split", out, cwd=tmp_path)
    assert decoded.code == 0, decoded.err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--at": "blocks.9"}, "did you mean"),
        ({"--recipe": "privat"}, "private"),
        ({"--data": "absent"}, "absent"),
        ({"--rate": "1.0"}, "step"),
        ({"--out": "absent/split.safetensors"}, "existing folder"),
    ],
)
def test_what_cannot_be_says_why(
    changed: dict[str, str],
    message: str,
    folder: Path,
    recipe: Path,
    tiny_files: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    options = {
        "--model": f"scotoma:{tiny_files[0]}",
        "--at": "blocks.0",
        "--data": str(folder),
        "--recipe": str(recipe),
        "--out": str(tmp_path / "split.safetensors"),
        **changed,
    }
    given = [part for pair in options.items() for part in pair]
    result = scotoma("train", "split", *given, cwd=tmp_path)
    assert result.code == 1
    assert message in result.err
    assert "Traceback" not in result.err
