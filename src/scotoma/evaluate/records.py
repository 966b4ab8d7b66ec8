"""What one measurement found, as a line of JSON that stands on its own.

::

    records.jsonl
     └── Record                     one cell: protection × attack × threat model × data
          ├── protection, attack    name and settings, as a configuration names them
          ├── metrics               name → Figure(value, 95 % interval, n, unit)
          ├── trivial               the same of the trivial guess
          └── status                ok, not-applicable or failed, the last two with a reason
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from scotoma import __version__
from scotoma.core.errors import FileError, SettingsError
from scotoma.core.journal import append_line, open_journal, whole_lines

__all__ = [
    "KINDS",
    "RECORDS",
    "STATUSES",
    "Choice",
    "Figure",
    "Paper",
    "Record",
    "RecordBook",
    "fingerprint_of",
    "installed_versions",
    "read_records",
]

RECORDS = "records.jsonl"
"""Name of the file in an output folder."""

KINDS = ("attack", "utility")
"""``attack``: what leaks; ``utility``: what a model still says of releases."""

STATUSES = ("ok", "not-applicable", "failed")
"""What can become of a cell; ``failed`` is tried again by the next run."""


@cache
def installed_versions() -> dict[str, str]:
    """Return the versions that a figure depends on."""
    found = {"scotoma": __version__, "python": platform.python_version()}
    for package in ("torch", "timm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Choice:
    """A protection or attack as it was chosen.

    Args:
        name: In its registry.
        settings: What was set, plain data.
        label: What a configuration calls it; the name by default.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)


@dataclass(frozen=True)
class Figure:
    """A mean or rate with its 95 % interval.

    Args:
        value: May be infinite, as PSNR of equal pictures is; NaN where there is none.
        low: Lower end of the interval; NaN where there is none.
        high: Upper end.
        n: Pictures, or pairs, that it rests on.
        unit: As ``dB``; empty for a pure number.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str = ""


@dataclass(frozen=True)
class Paper:
    """The literature's figure for the same thing.

    Args:
        value: As published.
        source: Paper, section, table.
    """

    value: float
    source: str


@dataclass(frozen=True)
class Record:
    """One measurement.

    Args:
        kind: One of :data:`KINDS`.
        protection: What was evaluated.
        attack: What was tried on it; None of utility.
        threat_model: Name of what the attacker was granted; empty of utility.
        model: SPEC of the model, where one takes part.
        data: Name of the pictures.
        n: Pictures judged.
        seed: Of everything random.
        pictures_per_key: Pictures in one release; 0 of utility.
        keys: Releases, each under a fresh key where there is one.
        metrics: By name.
        trivial: The same metrics of the trivial guess.
        paper: Published figures, by metric.
        oracle: Whether the best of several candidates was taken with the originals in hand.
        candidates: Of how many.
        notes: What a reader must know, in sentences.
        history: Of an attack that learns, its worth over the steps of its training under the
            first key: ``step``, ``loss`` and ``psnr_db`` on pictures that it kept aside.
        seconds: Time that it took.
        status: One of :data:`STATUSES`.
        reason: Why it is not ``ok``.
        fingerprint: Changes with all that was chosen.
        versions: Of scotoma, torch and python.

    Raises:
        SettingsError: An unknown kind or status, or one other than ``ok`` without a reason.
    """

    kind: str
    protection: Choice
    attack: Choice | None
    threat_model: str
    model: str
    data: str
    n: int
    seed: int
    pictures_per_key: int = 0
    keys: int = 0
    metrics: Mapping[str, Figure] = field(default_factory=dict)
    trivial: Mapping[str, Figure] = field(default_factory=dict)
    paper: Mapping[str, Paper] = field(default_factory=dict)
    oracle: bool = False
    candidates: int = 1
    notes: tuple[str, ...] = ()
    history: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    status: str = "ok"
    reason: str = ""
    fingerprint: str = ""
    versions: Mapping[str, str] = field(default_factory=lambda: installed_versions())

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"expected a kind out of {KINDS}, got {self.kind!r}")
        if self.status not in STATUSES:
            raise SettingsError(f"expected a status out of {STATUSES}, got {self.status!r}")
        if self.status != "ok" and not self.reason:
            raise SettingsError(f"expected a reason for status {self.status!r}, got none")

    @property
    def title(self) -> str:
        """The cell in words: protection, attack, threat model, data."""
        attack = "utility" if self.attack is None else self.attack.label
        parts = [self.protection.label, attack, self.threat_model, self.model, self.data]
        return " × ".join(part for part in parts if part)

    def to_json(self) -> str:
        """Return one line of ASCII JSON; NaN is null, infinities are text."""
        return json.dumps(_plain(asdict(self)), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Read what :meth:`to_json` wrote.

        Raises:
            FileError: The line is no record.
        """
        try:
            fields = json.loads(line)
            fields["protection"] = Choice(**fields["protection"])
            fields["attack"] = fields["attack"] and Choice(**fields["attack"])
            for kind in ("metrics", "trivial"):
                fields[kind] = {name: _figure(found) for name, found in fields[kind].items()}
            fields["paper"] = {name: Paper(**found) for name, found in fields["paper"].items()}
            fields["notes"] = tuple(fields["notes"])
            fields["history"] = tuple(fields.get("history", ()))
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(
                f"expected a record, got {line[:80]!r} ({error}); was this file written by another "
                "version of scotoma? Choose another output folder"
            ) from error


class RecordBook:
    """The records of an output folder, open for appending; a context manager.

    A record supersedes an earlier one of the same fingerprint.

    Args:
        folder: Made where there is none.

    Raises:
        FileError: It cannot be written, or holds a line that is no record.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORDS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor: int | None = open_journal(self.path)
        except OSError as error:
            raise FileError(
                f"expected to write {self.path}, got: {error}; choose another output folder"
            ) from error
        self._statuses = {record.fingerprint: record.status for record in read_records(folder)}

    def has(self, fingerprint: str) -> bool:
        """Whether a cell is done: measured, or found not to apply; a failure is tried again."""
        return self._statuses.get(fingerprint, "failed") != "failed"

    def append(self, record: Record) -> None:
        """Write a record; it is on the disk when this returns.

        Raises:
            FileError: The disk does not take it.
        """
        if self._descriptor is None:
            raise FileError(f"expected open records, got {self.path} already closed")
        try:
            length, written = append_line(self._descriptor, record.to_json())
        except OSError as error:
            raise FileError(f"could not write to {self.path}: {error}; make room") from error
        if written != length:
            raise FileError(
                f"expected to write {length} bytes to {self.path}, got {written}; is the disk full?"
            )
        self._statuses[record.fingerprint] = record.status

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> RecordBook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_records(folder: Path) -> list[Record]:
    """Return the records of an output folder, the last of each fingerprint, in order of writing.

    Raises:
        FileError: A whole line is no record.
    """
    found: dict[str, Record] = {}
    for number, (_, line) in enumerate(whole_lines(folder / RECORDS)):
        record = Record.from_json(line)
        name = record.fingerprint or str(number)
        found.pop(name, None)
        found[name] = record
    return list(found.values())


def fingerprint_of(**facts: Any) -> str:
    """Return 16 hexadecimal digits that change with any of ``facts``; plain data."""
    text = json.dumps({**facts, "version": __version__}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _figure(fields: Mapping[str, Any]) -> Figure:
    bounds = {
        name: math.nan if fields[name] is None else float(fields[name])
        for name in ("value", "low", "high")
    }
    return Figure(**{**fields, **bounds})
