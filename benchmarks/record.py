"""Rows of ``results/NAME.json``: written as they finish, and not measured twice.

A row is known by the fingerprint of its configuration. The configuration names everything
that was chosen (the search's settings included), so a changed default makes a new row; the
environment says what was not chosen: versions, processor, date.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = [
    "CACHE",
    "RESULTS",
    "ROOT",
    "Benchmark",
    "Book",
    "Job",
    "Measured",
    "Options",
    "Row",
    "fingerprint_of",
    "sources_digest",
]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CACHE = ROOT / "benchmarks" / ".cache"

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the command line decides.

    Args:
        quick: A handful of pictures, to see that everything runs; results go to the cache.
        subset: Pictures in rows that do not use all.
        seed: Of everything random.
        cache: Where working files lie.
    """

    quick: bool = False
    subset: int = 160
    seed: int = 0
    cache: Path = CACHE

    def count(self, full: int, quick: int) -> int:
        """Return a number of pictures."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Measured:
    """What a job found.

    Args:
        n: Pictures (or trials) that the values rest on.
        values: Figures, rates with their intervals.
    """

    n: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One row to be.

    Args:
        what: What the row shows, in one sentence.
        config: All that was chosen; plain data.
        measure: Does the work.
        paper: The literature's figures for the same thing, where there are any.
    """

    what: str
    config: Mapping[str, Any]
    measure: Callable[[], Measured]
    paper: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Benchmark:
    """One measurement.

    Args:
        name: Of the result file.
        jobs: Makes the rows' jobs, in the order of the table.
        render: Makes Markdown out of the rows.
    """

    name: str
    jobs: Callable[[Options], Iterable[Job]]
    render: Callable[[Sequence[Row]], str]


def fingerprint_of(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with anything in ``config``."""
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Book:
    """The rows of one benchmark.

    Args:
        name: Of the benchmark.
        folder: Holds ``NAME.json``.
    """

    name: str
    folder: Path = RESULTS
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path.is_file():
            self.rows = json.loads(self.path.read_text("utf-8"))["rows"]

    @property
    def path(self) -> Path:
        """The JSON file."""
        return self.folder / f"{self.name}.json"

    def has(self, job: Job) -> bool:
        """Whether the job's row was measured before."""
        wanted = fingerprint_of(job.config)
        return any(row["fingerprint"] == wanted for row in self.rows)

    def enter(self, job: Job, measured: Measured, *, seed: int, seconds: float) -> Row:
        """Write the job's row, in the place of an earlier one of the same configuration."""
        row: Row = {
            "what": job.what,
            "config": dict(job.config),
            "fingerprint": fingerprint_of(job.config),
            "n": measured.n,
            "values": dict(measured.values),
            "paper": None if job.paper is None else dict(job.paper),
            "seed": seed,
            "seconds": round(seconds, 1),
            "environment": environment(),
        }
        self.rows = [old for old in self.rows if old["fingerprint"] != row["fingerprint"]]
        self.rows.append(row)
        self._write()
        return row

    def arrange(self, jobs: Iterable[Job]) -> None:
        """Order the rows as the jobs are; once each job has one, rows of no job go."""
        order = {fingerprint_of(job.config): place for place, job in enumerate(jobs)}
        there = {row["fingerprint"] for row in self.rows}
        if order.keys() <= there and order.keys() != there:
            self.rows = [row for row in self.rows if row["fingerprint"] in order]
        self.rows.sort(key=lambda row: order.get(row["fingerprint"], len(order)))
        if self.rows:
            self._write()

    def _write(self) -> None:
        from scotoma.images.write import write_atomically

        text = json.dumps({"benchmark": self.name, "rows": self.rows}, indent=1)
        write_atomically(self.path, (text + "\n").encode())


def environment() -> dict[str, Any]:
    """Return what a figure depends on besides its configuration."""
    import torch

    return {
        "scotoma": version("scotoma"),
        "commit": _commit(),
        "sources": sources_digest(),
        "torch": torch.__version__,
        "timm": version("timm"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if sys.platform != "win32" else None,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


@cache
def sources_digest() -> str:
    """Return 12 hexadecimal digits that change with any line of the package that is measured."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src" / "scotoma").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        # What only prints or trains decides no result.
        if name.split("/")[2] not in ("cli", "report", "train"):
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _commit() -> str | None:
    """Short hash of the checkout, with a + where the sources differ from it."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
