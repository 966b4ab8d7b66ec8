"""Sets of pictures with a group each: class or identity folders, plain or zipped, and tables.

::

    FOLDER/GROUP/NAME.jpg     the group is the name of the folder that a picture lies in
    FILE.zip                  the same inside an archive
    FILE.csv                  columns file and label, and name if there is one; pictures lie in
                              the folder of the table's name without .csv
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scotoma.core.errors import FileError

__all__ = ["PICTURE_SET_SUFFIXES", "Listed", "PictureSet", "open_picture_set"]

PICTURE_SET_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""What is taken for a picture."""


@dataclass(frozen=True)
class Listed:
    """One picture of a set.

    Args:
        path: Of the file, or of the member of an archive.
        group: Class or identity; empty for a picture that lies in no folder of its own.
        label: Number of the class where a table says so; -1 otherwise.
    """

    path: str
    group: str
    label: int = -1


@dataclass(frozen=True)
class PictureSet:
    """Pictures that are listed and not read yet.

    Args:
        source: Folder, archive or table.
        entries: Sorted by path; a table's in its own order.
    """

    source: Path
    entries: tuple[Listed, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, sorted."""
        return tuple(sorted({entry.group for entry in self.entries}))

    def contents(self, places: Iterable[int] | None = None) -> Iterator[bytes]:
        """Yield the contents of the pictures at ``places``, or of all.

        Raises:
            FileError: One of them cannot be read.
        """
        chosen = range(len(self.entries)) if places is None else places
        if self.source.suffix.lower() == ".zip":
            yield from self._members(chosen)
            return
        for place in chosen:
            path = Path(self.entries[place].path)
            try:
                yield path.read_bytes()
            except OSError as error:
                raise FileError(f"cannot read {path} of {self.source}: {error}") from error

    def _members(self, places: Iterable[int]) -> Iterator[bytes]:
        with zipfile.ZipFile(self.source) as archive:
            for place in places:
                name = self.entries[place].path
                try:
                    yield archive.read(name)
                except (OSError, KeyError, zipfile.BadZipFile) as error:
                    raise FileError(f"cannot read {name} in {self.source}: {error}") from error


def open_picture_set(source: Path) -> PictureSet:
    """List the pictures of a folder, ``.zip`` or ``.csv``.

    Raises:
        FileError: None of these, or one without pictures.
    """
    suffix = source.suffix.lower()
    if suffix == ".zip":
        entries = _list_archive(source)
    elif suffix == ".csv":
        entries = _list_table(source)
    else:
        entries = _list_folder(source)
    if not entries:
        raise FileError(f"expected pictures as CLASS/NAME.jpg in {source}, found none")
    return PictureSet(source, tuple(entries))


def _list_folder(root: Path) -> list[Listed]:
    if not root.is_dir():
        raise FileError(f"expected a folder or .zip of class folders, got {root}")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in PICTURE_SET_SUFFIXES)
    return [Listed(str(path), "" if path.parent == root else path.parent.name) for path in files]


def _list_archive(path: Path) -> list[Listed]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise FileError(f"expected a zip of class folders at {path}, got: {error}") from error
    return [
        Listed(name, Path(name).parent.name)
        for name in names
        if Path(name).suffix.lower() in PICTURE_SET_SUFFIXES
    ]


def _list_table(path: Path) -> list[Listed]:
    folder = path.with_suffix("")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise FileError(f"expected a table with columns file,label at {path}: {error}") from error
    try:
        return [
            Listed(str(folder / row["file"]), row.get("name") or row["label"], int(row["label"]))
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"expected columns file and label (a whole number) in {path}, got {error}"
        ) from error
