"""The output folder: whose each file is, and how one comes and goes with its manifest line."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar

from scotoma.core.errors import FileError, UnsafePathError
from scotoma.images.walk import Found, output_path
from scotoma.images.write import check_output_path, write_atomically
from scotoma.run.manifest import Line, sha256_of
from scotoma.run.subject import name_of

__all__ = ["Releases"]

L = TypeVar("L", bound=Line)


class Releases:
    """The released files of a run and of those before it.

    Args:
        out: The output folder.
        earlier: What its manifest holds; files that it does not speak of are not replaced.
        private: Whether only the user who runs this may read the files.
    """

    def __init__(self, out: Path, earlier: Mapping[str, Line], *, private: bool = False) -> None:
        self._out = out
        self._private = private
        self._earlier = earlier
        self._owners = {
            entry.output: name for name, entry in earlier.items() if entry.output is not None
        }

    def place(self, found: Found, suffix: str, sha256: str) -> str:
        """Return the name, relative to the output folder, of an input's release.

        Args:
            found: The input.
            suffix: Of the release, with its dot.
            sha256: Of the release; a file that holds just this may be replaced by it.

        Raises:
            UnsafePathError: What lies there is an original, another input's release, or a
                file that no run wrote.
        """
        path = output_path(found, self._out, suffix)
        name = path.relative_to(self._out).as_posix()
        check_output_path(path, [found.path])
        if name not in self._owners and path.exists() and sha256_of(path) != sha256:
            raise UnsafePathError(
                f"expected no file at {path}, got one that scotoma did not write; "
                "choose another output folder"
            )
        owner = self._owners.setdefault(name, name_of(found))
        if owner != name_of(found):
            raise UnsafePathError(
                f"expected a free name for the output, got {path}, which belongs to {owner}; "
                "choose another output folder"
            )
        return name

    def write(self, data: bytes | BinaryIO, entry: L, record: Callable[[L], None]) -> None:
        """Write a picture and its line in the manifest, or neither.

        The line comes first, while the picture still has its hidden name: a run killed in
        between leaves a line that proves nothing, never a file that nothing accounts for.

        Args:
            data: The file's content, or an open file that holds it.
            entry: Its line; ``output`` says where it goes, ``sha256_out`` is of ``data``.
            record: Appends the line.

        Raises:
            FileError: The file or the line cannot be written.
        """

        def check_and_record(part: Path) -> None:
            found = sha256_of(part)
            wanted = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else found
            if not found == entry.sha256_out == wanted:
                raise FileError(f"{part} does not hold what was written to it; check the disk")
            if self._private:
                part.chmod(0o600)
            record(entry)

        if entry.output is None:
            raise FileError(f"expected a place for the release of {entry.input}, got none")
        self.withdraw(entry.input, unless=entry.output)
        try:
            write_atomically(self._out / entry.output, data, before_rename=check_and_record)
        except Exception:
            self._remove(entry)
            raise

    def withdraw(self, name: str, *, unless: str | None = None) -> None:
        """Remove what an earlier run released for an input and no line will speak of any more.

        It was made with other settings, perhaps weaker ones, or from another picture.

        Args:
            name: The input, as the manifest knows it.
            unless: An output that stays, since it is about to be replaced.
        """
        entry = self._earlier.get(name)
        if entry and entry.output != unless:
            self._remove(entry)

    def _remove(self, entry: Line) -> None:
        """Remove an entry's output, unless someone changed it and so made it theirs."""
        if entry.output is None:
            return
        path = self._out / entry.output
        with contextlib.suppress(OSError):
            if sha256_of(path) == entry.sha256_out:
                path.unlink()
