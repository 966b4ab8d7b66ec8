"""The manifest: one line of JSON per input, written as it finishes, that survives a kill.

A line is written with one call and flushed to the disk before the next picture
starts, so a killed process leaves at most one torn last line. Readers ignore
it; the next append removes it first. One process writes at a time.

An input that runs again gets a new line, which supersedes the earlier one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from scotoma.core.errors import FileError
from scotoma.core.journal import append_line, open_journal, whole_lines
from scotoma.run.entry import STATUSES, Answer, Decision, Entry
from scotoma.run.summary import ModelSummary, Summary, summarize, write_summary

__all__ = [
    "STATUSES",
    "Answer",
    "Decision",
    "Entry",
    "LatestEntries",
    "Line",
    "Manifest",
    "ModelSummary",
    "Summary",
    "latest",
    "proves_done",
    "sha256_of",
    "summarize",
    "write_summary",
]


class Line(Protocol):
    """What every kind of run says of an input, whatever more it says; see :class:`Entry`."""

    @property
    def input(self) -> str:
        """The input, as the run names it."""

    @property
    def output(self) -> str | None:
        """Its output, relative to the output folder; None where none was written."""

    @property
    def status(self) -> str:
        """What became of it; ``failed`` is always tried again."""

    @property
    def sha256_in(self) -> str | None:
        """Hash of the input's bytes; None where it could not be read."""

    @property
    def sha256_out(self) -> str | None:
        """Hash of the output's bytes."""

    @property
    def settings(self) -> str:
        """Fingerprint of the settings that made it."""

    def to_json(self) -> str:
        """Return one line of ASCII JSON, without the line's end."""


L = TypeVar("L", bound=Line)


class Manifest:
    """A manifest file, open for appending.

    Use :meth:`open`, as a context manager or with :meth:`close`.

    Example:
        >>> import tempfile
        >>> entry = Entry("a.jpg", None, "no-region", (), (), 0, 0.1, "00", None, None, "s1")
        >>> with tempfile.TemporaryDirectory() as out:
        ...     with Manifest.open(Path(out, "manifest.jsonl")) as manifest:
        ...         manifest.append(entry)
        ...         [found.status for found in manifest.entries()]
        ['no-region']
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def open(cls, path: Path) -> Manifest:
        """Open or create ``path``; what it holds stays.

        Raises:
            FileError: It cannot be opened for writing.
        """
        try:
            descriptor = open_journal(path)
        except OSError as error:
            raise FileError(
                f"expected to write the manifest {path}, got: {error}; choose another output folder"
            ) from error
        return cls(path, descriptor)

    def append(self, entry: Line) -> None:
        """Write ``entry`` as one whole line that is on the disk when this returns.

        Raises:
            FileError: The manifest is closed, or the disk does not take the line.
        """
        if self._descriptor is None:
            raise FileError(f"expected an open manifest, got {self.path} already closed")
        try:
            length, written = append_line(self._descriptor, entry.to_json())
        except OSError as error:
            raise FileError(
                f"could not write to the manifest {self.path}: {error}; "
                "make room and run again, finished pictures are skipped"
            ) from error
        if written != length:
            raise FileError(
                f"expected to write {length} bytes to {self.path}, got {written}; is the disk "
                "full? Make room and run again, finished pictures are skipped"
            )

    def entries(self) -> Iterator[Entry]:
        """Yield all entries in the order of writing, superseded ones included.

        Raises:
            FileError: A whole line is not an entry.
        """
        for _, line in whole_lines(self.path):
            yield Entry.from_json(line)

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class LatestEntries(Mapping[str, L]):
    """The last entry of each input, read from the file when it is asked for.

    Only each input's name and place in the file are held, so that a manifest of
    a million lines costs little memory. A line appended later is not seen.
    Iterates in the order in which the last entries were written.

    Args:
        path: The manifest; a file that does not exist holds no entries.
        read: Makes an entry of a line; raises :class:`FileError` where it is none.

    Raises:
        FileError: A whole line is not an entry.
    """

    def __init__(self, path: Path, read: Callable[[str], L]) -> None:
        self.path = path
        self._read = read
        self._offsets: dict[str, int] = {}
        for offset, line in whole_lines(path):
            name = read(line).input
            self._offsets.pop(name, None)  # enter it anew, so that iteration reads the file forward
            self._offsets[name] = offset

    def __getitem__(self, name: str) -> L:
        offset = self._offsets[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            return self._read(file.readline().decode("ascii", "replace"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)


def latest(path: Path) -> LatestEntries[Entry]:
    """Return the last entry per input, as a mapping from input name to entry.

    Args:
        path: The manifest; a file that does not exist holds no entries.

    Returns:
        Read-only mapping; ``.values()`` reads one entry at a time.

    Raises:
        FileError: A whole line is not an entry.
    """
    return LatestEntries(path, Entry.from_json)


def proves_done(entry: Line, input_path: Path, out_dir: Path, settings: str) -> bool:
    """Return whether ``entry`` proves that nothing is left to do for ``input_path``.

    It does if the same settings made it, the input's bytes are the same, and
    the output's bytes are what was written. A failure is always tried again.

    Args:
        entry: The input's latest entry.
        input_path: The input file as it is now.
        out_dir: The folder that ``entry.output`` is relative to.
        settings: Fingerprint of the settings of the run that asks.
    """
    if entry.status == "failed" or entry.settings != settings or entry.sha256_in is None:
        return False
    if entry.output is None:
        if entry.status != "no-region":
            return False
    elif not _has_hash(out_dir / entry.output, entry.sha256_out):
        return False
    return _has_hash(input_path, entry.sha256_in)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal, without holding them in memory.

    Raises:
        FileError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"expected a readable file at {path}, got: {error}") from error


def _has_hash(path: Path, expected: str | None) -> bool:
    try:
        return expected is not None and sha256_of(path) == expected
    except FileError:
        return False  # missing or unreadable: nothing is proven, the run will say why
