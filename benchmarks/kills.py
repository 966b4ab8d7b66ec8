"""A run that is killed again and again, beside one that nobody disturbs."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from benchmarks.figures import rate
from benchmarks.jobs import command
from benchmarks.pictures import SPECS, pick, validation
from benchmarks.record import Measured, Options

if TYPE_CHECKING:
    from scotoma.run.entry import Entry

__all__ = [
    "OWN_FILES",
    "copy_pictures",
    "finish_run",
    "measure_kills",
    "read_entries",
    "start_run",
    "visible_files",
]

OWN_FILES = frozenset({"manifest.jsonl", "summary.json", "report.html"})
_POLL = 0.01
_MOST_WAIT = 900.0
_MOST_STARTS = 2  # for each kill: a run may end before its moment comes


@dataclass
class _Sightings:
    """What was seen in the output folder after each kill."""

    kills: int = 0
    broken: list[str] = field(default_factory=list)
    outputs: int = 0
    ahead: int = 0
    hidden: int = 0
    torn: int = 0
    done: list[int] = field(default_factory=list)


def measure_kills(config: dict[str, Any], options: Options) -> Measured:
    """Kill a run as often as ``config`` says, let it end, and compare.

    Args:
        config: Of the row.
        options: Of the benchmark.
    """
    folder = options.cache / "faults" / f"batch-{config['batch']}"
    shutil.rmtree(folder, ignore_errors=True)
    pictures = copy_pictures(pick(validation(), config["count"], seed=options.seed), folder / "in")
    whole, killed = folder / "whole", folder / "killed"
    start = partial(start_run, pictures, config=config)
    begun = time.perf_counter()
    finish_run(start(whole))
    seconds = time.perf_counter() - begun
    seen = _kill_often(partial(start, killed), killed, config, seconds)
    code = finish_run(start(killed))
    return Measured(config["count"], {"exit_code": code, **_compare(whole, killed, seen)})


def _kill_often(
    start: Callable[[], subprocess.Popen[bytes]],
    out: Path,
    config: dict[str, Any],
    seconds: float,
) -> _Sightings:
    """Start and kill at random moments; every moment of a run has its chance.

    A moment is a number of pictures that this start gets done and a fraction of a second
    after that. Some numbers are nought: these starts die while still loading.
    """
    generator = random.Random(config["seed"])
    kills = config["kills"]
    # Pictures left at each kill, so that there is something to kill until the last one.
    marks = sorted(generator.sample(range(int(config["count"] * 0.9)), kills))
    for place in generator.sample(range(1, kills), kills // 5):
        marks[place] = marks[place - 1]  # no progress asked: may die at once
    seen = _Sightings()
    for attempt in range(_MOST_STARTS * kills):
        if seen.kills == kills:
            break
        mark = marks[min(attempt, kills - 1)]
        wait = generator.uniform(0, 0.15)
        if _lines(out) >= mark:
            wait = generator.uniform(0, min(seconds, 4.0))
        process = start()
        until = time.monotonic() + _MOST_WAIT
        while _lines(out) < mark and process.poll() is None and time.monotonic() < until:
            time.sleep(_POLL)
        time.sleep(wait)
        if process.poll() is None:
            process.kill()
            seen.kills += 1
        process.wait()
        _look(out, seen)
        print(f"    kill {seen.kills}: {seen.done[-1]} done", flush=True)
    return seen


def _look(out: Path, seen: _Sightings) -> None:
    """Check that every visible output is a whole picture, and the one that the manifest says."""
    from scotoma.run.manifest import latest, sha256_of

    manifest = out / "manifest.jsonl"
    entries = latest(manifest)
    hashes = {entry.output: entry.sha256_out for entry in entries.values() if entry.output}
    seen.done.append(len(entries))
    text = manifest.read_bytes() if manifest.is_file() else b""
    seen.torn += bool(text) and not text.endswith(b"\n")
    for path in sorted(out.rglob("*")) if out.is_dir() else []:
        name = path.relative_to(out).as_posix()
        if path.name.startswith("."):
            seen.hidden += path.is_file()
            continue
        if path.is_dir() or name in OWN_FILES:
            continue
        seen.outputs += 1
        seen.ahead += name not in hashes
        as_listed = name not in hashes or sha256_of(path) == hashes[name]
        if path.suffix != ".png" or not as_listed or not _is_whole(path):
            seen.broken.append(name)


def _is_whole(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError):
        return False
    return True


def _compare(whole: Path, killed: Path, seen: _Sightings) -> dict[str, Any]:
    """Compare two finished output folders."""
    first, second = read_entries(whole), read_entries(killed)
    names = sorted(first.keys() & second.keys())
    n = len(first)

    def alike(same: Callable[[Entry, Entry], bool]) -> dict[str, Any]:
        return rate(sum(same(first[name], second[name]) for name in names), n)

    return {
        "kills": seen.kills,
        "outputs_seen": seen.outputs,
        "partial_outputs_seen": len(seen.broken),
        "outputs_ahead_of_manifest": seen.ahead,
        "hidden_files_seen": seen.hidden,
        "torn_manifest_lines_seen": seen.torn,
        "done_at_kills": seen.done,
        "same_inputs": first.keys() == second.keys(),
        "same_files": visible_files(whole) == visible_files(killed),
        "same_status": alike(lambda a, b: a.status == b.status),
        "same_output_name": alike(lambda a, b: a.output == b.output),
        "same_decisions": alike(lambda a, b: _labels(a) == _labels(b)),
        "same_bytes": alike(lambda a, b: a.sha256_out == b.sha256_out),
        "not_kept": sum(entry.status == "not-kept" for entry in second.values()),
        "hidden_files_left": sum(path.name.startswith(".") for path in killed.rglob("*")),
    }


def read_entries(out: Path) -> dict[str, Entry]:
    """Return the manifest of a run by the inputs' bare names."""
    from scotoma.run.manifest import latest

    return {Path(name).name: entry for name, entry in latest(out / "manifest.jsonl").items()}


def visible_files(out: Path) -> set[str]:
    """Return the files of a run that are not hidden, relative to its folder."""
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return {name for name in files if not Path(name).name.startswith(".")}


def _labels(entry: Entry) -> list[tuple[str, int, int | None, int | None]]:
    return [
        (
            decision.model,
            decision.before.label,
            None if decision.naive is None else decision.naive.label,
            None if decision.after is None else decision.after.label,
        )
        for decision in entry.decisions
    ]


def _lines(out: Path) -> int:
    path = out / "manifest.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def copy_pictures(paths: Sequence[Path], folder: Path) -> Path:
    """Copy pictures into a new folder and return it."""
    folder.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(path, folder / path.name)
    return folder


def start_run(pictures: Path, out: Path, *, config: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start ``scotoma anonymize`` in a process of its own; its words go to a log beside it."""
    words = command(
        [
            *("anonymize", pictures, "-o", out, "--model", SPECS[config["model"]]),
            *("--regions", config["regions"], "--batch-size", config["batch"]),
            *("--seed", config["seed"]),
        ]
    )
    with (pictures.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)


def finish_run(process: subprocess.Popen[bytes]) -> int:
    """Wait for a run and return its exit code.

    Raises:
        RuntimeError: It did not get through.
    """
    code = process.wait()
    if code not in (0, 3):
        raise RuntimeError(f"expected scotoma to end with 0 or 3, got {code}; see the cache's logs")
    return code
