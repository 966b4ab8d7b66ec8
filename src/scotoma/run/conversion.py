"""One file in, one file out, over whole folders: what encrypting and decrypting share.

Nothing that fails writes to the output folder (fail closed), and nothing that the manifest
proves done is done again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from scotoma import __version__
from scotoma.core.errors import FileError, ScotomaError, SettingsError
from scotoma.images.formats import PICTURE_SUFFIXES
from scotoma.images.read import read_file
from scotoma.images.walk import Found, find_pictures
from scotoma.images.write import write_atomically
from scotoma.run.converters import Converted, Converter, StreamConverter
from scotoma.run.manifest import LatestEntries, Manifest, proves_done, sha256_of
from scotoma.run.releases import Releases
from scotoma.run.subject import name_of

__all__ = [
    "Conversion",
    "ConversionSummary",
    "Converted",
    "Converter",
    "StreamConverter",
    "convert_all",
    "fingerprint_of",
]

_STATUSES = ("ok", "failed")


@dataclass(frozen=True)
class Conversion:
    """What became of one input: a line of the manifest.

    Args:
        input: The file, as the run names it; a later line supersedes an earlier one.
        output: The written file, relative to the output folder; None if nothing was written.
        status: ``ok`` or ``failed``.
        seconds: Time spent on this file.
        sha256_in: Hash of the input's bytes; None if it could not be read.
        sha256_out: Hash of the output's bytes.
        error: What went wrong, in one sentence; set where ``status`` is ``failed``.
        settings: Fingerprint of the settings that made it.
        facts: More, by the kind of run.

    Raises:
        SettingsError: An unknown status, or a failure that gives no reason.
    """

    input: str
    output: str | None
    status: str
    seconds: float
    sha256_in: str | None
    sha256_out: str | None
    error: str | None
    settings: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in _STATUSES:
            raise SettingsError(f"expected a status out of {_STATUSES}, got {self.status!r}")
        if self.status == "failed" and not self.error:
            raise SettingsError(f"expected the error that made {self.input} fail, got none")

    def to_json(self) -> str:
        """Return one line of JSON, without the line's end; only ASCII."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Conversion:
        """Read what :meth:`to_json` wrote.

        Raises:
            FileError: The line is not such an entry.
        """
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise FileError(
                f"expected a manifest entry of this command, got {line[:80]!r} ({error}); was this "
                "file written by another command or version? Choose another output folder"
            ) from error


@dataclass(frozen=True)
class ConversionSummary:
    """What a run did, in figures.

    Args:
        images: Inputs.
        failed: Inputs that could not be converted.
        seconds: Duration of the run.
        facts: More, by the kind of run; no secret among them.
        version: Of Scotoma.
    """

    images: int
    failed: int
    seconds: float
    facts: Mapping[str, Any]
    version: str = __version__

    @property
    def images_per_second(self) -> float:
        """Inputs per second; 0 for a run that took no time."""
        return self.images / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "images": self.images,
            "failed": self.failed,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            **self.facts,
            "version": self.version,
        }


def convert_all(
    inputs: Sequence[Path],
    out: Path,
    converter: Converter | StreamConverter,
    *,
    facts: Mapping[str, Any],
    suffixes: Collection[str] = PICTURE_SUFFIXES,
    on_progress: Callable[[Conversion, bool], None] | None = None,
) -> ConversionSummary:
    """Convert files into ``out`` and return the summary, also written there.

    Args:
        inputs: Files and folders.
        out: Output folder; mirrors the input tree and holds ``manifest.jsonl`` and
            ``summary.json``. What an earlier run finished is skipped.
        converter: Does it.
        facts: Public settings for the summary.
        suffixes: What counts in a folder.
        on_progress: Called after each file with its line, and whether it was skipped.

    Raises:
        FileError: An input is missing, or ``out`` cannot be written.
    """
    begun = time.perf_counter()
    walk = find_pictures(inputs, exclude=out, suffixes=suffixes)  # refuses before making anything
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the output folder {out}: {error}") from error
    path = out / "manifest.jsonl"
    images = failed = 0
    with _Folder.open(out, path, converter) as folder:
        for found in walk:
            line, is_skipped = folder.settle(found)
            images += 1
            failed += line.status == "failed"
            if on_progress:
                on_progress(line, is_skipped)
    seconds = time.perf_counter() - begun
    summary = ConversionSummary(images, failed, seconds, dict(facts))
    content = json.dumps(summary.to_dict(), indent=2) + "\n"
    write_atomically(out / "summary.json", content.encode("utf-8"))
    return summary


