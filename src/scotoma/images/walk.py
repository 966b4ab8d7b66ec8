"""Finds the pictures that a command names, and where each one's output goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scotoma.core.errors import FileError, UnsafePathError
from scotoma.images.formats import PICTURE_SUFFIXES

__all__ = ["Found", "find_pictures", "output_path"]


@dataclass(frozen=True)
class Found:
    """One input.

    Args:
        path: Where it is.
        relative: Where it is within the inputs; the output mirrors that.
        crowded: Its name without suffix is also another input's beside it, so its
            output keeps its whole name.
    """

    path: Path
    relative: Path
    crowded: bool = False


def find_pictures(
    inputs: Sequence[Path],
    *,
    exclude: Path | None = None,
    suffixes: Collection[str] = PICTURE_SUFFIXES,
) -> Iterator[Found]:
    """Find files in the order of ``inputs``, and sorted by name within each folder.

    A folder is walked as the result is consumed, one listing in memory at a time.
    Hidden files are passed over, and so is what has no picture's suffix; a file that is
    named itself always counts. ``relative`` starts at the one folder that is given, or at
    the deepest folder that holds all inputs. A linked folder is followed once, and only
    out of what is walked anyway, so no loop and no file comes twice.

    Args:
        inputs: Files and folders.
        exclude: The output folder, which may lie within an input.
        suffixes: What counts in a folder, in lower case with its dot.

    Returns:
        An iterator over the inputs found.

    Raises:
        FileError: An input does not exist.
        UnsafePathError: ``exclude`` is itself an input.
    """
    named = list(dict.fromkeys(Path(os.path.abspath(path)) for path in inputs))
    for path in named:
        if not os.path.lexists(path):
            raise FileError(f"expected a picture or a folder, got {path}, which does not exist")
        if exclude is not None and path.is_dir() and _real(path) == _real(exclude):
            raise UnsafePathError(
                f"expected an output folder beside the input, got {exclude} as both; "
                "choose another output folder"
            )
    return _walk_all(named, exclude, suffixes)


def output_path(found: Found, out: Path, suffix: str) -> Path:
    """Return where the output of ``found`` goes: ``a/b.jpg`` to ``out/a/b.png``.

    Where ``b.jpg`` and ``b.tif`` lie in one folder they become ``b.jpg.png`` and
    ``b.tif.png``. The rule reads nothing but the inputs' names, so it is the same when a
    run is resumed.

    Args:
        found: The input.
        out: The output folder.
        suffix: The output's suffix, with its dot.

    Returns:
        The path, different for every input.
    """
    relative = found.relative
    name = (relative.name if found.crowded else relative.stem) + suffix
    return out / relative.with_name(name)


def _walk_all(
    named: list[Path], exclude: Path | None, suffixes: Collection[str]
) -> Iterator[Found]:
    folders = {path for path in named if path.is_dir()}
    files = [path for path in named if path not in folders]
    crowded = {
        parent / name
        for parent in {path.parent for path in files}
        for name in _crowded([path.name for path in files if path.parent == parent])
    }
    base = _common_folder([*folders, *(path.parent for path in files)])
    walk = _Walk(base, set(named), [_real(folder) for folder in sorted(folders)], exclude, suffixes)
    for path in named:
        if path in folders:
            yield from walk.folder(path)
        else:
            yield Found(path, path.relative_to(base), path in crowded)


@dataclass(frozen=True)
class _Walk:
    """What stays the same while folders are walked, except ``trees``, which grows by each link."""

    base: Path
    named: set[Path]
    trees: list[Path]
    exclude: Path | None
    suffixes: Collection[str]

    def folder(self, folder: Path) -> Iterator[Found]:
        if self.exclude is not None and _real(folder) == _real(self.exclude):
            return
        try:
            names, subfolders = _list(folder, self.suffixes)
        except OSError:
            # Reading it as a picture fails with the reason, and that becomes its record.
            yield Found(folder, folder.relative_to(self.base))
            return
        # A folder called a.png is in the way of an output a.png; a folder called a is not.
        crowded = _crowded(name for name in names if _has_suffix(name, self.suffixes))
        for name in names:
            path = folder / name
            if path in self.named:
                continue  # it comes, or came, on its own account
            if name not in subfolders:
                yield Found(path, path.relative_to(self.base), name in crowded)
            elif not path.is_symlink() or self._is_new_tree(path):
                yield from self.folder(path)

    def _is_new_tree(self, link: Path) -> bool:
        """Whether a linked folder lies outside of all that is walked, and holds none of it."""
        target = _real(link)
        if any(target.is_relative_to(t) or t.is_relative_to(target) for t in self.trees):
            return False
        self.trees.append(target)
        return True


def _list(folder: Path, suffixes: Collection[str]) -> tuple[list[str], set[str]]:
    """Return the sorted names of subfolders and files that count, and which are subfolders."""
    names, subfolders = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                subfolders.add(entry.name)
            elif not _has_suffix(entry.name, suffixes):
                continue
            names.append(entry.name)
    return sorted(names), subfolders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes


def _crowded(names: Iterable[str]) -> set[str]:
    """Return the names whose output would be another's if it lost its suffix.

    That is where two share a stem, or one's stem is another's whole name (``a.jpg.png``
    beside ``a.jpg``, which may itself become ``a.jpg.png``). Case does not count, as it
    does not on many disks.
    """
    folded = {name: name.casefold() for name in names}
    stems = {name: os.path.splitext(low)[0] for name, low in folded.items()}
    counts, whole = Counter(stems.values()), set(folded.values())
    return {name for name, stem in stems.items() if counts[stem] > 1 or stem in whole}


def _common_folder(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders)) if folders else Path.cwd()
    except ValueError as error:
        raise FileError("expected inputs on one drive, got several; run once for each") from error


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
