"""What split networks learn from, are tested on, and are attacked with."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.pictures import IMAGENET, SHARED
from scotoma.models.config import imagenet_names
from scotoma.models.preprocessing import Preprocessing
from scotoma.train.data import LabelledPictures, load_class_folders, normalize
from scotoma.train.sources import MemorySource

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Pictures", "open_pictures"]

_AUXILIARY = 20_000
_JUDGED = 1000


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures as a model reads them, before it normalizes them.

    Args:
        train: ``(N, 3, H, W)`` uint8.
        labels: ``(N,)``.
        test: ``(M, 3, H, W)`` uint8, none of which is in ``train``.
        test_labels: ``(M,)``.
        classes: Names of the labels.
        preprocessing: Of the model.
    """

    train: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    @property
    def auxiliary(self) -> Tensor:
        """What attackers learn from: training pictures in [0, 1]."""
        return self.train[:_AUXILIARY].float() / 255

    @property
    def judged(self) -> Tensor:
        """Test pictures in [0, 1] that guesses are held against."""
        return self.test[:_JUDGED].float() / 255

    def normalized(self, images: Tensor) -> Tensor:
        """Return pictures, uint8 or in [0, 1], as the network reads them."""
        if images.dtype == torch.uint8:
            return normalize(images, self.preprocessing).contiguous()
        mean = torch.tensor(self.preprocessing.mean).view(3, 1, 1)
        std = torch.tensor(self.preprocessing.std).view(3, 1, 1)
        return (images - mean) / std

    def source(self) -> MemorySource:
        """Return the training pictures as batches, mirrored at random."""
        pictures = LabelledPictures(self.train, self.labels, self.classes)
        return MemorySource(pictures, self.preprocessing)


def open_pictures(model: str, preprocessing: Preprocessing, *, quick: bool) -> Pictures:
    """Return CIFAR-10, or for ``mobilenetv2`` the ImageNet pictures, shuffled.

    Args:
        model: Short name.
        preprocessing: The model's.
        quick: A few pictures.
    """
    if model != "mobilenetv2":
        folder = SHARED / "data" / "cifar10"
        test = load_class_folders(folder / "test.zip", preprocessing)
        train = test if quick else load_class_folders(folder / "train.zip", preprocessing)
        parts = [_shuffled(part.images, part.labels, quick) for part in (train, test)]
        return Pictures(*parts[0], *parts[1], train.classes, preprocessing)
    entries = [(IMAGENET / row["file"], int(row["label"])) for row in _rows("val.csv")]
    entries.sort()
    # Every second picture of the validation set learns; tests never see it.
    learned = entries[::2] + [
        (IMAGENET / row["file"], int(row["label"])) for row in _rows("samples.csv")
    ]
    return Pictures(
        *_shuffled(*_read(learned, preprocessing), quick),
        *_shuffled(*_read(entries[1::2], preprocessing), quick),
        imagenet_names(),
        preprocessing,
    )


def _rows(name: str) -> list[dict[str, str]]:
    folder = name.removesuffix(".csv")
    with (IMAGENET / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if not row["file"].startswith(folder):
            row["file"] = f"{folder}/{row['file']}"
    return rows


def _read(
    entries: Sequence[tuple[Path, int]], preprocessing: Preprocessing
) -> tuple[Tensor, Tensor]:
    from PIL import Image

    transform = preprocessing.in_unit_range().transform
    images = torch.stack(
        [(transform(Image.open(path).convert("RGB")) * 255).round().byte() for path, _ in entries]
    )
    return images, torch.tensor([label for _, label in entries])


def _shuffled(images: Tensor, labels: Tensor, quick: bool) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    order = order[:400] if quick else order
    return images[order], labels[order]