def fingerprint_of(**facts: Any) -> str:
    """Return 16 hexadecimal digits that change with any of ``facts``, or with the version."""
    text = json.dumps({**facts, "version": __version__}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Folder:
    """An output folder with its manifest, open for a run."""

    def __init__(
        self, out: Path, manifest: Manifest, converter: Converter | StreamConverter
    ) -> None:
        self._out = out
        self._manifest = manifest
        self._converter = converter
        self._earlier = LatestEntries(manifest.path, Conversion.from_json)
        self._releases = Releases(out, self._earlier, private=converter.private)

    @classmethod
    def open(cls, out: Path, path: Path, converter: Converter | StreamConverter) -> _Folder:
        LatestEntries(path, Conversion.from_json)  # another command's folder stays as it is
        return cls(out, Manifest.open(path), converter)

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self._manifest.close()

    def settle(self, found: Found) -> tuple[Conversion, bool]:
        """Return what became of an input, and whether an earlier run had finished it."""
        earlier = self._earlier.get(name_of(found))
        if earlier and proves_done(earlier, found.path, self._out, self._converter.fingerprint):
            return earlier, True
        begun = time.perf_counter()
        try:
            return self._convert(found, begun), False
        except Exception as error:  # whatever is wrong with one file, the run goes on
            return self._fail(found, begun, error), False

    def _convert(self, found: Found, begun: float) -> Conversion:
        if isinstance(self._converter, StreamConverter):
            return self._convert_file(self._converter, found, begun)
        data = read_file(found.path)
        converted = self._converter.convert(data, found.path.name)
        sha256 = hashlib.sha256(converted.data).hexdigest()
        sha256_in = hashlib.sha256(data).hexdigest()
        return self._write(converted.data, found, begun, (sha256_in, sha256), converted.facts)

    def _convert_file(self, converter: StreamConverter, found: Found, begun: float) -> Conversion:
        before = sha256_of(found.path)
        with tempfile.TemporaryFile(dir=self._out) as scratch:
            facts = converter.convert_file(found.path, scratch)
            if sha256_of(found.path) != before:
                raise FileError(
                    f"{found.path.name}: expected a file that stays as it is, got one that "
                    "changed meanwhile; run again when it is complete"
                )
            scratch.seek(0)
            sha256 = hashlib.file_digest(scratch, "sha256").hexdigest()
            scratch.seek(0)
            return self._write(scratch, found, begun, (before, sha256), facts)

    def _write(
        self,
        data: bytes | BinaryIO,
        found: Found,
        begun: float,
        hashes: tuple[str, str],
        facts: Mapping[str, Any],
    ) -> Conversion:
        sha256_in, sha256 = hashes
        line = Conversion(
            input=name_of(found),
            output=self._releases.place(found, self._converter.suffix, sha256),
            status="ok",
            seconds=round(time.perf_counter() - begun, 4),
            sha256_in=sha256_in,
            sha256_out=sha256,
            error=None,
            settings=self._converter.fingerprint,
            facts=facts,
        )
        self._releases.write(data, line, self._manifest.append)
        return line

    def _fail(self, found: Found, begun: float, error: Exception) -> Conversion:
        self._releases.withdraw(name_of(found))
        known = isinstance(error, ScotomaError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        line = Conversion(
            input=name_of(found),
            output=None,
            status="failed",
            seconds=round(time.perf_counter() - begun, 4),
            sha256_in=None,
            sha256_out=None,
            error=text or type(error).__name__,
            settings=self._converter.fingerprint,
        )
        self._manifest.append(line)
        return line
