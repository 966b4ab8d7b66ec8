"""Labelled pictures in memory, from a folder or a zip of class folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from scotoma.core.errors import FileError
from scotoma.images.picture_sets import PictureSet, open_picture_set
from scotoma.models.preprocessing import Preprocessing

__all__ = ["LabelledPictures", "list_class_folders", "load_class_folders", "normalize"]


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
    labelled: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> LabelledPictures:
    """Read every picture of a folder or zip laid out as ``CLASS/NAME.jpg``.

    Args:
        source: Folder or ``.zip``; a picture's class is the name of the folder it lies in.
        preprocessing: Decides size, filter and crop; normalization is left to the caller.
        labelled: Whether labels are needed; if not, pictures may lie anywhere, and are one class.
        on_progress: Called with (pictures read, pictures in all) now and then.

    Raises:
        FileError: Nothing readable there, or fewer than two classes.
    """
    pictures, numbers, classes = _open(source, labelled=labelled)
    _, height, width = preprocessing.input_size
    images = torch.empty(len(numbers), 3, height, width, dtype=torch.uint8)
    labels = torch.tensor(numbers)
    read = preprocessing.in_unit_range().transform
    for number, content in enumerate(pictures.contents()):
        try:
            picture = Image.open(BytesIO(content)).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            entry = pictures.entries[number].path
            raise FileError(f"cannot read {entry} in {source}: {error}") from error
        images[number] = (read(picture) * 255).round().byte()
        if on_progress and (number % 500 == 499 or number + 1 == len(images)):
            on_progress(number + 1, len(images))
    return LabelledPictures(images, labels, classes)


def list_class_folders(
    root: Path, *, labelled: bool = True
) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Return files, labels and class names of a folder laid out as ``CLASS/NAME.jpg``.

    Args:
        root: The folder.
        labelled: See :func:`load_class_folders`.

    Raises:
        FileError: No such folder, no pictures, or fewer than two classes.
    """
    if not root.is_dir():
        raise FileError(f"expected a folder of class folders, got {root}")
    pictures, numbers, classes = _open(root, labelled=labelled)
    return [Path(entry.path) for entry in pictures.entries], numbers, classes


def normalize(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return ``(B, 3, H, W)`` uint8 pictures as the network reads them, channels last in memory."""
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    scaled = (images.float() / 255 - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


def _open(source: Path, *, labelled: bool) -> tuple[PictureSet, list[int], tuple[str, ...]]:
    """List a set's pictures that lie in class folders; number each one's class by the alphabet."""
    found = open_picture_set(source)
    if not labelled:
        if not found.entries:
            raise FileError(f"expected pictures in {source}, found none")
        return found, [0] * len(found.entries), ("picture",)
    pictures = PictureSet(source, tuple(entry for entry in found.entries if entry.group))
    if not pictures.entries:
        raise FileError(f"expected pictures as CLASS/NAME.jpg in {source}, found none")
    classes = pictures.groups
    if len(classes) < 2:
        raise FileError(f"expected at least two class folders in {source}, found {classes}")
    index = {name: number for number, name in enumerate(classes)}
    return pictures, [index[entry.group] for entry in pictures.entries], classes
