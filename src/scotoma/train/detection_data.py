"""Pictures with boxes for training detectors: COCO files, random views, padded batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from scotoma.core.errors import FileError, SettingsError
from scotoma.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from scotoma.train.hardware import Share, generator_for
from scotoma.train.sources import order_of

__all__ = ["Batch", "BoxSource", "BoxedPicture", "Views", "collate", "read_boxes", "take_view"]


@dataclass(frozen=True, eq=False)
class BoxedPicture:
    """A picture file and what is annotated in it.

    Args:
        path: The file.
        corners: ``(N, 4)`` x0, y0, x1, y1 in pixels.
        labels: ``(N,)`` index into the class names.
    """

    path: Path
    corners: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Views:
    """How pictures are scaled, at training and later.

    Args:
        shorter: Lengths of the shorter side; one is drawn at training, the last is used later.
        longest: The longer side's limit.
        patch_size: Sides are rounded to multiples of it.
        crop_probability: Chance that a training picture is first cropped to between half and
            all of each side.
    """

    shorter: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    longest: int = 1333
    patch_size: int = 16
    crop_probability: float = 0.5

    def __post_init__(self) -> None:
        if not (self.shorter and self.patch_size >= 1 and min(self.shorter) >= self.patch_size):
            raise SettingsError(
                f"expected shorter sides of at least one patch of {self.patch_size}, "
                f"got {self.shorter}"
            )
        if not (self.longest >= max(self.shorter) and 0 <= self.crop_probability <= 1):
            raise SettingsError(
                "expected longest to be no less than the shorter sides and crop_probability in "
                f"[0, 1], got {self.longest} and {self.crop_probability}"
            )


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of one canvas, zeros to the right and below.

    Args:
        images: ``(B, 3, H, W)`` float32, normalized.
        boxes: For each, ``(N, 4)`` centre x, centre y, width, height as fractions of the canvas.
        labels: For each, ``(N,)`` int64.
    """

    images: Tensor
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]


