"""Runs killed at any moment: no partial file is ever seen, and the next run finishes the work."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from PIL import Image
from support.commands import scotoma, start
from support.runs import entries_of, releases_of
from support.tiny_models import make_picture

from scotoma.run.manifest import sha256_of

COUNT = 24
# One picture per pass: the bytes then do not depend on which pictures a run has left to do.
WORDS = ("--model", "scotoma:m.safetensors", "--regions", "center:0.3", "--batch-size", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_files: tuple[Path, Path]) -> Path:
    """Return a folder with pictures, a model, and in ``whole`` the run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copy(tiny_files[1], folder / "m.safetensors")
    for number in range(COUNT):
        path = folder / "in" / f"{number % 3}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_picture(900 + number, 240, 200)).save(path)
    result = scotoma("anonymize", "in", "-o", "whole", *WORDS, cwd=folder)
    assert (result.code, result.err) == (0, "")
    assert {"ok", "kept-naive"} == {e.status for e in entries_of(folder / "whole").values()}
    return folder


def visible(out: Path) -> Iterator[Path]:
    return (path for path in out.rglob("*.png") if not path.name.startswith("."))


def lines_of(out: Path) -> int:
    manifest = out / "manifest.jsonl"
    return manifest.read_bytes().count(b"\n") if manifest.exists() else 0


def kill_after(process: BaseProcess, out: Path, lines: int, pause: float) -> bool:
    """Kill once ``lines`` more lines are in the manifest; return whether it was still running.

    Meanwhile every picture that can be seen is read to its end.
    """
    begun = lines_of(out)
    whole: set[Path] = set()
    while process.is_alive() and lines_of(out) < begun + lines:
        for path in visible(out):
            if path not in whole:
                with Image.open(path) as file:
                    file.load()
                whole.add(path)
    time.sleep(pause)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def check_what_is_left(out: Path) -> None:
    """All that a killed run shows is whole and has its line."""
    accounted = {
        entry.output: entry.sha256_out for entry in entries_of(out).values() if entry.output
    }
    for path in visible(out):
        assert accounted[path.relative_to(out).as_posix()] == sha256_of(path)
    assert not (out / "report.html").exists()


def check_equal(out: Path, whole: Path) -> None:
    """The result is that of the run that nobody disturbed, hidden files included."""
    assert releases_of(out) == releases_of(whole)
    facts = [
        {
            name: (entry.status, entry.output, entry.sha256_in, entry.sha256_out, entry.decisions)
            for name, entry in entries_of(folder).items()
        }
        for folder in (out, whole)
    ]
    assert facts[0] == facts[1]
    assert (out / "report.html").exists()


def run_killed(place: Path, out: Path, moments: list[tuple[int, float]]) -> None:
    for lines, pause in moments:
        process = start(
            *("anonymize", "in", "-o", out.name, *WORDS),
            cwd=place,
            out=place / "stdout",
            err=place / "stderr",
        )
        assert kill_after(process, out, lines, pause), "the run was over before it was killed"
        check_what_is_left(out)
    before = {path: path.stat().st_mtime_ns for path in visible(out)}
    result = scotoma("anonymize", "in", "-o", out.name, *WORDS, cwd=place)
    assert (result.code, result.err) == (0, "")
    check_equal(out, place / "whole")
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_a_run_killed_three_times_ends_as_if_it_had_not_been(place: Path) -> None:
    chance = random.Random(1)
    moments = [(chance.randint(1, 6), chance.uniform(0, 0.01)) for _ in range(3)]
    run_killed(place, place / "thrice", moments)
    assert len(list(visible(place / "thrice"))) == COUNT


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_twenty_moments(place: Path, seed: int) -> None:
    chance = random.Random(seed)
    moment = (chance.randint(0, COUNT - 4), chance.uniform(0, 0.02))
    run_killed(place, place / f"killed-{seed}", [moment])
