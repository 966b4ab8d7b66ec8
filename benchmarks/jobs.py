"""One run of the library in this process, or of its command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pictures import SPECS
from benchmarks.record import Options, fingerprint_of, sources_digest

if TYPE_CHECKING:
    from scotoma.models.classifier import Classifier
    from scotoma.protections.anonymize.settings import SearchSettings
    from scotoma.run.entry import Entry
    from scotoma.run.settings import AnonymizeSettings

__all__ = [
    "Run",
    "classifier",
    "command",
    "describe_search",
    "run_folder",
    "run_in_cache",
    "run_measured",
]

_COMMAND = "from scotoma.cli.main import main; main()"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        out: Its output folder.
        entries: Its manifest, by the input's path; only the inputs of this run.
        done: Pictures that were not there from an earlier, killed run.
        seconds: That these took.
    """

    out: Path
    entries: Mapping[str, Entry]
    done: int
    seconds: float

    def output(self, path: Path) -> Path | None:
        """Return the file that was written for an input, or None."""
        entry = self.entries[path.as_posix()]
        return None if entry.output is None else self.out / entry.output


@cache
def classifier(name: str) -> Classifier:
    """Return one of the models in ``../shared`` by its short name."""
    from scotoma.models.spec import load_classifier

    return load_classifier(SPECS[name])


def describe_search(search: SearchSettings) -> dict[str, Any]:
    """Return the settings of a search as plain data for a configuration."""
    plain = {**asdict(search), "keep": search.keep.text}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()}


def run_in_cache(
    paths: Sequence[Path],
    models: Sequence[str],
    settings: AnonymizeSettings,
    options: Options,
    *,
    observers: Sequence[str] = (),
) -> Run:
    """Run :func:`scotoma.run.anonymize.anonymize`; an earlier run's pictures are kept.

    The output folder is named after pictures, models, settings and the package's sources, so
    a killed benchmark goes on inside a row.

    Args:
        paths: Pictures.
        models: Short names of those whose decisions are kept.
        settings: Of the run.
        options: Of the benchmark; names the cache.
        observers: Short names of models that take no part.
    """
    from scotoma.run.anonymize import Progress, anonymize
    from scotoma.run.manifest import latest

    used, watching = [classifier(m) for m in models], [classifier(m) for m in observers]
    out = run_folder(paths, models, settings, options, observers=observers)
    done = 0

    def count(progress: Progress) -> None:
        nonlocal done
        done += not progress.skipped
        if not progress.skipped and done % 50 == 0:
            print(f"    {done} of {len(paths)}", flush=True)

    summary = anonymize(paths, out, used, settings, observers=watching, on_progress=count)
    entries = latest(out / "manifest.jsonl")
    return Run(out, {p.as_posix(): entries[p.as_posix()] for p in paths}, done, summary.seconds)


def run_folder(
    paths: Sequence[Path],
    models: Sequence[str],
    settings: AnonymizeSettings,
    options: Options,
    *,
    observers: Sequence[str] = (),
) -> Path:
    """Return the output folder that :func:`run_in_cache` uses for the same arguments."""
    used, watching = [classifier(m) for m in models], [classifier(m) for m in observers]
    identity = {
        "settings": settings.fingerprint(used, watching),
        "paths": [path.as_posix() for path in paths],
        # Pictures that other code made must not pass for this code's.
        "sources": sources_digest(),
    }
    return options.cache / "runs" / fingerprint_of(identity)


def command(arguments: Sequence[str | Path]) -> list[str]:
    """Return the words that start ``scotoma`` with ``arguments`` in a process of its own."""
    return [sys.executable, "-c", _COMMAND, *map(str, arguments)]


def run_measured(arguments: Sequence[str | Path], log: Path) -> tuple[int, int]:
    """Run ``scotoma`` to its end and measure its memory.

    Args:
        arguments: Of the command.
        log: Takes what the command prints.

    Returns:
        Exit code, and the peak of the resident memory in bytes.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(command(arguments), stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait again
    unit = 1 if sys.platform == "darwin" else 1024
    return process.returncode, usage.ru_maxrss * unit
