"""Labelled pictures in memory, from a folder or a zip of class folders."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scotoma.core.errors import FileError
from scotoma.models.preprocessing import Preprocessing

__all__ = ["LabelledPictures", "list_class_folders", "load_class_folders", "normalize"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures of one size with their labels.

    Args:
        images: ``(N, 3, H, W)`` uint8, resized and cropped as the model reads them.
        labels: ``(N,)`` int64, index into ``classes``.
        classes: Folder names, sorted.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def load_class_folders(
    source: Path,
    preprocessing: Preprocessing,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> LabelledPictures:
    """Read every picture of a folder or zip laid out as ``CLASS/NAME.jpg``.

    Args:
        source: Folder or ``.zip``; a picture's class is the name of the folder it lies in.
        preprocessing: Decides size, filter and crop; normalization is left to the caller.
        on_progress: Called with (pictures read, pictures in all) now and then.

    Raises:
        FileError: Nothing readable there, or fewer than two classes.
    """
    reader = _ZipReader(source) if source.suffix.lower() == ".zip" else _FolderReader(source)
    numbers, classes = _number_classes(reader.entries, source)
    _, height, width = preprocessing.input_size
    images = torch.empty(len(reader.entries), 3, height, width, dtype=torch.uint8)
    labels = torch.tensor(numbers)
    # The evaluation transform up to, but without, scaling and normalization.
    geometry = getattr(preprocessing.transform, "transforms", ())[:-2]
    for number, stream in enumerate(reader.streams()):
        try:
            picture = Image.open(stream).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            entry = reader.entries[number][1]
            raise FileError(f"cannot read {entry} in {source}: {error}") from error
        for step in geometry:
            picture = step(picture)
        images[number] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        if on_progress and (number % 500 == 499 or number + 1 == len(images)):
            on_progress(number + 1, len(images))
    return LabelledPictures(images, labels, classes)


def list_class_folders(root: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Return files, labels and class names of a folder laid out as ``CLASS/NAME.jpg``.

    Raises:
        FileError: No such folder, no pictures, or fewer than two classes.
    """
    entries = _FolderReader(root).entries
    numbers, classes = _number_classes(entries, root)
    return [Path(path) for _, path in entries], numbers, classes


def normalize(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return ``(B, 3, H, W)`` uint8 pictures as the network reads them, channels last in memory."""
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    scaled = (images.float() / 255 - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


def _number_classes(
    entries: list[tuple[str, str]], source: Path
) -> tuple[list[int], tuple[str, ...]]:
    """Number each entry's class by the alphabet."""
    if len(entries) == 0:
        raise FileError(f"expected pictures as CLASS/NAME.jpg in {source}, found none")
    classes = tuple(sorted({name for name, _ in entries}))
    if len(classes) < 2:
        raise FileError(f"expected at least two class folders in {source}, found {classes}")
    index = {name: number for number, name in enumerate(classes)}
    return [index[name] for name, _ in entries], classes


class _FolderReader:
    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileError(f"expected a folder or .zip of class folders, got {root}")
        files = sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES)
        self._files = [path for path in files if path.parent != root]
        self.entries = [(path.parent.name, str(path)) for path in self._files]

    def streams(self) -> Iterator[BytesIO]:
        for path in self._files:
            yield BytesIO(path.read_bytes())


class _ZipReader:
    def __init__(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                names = sorted(archive.namelist())
        except (OSError, zipfile.BadZipFile) as error:
            raise FileError(f"expected a zip of class folders at {path}, got: {error}") from error
        self._path = path
        self.entries = [
            (Path(name).parent.name, name)
            for name in names
            if Path(name).suffix.lower() in _SUFFIXES and Path(name).parent.name
        ]

    def streams(self) -> Iterator[BytesIO]:
        with zipfile.ZipFile(self._path) as archive:
            for _, name in self.entries:
                yield BytesIO(archive.read(name))