def read_boxes(annotations: Path, images: Path) -> tuple[tuple[BoxedPicture, ...], tuple[str, ...]]:
    """Return the pictures of a COCO file and its class names in the order of their ids.

    Crowds and empty boxes are left out; pictures without a box stay, they teach what is nothing.

    Args:
        annotations: COCO JSON with ``images``, ``annotations`` and ``categories``.
        images: Folder of the picture files.

    Raises:
        FileError: The file cannot be read, is not COCO JSON, or lists no picture.
    """
    try:
        data = json.loads(annotations.read_text("utf-8"))
        categories = sorted(data["categories"], key=lambda category: category["id"])
        numbers = {category["id"]: number for number, category in enumerate(categories)}
        boxes: dict[object, list[list[float]]] = {image["id"]: [] for image in data["images"]}
        for entry in data["annotations"]:
            x, y, width, height = (float(value) for value in entry["bbox"])
            if not entry.get("iscrowd") and width > 0 and height > 0:
                number = numbers[entry["category_id"]]
                boxes[entry["image_id"]].append([x, y, x + width, y + height, number])
        pictures = tuple(
            _boxed(images / image["file_name"], boxes[image["id"]]) for image in data["images"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"expected COCO JSON with boxes in {annotations}, got {error!r}") from error
    if not pictures:
        raise FileError(f"expected pictures in {annotations}, found none")
    return pictures, tuple(str(category["name"]) for category in categories)


def _boxed(path: Path, rows: list[list[float]]) -> BoxedPicture:
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return BoxedPicture(path, table[:, :4], table[:, 4].astype(np.int64))


def take_view(
    picture: Image.Image,
    corners: NDArray[np.float64],
    views: Views,
    generator: Generator | None = None,
) -> tuple[Tensor, NDArray[np.float64], NDArray[np.bool_]]:
    """Return a picture as the detector reads it, and its boxes there.

    Args:
        picture: RGB.
        corners: ``(N, 4)`` x0, y0, x1, y1 in pixels.
        views: Settings.
        generator: For a random crop, mirroring and scale; None for the plain view.

    Returns:
        ``(3, H, W)`` float32, the boxes in its pixels, and which of them are still in it.
    """
    shorter = views.shorter[-1]
    corners = corners.copy()
    if generator is not None:
        draws = torch.rand(7, generator=generator).tolist()
        if draws[0] < views.crop_probability:
            picture, corners = _crop(picture, corners, draws[3:])
        if draws[1] < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            corners[:, [0, 2]] = picture.width - corners[:, [2, 0]]
        shorter = views.shorter[int(draws[2] * len(views.shorter))]
    width, height = picture.size
    scale = min(shorter / min(width, height), views.longest / max(width, height))
    sides = [
        max(1, round(side * scale / views.patch_size)) * views.patch_size
        for side in (width, height)
    ]
    corners *= np.array([sides[0] / width, sides[1] / height] * 2)
    there = np.logical_and(*(corners[:, 2:] - corners[:, :2] >= 1).T)
    pixels = np.asarray(picture.resize((sides[0], sides[1]), Image.Resampling.BILINEAR))
    scaled = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (scaled - mean) / std, corners, there


def _crop(
    picture: Image.Image, corners: NDArray[np.float64], draws: list[float]
) -> tuple[Image.Image, NDArray[np.float64]]:
    width = max(1, int(picture.width * (0.5 + 0.5 * draws[0])))
    height = max(1, int(picture.height * (0.5 + 0.5 * draws[1])))
    left = int(draws[2] * (picture.width - width + 1))
    top = int(draws[3] * (picture.height - height + 1))
    moved = corners - np.array([left, top] * 2)
    limits = np.array([width, height] * 2)
    return picture.crop((left, top, left + width, top + height)), moved.clip(0, limits)


def collate(items: Sequence[tuple[Tensor, NDArray[np.float64], NDArray[np.int64]]]) -> Batch:
    """Put pictures of any sizes on one canvas, each at the top left.

    Args:
        items: For each picture ``(3, H, W)``, its boxes' corners in pixels, and their labels.
    """
    height = max(image.shape[1] for image, _, _ in items)
    width = max(image.shape[2] for image, _, _ in items)
    canvas = torch.zeros(len(items), 3, height, width)
    for place, (image, _, _) in zip(canvas, items, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    scale = torch.tensor([width, height] * 2, dtype=torch.float32)
    boxes = []
    for _, corners, _ in items:
        low, high = torch.split(torch.from_numpy(corners).float(), 2, dim=1)
        boxes.append(torch.cat([(low + high) / 2, high - low], dim=1) / scale)
    labels = tuple(torch.from_numpy(labels) for _, _, labels in items)
    return Batch(canvas, tuple(boxes), labels)


class BoxSource:
    """Pictures with boxes, read from their files by workers as they are needed.

    Args:
        pictures: As :func:`read_boxes` returns them.
        views: How they are scaled.
        workers: Processes that read; 0 to read in this one.
    """

    def __init__(self, pictures: Sequence[BoxedPicture], views: Views, *, workers: int = 0) -> None:
        self._pictures = pictures
        self._views = views
        self._workers = workers
        self.count = len(pictures)

    def training(self, epoch: int, batch_size: int, seed: int, share: Share) -> Iterator[Batch]:
        """Yield random views of an epoch: this process' share."""
        batches = order_of(self.count, epoch, batch_size, seed, share)
        return self._load(batches, (seed, epoch))

    def evaluation(self, share: Share, batch_size: int = 8) -> Iterator[Batch]:
        """Yield every picture once, as it is."""
        chosen = torch.arange(share.rank, self.count, share.world)
        return self._load(list(torch.split(chosen, batch_size)), None)

    def _load(self, batches: list[Tensor], draw: tuple[int, int] | None) -> Iterator[Batch]:
        loader: DataLoader[Batch] = DataLoader(
            _Boxes(self._pictures, self._views, draw),  # type: ignore[arg-type]
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=self._workers,
            collate_fn=collate,
            # The loader draws a seed for its workers, which use none.
            generator=Generator().manual_seed(0),
        )
        return iter(loader)


class _Boxes(Dataset[tuple[Tensor, NDArray[np.float64], NDArray[np.int64]]]):
    def __init__(
        self, pictures: Sequence[BoxedPicture], views: Views, draw: tuple[int, int] | None
    ) -> None:
        self._pictures = pictures
        self._views = views
        self._draw = draw

    def __getitem__(self, index: int) -> tuple[Tensor, NDArray[np.float64], NDArray[np.int64]]:
        item = self._pictures[index]
        # Each picture's own stream: the same view on any number of workers.
        generator = (
            generator_for(self._draw[0], "view", self._draw[1], index) if self._draw else None
        )
        try:
            with Image.open(item.path) as picture:
                image, corners, there = take_view(
                    picture.convert("RGB"), item.corners, self._views, generator
                )
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise FileError(f"cannot read {item.path}: {error}") from error
        return image, corners[there], item.labels[there]
