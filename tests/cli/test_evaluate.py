"""``evaluate``, ``audit`` and ``attack`` as somebody uses them: killed, resumed, misspelt."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from support.commands import here, scotoma, start
from support.evaluation import write_groups

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the configuration of docs/evaluation.md, pictures, and its run."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_groups(folder / "pictures", 2, 5, side=64)
    text = (DOCS / "evaluation.md").read_text("utf-8")
    config = re.findall(r"```toml\n(\[run\].*?)```", text, re.DOTALL)
    assert len(config) == 1
    (folder / "evaluation.toml").write_text(config[0])
    result = scotoma("evaluate", "evaluation.toml", "-o", "whole", cwd=folder)
    assert result.code == 0, result.err
    return folder


def lines(out: Path) -> list[dict[str, object]]:
    path = out / "records.jsonl"
    if not path.exists():
        return []
    whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return [json.loads(line) for line in whole]


def compared(out: Path) -> list[dict[str, object]]:
    """Return records without what time decides."""
    timed = ("protect_ms", "latency_ms", "latency_plain_ms")
    made = []
    for record in lines(out):
        metrics = record["metrics"]
        assert isinstance(metrics, dict)
        kept = {name: value for name, value in metrics.items() if name not in timed}
        made.append({**record, "metrics": kept, "seconds": 0})
    return made


def test_the_example_of_the_page_shows_what_the_page_says(place: Path) -> None:
    records = lines(place / "whole")
    assert {record["status"] for record in records} == {"ok"}
    assert len(records) == 8
    words = ("--max-block-brightness-correlation", "0.3", "--min-agreement", "0.99")
    audit = here("audit", "whole", *words, cwd=place)
    assert audit.code == 3
    assert "rotation × norm-thumbnail" in audit.out
    assert "none × look" not in audit.out


def test_a_second_run_measures_nothing(place: Path) -> None:
    before = (place / "whole" / "records.jsonl").read_bytes()
    result = here("evaluate", "evaluation.toml", "-o", "whole", "--json", cwd=place)
    assert result.code == 0
    assert json.loads(result.out) == {
        "cells": 8, "skipped": 8, "ok": 0, "not_applicable": 0, "failed": 0, "out": "whole"
    }  # fmt: skip
    assert (place / "whole" / "records.jsonl").read_bytes() == before


def test_a_killed_run_goes_on(place: Path, tmp_path: Path) -> None:
    words = ("evaluate", "evaluation.toml", "-o", "killed")
    process = start(*words, cwd=place, out=tmp_path / "o", err=tmp_path / "e")
    while process.is_alive() and len(lines(place / "killed")) < 3:
        time.sleep(0.01)
    process.kill()
    process.join()
    done = len(lines(place / "killed"))
    assert 3 <= done < 8, "the kill came too late to prove anything"
    result = scotoma(*words, "--json", cwd=place)
    assert json.loads(result.out)["skipped"] == done
    assert compared(place / "killed") == compared(place / "whole")


def test_originals_are_written_only_where_asked_for(place: Path) -> None:
    names = {path.name for path in (place / "whole" / "pictures").rglob("*")}
    assert {"0-guess.png", "0-release.png"} <= names
    assert not any("original" in name for name in names)
    words = ("-o", "shown", "--report-originals", "--examples", "1")
    assert scotoma("evaluate", "evaluation.toml", *words, cwd=place).code == 0
    names = {path.name for path in (place / "shown" / "pictures").rglob("*.png")}
    assert names == {"0-guess.png", "0-release.png", "0-original.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "none.toml", "-o", "x"), "expected a configuration at none.toml"),
        (("audit", "nowhere", "--max-ssim", "1"), "expected records.jsonl"),
        (("audit", "whole"), "expected limits"),
        (("audit", "whole", "--max-lpips", "1"), "no metric in these records named 'lpips'"),
        (("audit", "whole", "--max-ssim"), "expected --max-METRIC NUMBER"),
        (("attack", "pictures", "--attack", "look", "-o", "x"), "expected releases"),
        (("attack", "pictures", "--attack", "lok", "-o", "x"), "did you mean 'look'"),
        (
            ("attack", "pictures", "--attack", "look", "-o", "x", "--grant", "key=a"),
            "no grant named 'key'",
        ),
        (
            ("attack", "pictures", "--attack", "look", "-o", "x", "--grant", "protect=a"),
            "nobody but the key's holder",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_end_with_one_and_say_what_to_do(
    words: tuple[str, ...], message: str, place: Path
) -> None:
    result = here(*words, cwd=place)
    assert result.code == 1
    assert message in result.err
    assert not (place / "x").exists()


def test_releases_are_attacked_without_the_key(place: Path) -> None:
    assert here("keygen", "k.key", "--raw", cwd=place).code == 0
    words = ("--scheme", "orthogonal", "--block", "8", "--key", "k.key", "-o", "released")
    encrypted = scotoma("encrypt", "pictures", *words, cwd=place)
    assert encrypted.code == 0, encrypted.err
    result = here(
        "attack", "released", "--attack", "norm-thumbnail", "-o", "g", "--json", cwd=place
    )
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert len(found) == 10
    assert all((place / "g" / name).is_file() for names in found.values() for name in names)
    assert {len(names) for names in found.values()} == {2}, "bright and dark"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("attacks", "look"), ("metrics", "ssim"), ("threat-models", "insider")],
)
def test_what_there_is_to_choose_from_is_listed(kind: str, name: str, place: Path) -> None:
    assert name in json.loads(here("list", kind, "--json", cwd=place).out)
