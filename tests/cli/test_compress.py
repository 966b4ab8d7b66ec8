"""``scotoma compress``: a small file that decides as the classifier did, or says what it lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.commands import scotoma
from support.tiny_models import write_pictures

WORDS = ("--model", "scotoma:m.safetensors", "--data", "in", "--held-out", "24")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_files: tuple[Path, Path]) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    write_pictures(folder / "in", 40)
    shutil.copy(tiny_files[1], folder / "m.safetensors")
    return folder


def test_a_budget_makes_a_small_file_that_classifies(place: Path) -> None:
    words = (*WORDS, "--budget", "5", "--json", "--onnx")
    result = scotoma("compress", *words, "-o", "b.scmp", cwd=place)
    assert (result.code, result.err) == (0, "")
    made = json.loads(result.out)
    size = (place / "b.scmp").stat().st_size
    assert made["size_bytes"] == size
    assert size < 0.5 * made["float_bytes"]
    # No labels fit the classes, so that agreement is measured, which begins at 1.
    assert (made["are_labelled"], made["accuracy_before"]) == (False, 1.0)
    assert made["accuracy_after"] >= 0.95
    assert made["within_budget"] is True
    assert sorted(p.name for p in place.iterdir() if p.name.startswith("b.")) == [
        "b.onnx",
        "b.scmp",
    ]
    found = {}
    for spec in ("scotoma:m.safetensors", "compressed:b.scmp"):
        result = scotoma("classify", "in", "--model", spec, "--json", cwd=place)
        assert result.code == 0
        verdicts = json.loads(result.out)["verdicts"]
        found[spec] = [verdict["answers"][0]["name"] for verdict in verdicts]
    plain, small = found.values()
    assert len(set(plain)) > 1
    assert sum(a == b for a, b in zip(plain, small, strict=True)) >= 0.85 * len(plain)


def test_fewer_bits_are_a_smaller_file(place: Path) -> None:
    sizes = []
    for bits in (8, 4):
        words = (*WORDS, "--bits", str(bits), "-o", f"{bits}.scmp")
        result = scotoma("compress", *words, cwd=place)
        assert result.code == 0
        assert "agreement 100.00 % before" in result.out
        sizes.append((place / f"{bits}.scmp").stat().st_size)
    assert sizes[1] < 0.65 * sizes[0]


def test_says_what_is_wrong_and_writes_nothing(place: Path) -> None:
    cases = {
        ("--budget", "0"): "expected a budget above 0",
        ("--budget", "1", "--bits", "8"): "expected one of budget, price and bits",
        ("--bits", "8", "--held-out", "40"): "expected more than the 40 pictures",
        ("--bits", "8", "--data", "none"): "expected a folder or .zip of class folders",
        ("--bits", "8", "--model", "scotoma:none"): "expected a model written by scotoma",
    }
    for words, message in cases.items():
        result = scotoma("compress", *WORDS, *words, "-o", "x.scmp", cwd=place)
        assert result.code == 1
        assert message in result.err
        assert "Traceback" not in result.err
        assert not (place / "x.scmp").exists()
    before = (place / "m.safetensors").read_bytes()
    result = scotoma("compress", *WORDS, "--bits", "8", "-o", "m.safetensors", cwd=place)
    assert result.code == 1
    assert "scotoma compress did not write" in result.err
    assert (place / "m.safetensors").read_bytes() == before


def test_a_damaged_file_is_refused_with_a_reason(place: Path) -> None:
    words = (*WORDS, "--bits", "8", "-o", "d.scmp")
    assert scotoma("compress", *words, cwd=place).code == 0
    data = (place / "d.scmp").read_bytes()
    (place / "d.scmp").write_bytes(data[:-9])
    result = scotoma("classify", "in", "--model", "compressed:d.scmp", cwd=place)
    assert result.code == 1
    assert "damaged or cut off" in result.err


def test_a_network_of_ones_own(place: Path) -> None:
    (place / "own.py").write_text(
        "from pathlib import Path\n"
        "from scotoma.models.saved import load\n"
        "def mine():\n    return load(Path('m.safetensors'))[0]\n"
    )
    (place / "own.json").write_text(
        json.dumps({"input_size": [3, 32, 32], "crop_pct": 1.0, "interpolation": "bilinear"})
    )
    words = ("--model", "python:own.py:mine", "--data", "in", "--held-out", "24", "--bits", "8")
    result = scotoma("compress", *words, "-o", "own.scmp", cwd=place)
    assert (result.code, result.err) == (0, "")
    for spec, code in (("compressed:own.scmp", 1), ("compressed:own.scmp@own.py:mine", 0)):
        result = scotoma("classify", "in", "--model", spec, cwd=place)
        assert result.code == code
        assert ("write compressed:FILE@CODE.py:NAME" in result.err) == (code == 1)
