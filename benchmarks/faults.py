"""Runs that are killed, and files that are no pictures: nothing is lost and nothing is half."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.figures import rate
from benchmarks.kills import (
    OWN_FILES,
    copy_pictures,
    finish_run,
    measure_kills,
    read_entries,
    start_run,
    visible_files,
)
from benchmarks.page import percent, table
from benchmarks.pictures import pick, validation
from benchmarks.record import ROOT, Benchmark, Job, Measured, Options, Row

__all__ = ["BENCHMARK"]

_MODEL = "squeezenet1_1"


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
        yield Job(what, config, partial(measure_kills, config, options))
    config = {
        "kind": "bad files",
        "good": 8,
        "model": _MODEL,
        "regions": "center:0.3",
        "kinds": sorted(_bad_files()),
        "seed": options.seed,
    }
    yield Job("bad files beside good ones", config, partial(_measure_bad, config, options))


def _measure_bad(config: dict[str, Any], options: Options) -> Measured:
    folder = options.cache / "faults" / "bad"
    shutil.rmtree(folder, ignore_errors=True)
    pictures = copy_pictures(pick(validation(), config["good"], seed=options.seed), folder / "in")
    bad = _bad_files()
    for name, data, _ in bad.values():
        (pictures / name).write_bytes(data)
    code = finish_run(start_run(pictures, folder / "out", config={**config, "batch": 16}))
    entries = read_entries(folder / "out")
    wrong = []
    for kind, (name, _, fragment) in bad.items():
        entry = entries.get(name)
        if entry is None or entry.status != "failed" or fragment not in (entry.error or ""):
            wrong.append(kind)
    good = [entry for name, entry in entries.items() if name.startswith("ILSVRC")]
    written = visible_files(folder / "out") - OWN_FILES
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
