"""Black boxes on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.commands import scotoma
from support.runs import Witness, entries_of
from support.tiny_models import write_pictures

CODE = """
from scotoma.models import saved

network, _ = saved.load({path!r})


def scores(images):
    return network(images).detach()
"""


@pytest.fixture
def place(tmp_path: Path, tiny_files: tuple[Path, Path]) -> Path:
    """Return a folder with pictures in ``in``, and a model as a function of ``own.py``."""
    write_pictures(tmp_path / "in", 6, first=300)
    shutil.copy(tiny_files[0], tmp_path / "m.safetensors")
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\n" + CODE.format(path="x").replace("'x'", "Path('m.safetensors')")
    )
    config = {"input_size": [3, 32, 32], "crop_pct": 1.0, "interpolation": "bilinear"}
    (tmp_path / "own.json").write_text(json.dumps({**config, "classes": list("abcde")}))
    return tmp_path


def test_a_function_is_searched_by_its_scores(place: Path) -> None:
    result = scotoma(
        *("anonymize", "in", "-o", "out", "--model", "python:own.py:scores"),
        *("--regions", "center:0.3", "--queries", 120),
        cwd=place,
    )
    assert (result.code, result.err) == (0, "")
    entries = entries_of(place / "out")
    queries = sorted(entry.queries for entry in entries.values())
    assert queries[0] == 2
    assert 2 < queries[-1] <= 120
    assert f"at most {queries[-1]}" in result.out
    witness = Witness(place / "m.safetensors")
    for name, entry in entries.items():
        assert entry.output is not None
        assert witness.label(place / "out" / entry.output) == witness.label(place / "in" / name)
    helped = scotoma(
        *("anonymize", "in", "-o", "helped", "--model", "python:own.py:scores"),
        *("--regions", "center:0.3", "--surrogate", "scotoma:m.safetensors"),
        cwd=place,
    )
    assert (helped.code, helped.err) == (0, "")
    page = (place / "out" / "report.html").read_text("utf-8")
    assert "by scores alone" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--queries", 0), "queries of at least 3, got 0"),
        (("--optimizer", "patchwrok"), "did you mean 'patchwork'"),
        (("--adapt", "gradient"), "--adapt blackbox"),
        (("--surrogate", "python:own.py:scores"), "every model once"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_written(
    place: Path, words: tuple[object, ...], message: str
) -> None:
    result = scotoma(
        *("anonymize", "in", "-o", "out", "--model", "python:own.py:scores", *words), cwd=place
    )
    assert result.code == 1
    assert message in result.err
    assert not (place / "out").exists()
