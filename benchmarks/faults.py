"""Runs that are killed, and files that are no pictures: nothing is lost and nothing is half."""

from __future__ import annotations

import importlib.util
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from benchmarks.figures import rate
from benchmarks.jobs import command
from benchmarks.page import percent, table
from benchmarks.pictures import SPECS, pick, validation
from benchmarks.record import ROOT, Benchmark, Job, Measured, Options, Row

if TYPE_CHECKING:
    from scotoma.run.entry import Entry

__all__ = ["BENCHMARK"]

_MODEL = "squeezenet1_1"
_OWN_FILES = frozenset({"manifest.jsonl", "summary.json", "report.html"})
_POLL = 0.01
_MOST_WAIT = 900.0
_MOST_STARTS = 2  # for each kill: a run may end before its moment comes


def _jobs(options: Options) -> Iterator[Job]:
    for batch in (16, 1):
        config = {
            "kind": "kills",
            "pictures": "imagenet/val",
            "count": options.count(160, 12),
            "kills": options.count(20, 2),
            "model": _MODEL,
            "regions": "center:0.3",
            "fill": "solid",
            "format": "png",
            "batch": batch,
            "seed": options.seed,
        }
        what = f"killed {config['kills']} times and resumed, batches of {batch}"
        yield Job(what, config, partial(_measure_kills, config, options))
    config = {
        "kind": "bad files",
        "good": 8,
        "model": _MODEL,
        "regions": "center:0.3",
        "kinds": sorted(_bad_files()),
        "seed": options.seed,
    }
    yield Job("bad files beside good ones", config, partial(_measure_bad, config, options))


# -- kills ------------------------------------------------------------------------------


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


def _measure_kills(config: dict[str, Any], options: Options) -> Measured:
    folder = options.cache / "faults" / f"batch-{config['batch']}"
    shutil.rmtree(folder, ignore_errors=True)
    pictures = _copy(pick(validation(), config["count"], seed=options.seed), folder / "in")
    whole, killed = folder / "whole", folder / "killed"
    start = partial(_start, pictures, config=config)
    begun = time.perf_counter()
    _finish(start(whole))
    seconds = time.perf_counter() - begun
    seen = _kill_often(partial(start, killed), killed, config, seconds)
    code = _finish(start(killed))
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
        if path.is_dir() or name in _OWN_FILES:
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
    first, second = _entries(whole), _entries(killed)
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
        "same_files": _outputs(whole) == _outputs(killed),
        "same_status": alike(lambda a, b: a.status == b.status),
        "same_output_name": alike(lambda a, b: a.output == b.output),
        "same_decisions": alike(lambda a, b: _labels(a) == _labels(b)),
        "same_bytes": alike(lambda a, b: a.sha256_out == b.sha256_out),
        "not_kept": sum(entry.status == "not-kept" for entry in second.values()),
        "hidden_files_left": sum(path.name.startswith(".") for path in killed.rglob("*")),
    }


def _entries(out: Path) -> dict[str, Entry]:
    from scotoma.run.manifest import latest

    return {Path(name).name: entry for name, entry in latest(out / "manifest.jsonl").items()}


def _outputs(out: Path) -> set[str]:
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


# -- bad files --------------------------------------------------------------------------


def _measure_bad(config: dict[str, Any], options: Options) -> Measured:
    folder = options.cache / "faults" / "bad"
    shutil.rmtree(folder, ignore_errors=True)
    pictures = _copy(pick(validation(), config["good"], seed=options.seed), folder / "in")
    bad = _bad_files()
    for name, data, _ in bad.values():
        (pictures / name).write_bytes(data)
    code = _finish(_start(pictures, folder / "out", config={**config, "batch": 16}))
    entries = _entries(folder / "out")
    wrong = []
    for kind, (name, _, fragment) in bad.items():
        entry = entries.get(name)
        if entry is None or entry.status != "failed" or fragment not in (entry.error or ""):
            wrong.append(kind)
    good = [entry for name, entry in entries.items() if name.startswith("ILSVRC")]
    written = _outputs(folder / "out") - _OWN_FILES
    return Measured(
        len(bad),
        {
            "exit_code": code,
            "own_error": rate(len(bad) - len(wrong), len(bad)),
            "wrong": wrong,
            "good_done": rate(sum(entry.status != "failed" for entry in good), config["good"]),
            "outputs": len(written),
        },
    )


def _bad_files() -> dict[str, tuple[str, bytes, str]]:
    """Return the kinds of bad file that the tests use."""
    path = ROOT / "tests" / "support" / "bad_files.py"
    spec = importlib.util.spec_from_file_location("bad_files", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"expected a module at {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: dict[str, tuple[str, bytes, str]] = module.bad_files()
    return made


# -- both -------------------------------------------------------------------------------


def _copy(paths: Sequence[Path], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(path, folder / path.name)
    return folder


def _start(pictures: Path, out: Path, *, config: dict[str, Any]) -> subprocess.Popen[bytes]:
    words = command(
        [
            *("anonymize", pictures, "-o", out, "--model", SPECS[config["model"]]),
            *("--regions", config["regions"], "--batch-size", config["batch"]),
            *("--seed", config["seed"]),
        ]
    )
    with (pictures.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)


def _finish(process: subprocess.Popen[bytes]) -> int:
    code = process.wait()
    if code not in (0, 3):
        raise RuntimeError(f"expected scotoma to end with 0 or 3, got {code}; see the cache's logs")
    return code


def _render(rows: Sequence[Row]) -> str:
    parts = ["## Faults", ""]
    kills = [row for row in rows if row["config"]["kind"] == "kills"]
    if kills:
        parts += [
            "SIGKILL at random moments (some while the program still loads), each time started "
            "again, compared with a run that nobody disturbed. After each kill every file that can "
            "be seen in the output folder is opened. A file may be there before its line in the "
            "manifest; it is then whole, and made again. With batches of one picture the batches "
            "are equal whatever happens, so the bytes must be; with full batches kernels round "
            "differently, and decisions and statuses must be equal.",
            "",
            table(
                [
                    "run",
                    "kills",
                    "outputs seen",
                    "partial",
                    "ahead of the manifest",
                    "hidden temporary",
                    "same files",
                    "same status",
                    "same decisions",
                    "same bytes",
                ],
                [_kill_line(row) for row in kills],
            ),
        ]
    for row in rows:
        if row["config"]["kind"] == "bad files":
            values = row["values"]
            wrong = f" Wrong: {', '.join(values['wrong'])}." if values["wrong"] else ""
            parts += [
                f"Bad files: {row['n']} kinds in one folder with {row['config']['good']} good "
                f"pictures. {values['own_error']['count']} failed with the error of their kind, "
                f"{values['good_done']['count']} good ones are done, {values['outputs']} files "
                f"written, exit code {values['exit_code']}.{wrong}",
                "",
            ]
    return "\n".join(parts)


def _kill_line(row: Row) -> list[str]:
    values = row["values"]
    return [
        f"{row['config']['model']}, {row['n']} pictures, batches of {row['config']['batch']}",
        str(values["kills"]),
        str(values["outputs_seen"]),
        str(values["partial_outputs_seen"]),
        str(values["outputs_ahead_of_manifest"]),
        str(values["hidden_files_seen"]),
        "yes" if values["same_files"] and values["same_inputs"] else "no",
        *(
            percent(values[key], interval=False)
            for key in ("same_status", "same_decisions", "same_bytes")
        ),
    ]


BENCHMARK = Benchmark("faults", _jobs, _render)
