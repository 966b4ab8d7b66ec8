"""``scotoma list splits``: where a model can be cut, for people and for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import here, scotoma


def test_points_are_listed_with_what_is_sent_and_computed(tmp_path: Path) -> None:
    words = ("list", "splits", "--model", "embedded")
    result = scotoma(*words, cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].split() == ["the", "picture", "3×64×64", "12,288"]
    assert ["blocks.3", "192×16×16", "49,152", "196,608", "bytes", "51.4%"] in map(str.split, lines)
    assert "crossed" not in result.out
    every = json.loads(scotoma(*words, "--all", "--json", cwd=tmp_path).out)
    points = {point["name"]: point for point in every["points"]}
    assert every["input_size"] == [3, 64, 64]
    assert points["blocks.3"]["bytes"] == 196608
    assert points["blocks.3"]["crossing"] == []
    assert points["blocks.3.0.fn"]["crossing"] == ["blocks.2"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["splits"], "--model SPEC with splits"),
        (["fills", "--model", "embedded"], "--model SPEC with splits"),
        (["fills", "--all"], "--model SPEC with splits"),
        (["splits", "--model", "timm:resnet81"], "did you mean"),
    ],
)
def test_misuse_is_explained(words: list[str], says: str, tmp_path: Path) -> None:
    result = here("list", *words, cwd=tmp_path)
    assert result.code == 1
    assert says in result.err
