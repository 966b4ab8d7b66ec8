"""Regions read from and written to COCO JSON files.

What :func:`write_coco` writes can be edited in an annotation tool and read back; boxes and
masks that nobody touched come back as they were.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scotoma.core.errors import FileError, RegionError
from scotoma.images.regions import Box, Region, check_regions, clip_box
from scotoma.images.rle import decode_counts, decode_rle, encode_rle

__all__ = ["CocoRegions", "write_coco"]

_DAMAGED = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
_FARTHEST = 1e6  # Pixels; drawing a polygon takes time in its height.
_NOISE = 1e-3  # Pixels; x + width in floating point may pass a whole number by less.


@dataclass
class _Entry:
    name: str
    size: tuple[Any, Any]
    annotations: list[Mapping[str, Any]] = field(default_factory=list)


class CocoRegions:
    """Regions out of a COCO file (SPEC ``FILE.json``).

    A picture is looked up by its path inside the input tree, else by its bare file name where
    just one entry has it. An entry serves one picture only: another of the same bare name would
    be hidden in the wrong place.

    Args:
        path: The file. ``images`` and ``annotations`` are needed; ``categories`` give labels.

    Raises:
        FileError: The file cannot be read.
        RegionError: It is not COCO JSON, or names a picture twice or one that it does not list.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = _read_json(path)
        try:
            self._labels = {
                category["id"]: str(category["name"]) for category in data.get("categories", [])
            }
            by_id: dict[Any, _Entry] = {}
            for image in data["images"]:
                entry = _Entry(
                    _normalize(image["file_name"]), (image.get("width"), image.get("height"))
                )
                if by_id.setdefault(image["id"], entry) is not entry:
                    raise RegionError(f"{path} has two images with id {image['id']!r}")
            for annotation in data["annotations"]:
                by_id[annotation["image_id"]].annotations.append(annotation)
        except (KeyError, TypeError, AttributeError) as error:
            raise RegionError(
                f"expected COCO JSON in {path} (images with id and file_name, annotations with "
                f"the image_id of one of them), got {error!r}"
            ) from error
        self._by_name: dict[str, _Entry] = {}
        self._by_basename: dict[str, list[_Entry]] = {}
        for entry in by_id.values():
            if self._by_name.setdefault(entry.name, entry) is not entry:
                raise RegionError(f"{path} lists {entry.name} twice; give each picture one entry")
            self._by_basename.setdefault(PurePosixPath(entry.name).name, []).append(entry)
        self._claims: dict[str, str] = {}

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:
        """Return the regions annotated for a picture.

        Raises:
            RegionError: The file does not list the picture, or not clearly, or as one of another
                size; or an annotation cannot be used.
        """
        entry = self._look_up(relative.as_posix())
        size = (pixels.shape[1], pixels.shape[0])
        if any(side is not None for side in entry.size) and entry.size != size:
            raise RegionError(
                f"{self.path} says {entry.name} has {entry.size[0]}x{entry.size[1]} pixels, but "
                f"{relative} upright has {size[0]}x{size[1]}; annotate it again"
            )
        regions = []
        for annotation in entry.annotations:
            label = self._labels.get(annotation.get("category_id"), "region")
            try:
                regions.append(_read_annotation(annotation, size, label))
            except _DAMAGED as error:
                raise RegionError(
                    f"annotation {annotation.get('id')!r} of {entry.name} in {self.path}: {error}"
                ) from error
        return regions

    def _look_up(self, relative: str) -> _Entry:
        entry = self._by_name.get(relative)
        if entry is None:
            same = self._by_basename.get(PurePosixPath(relative).name, [])
            if len(same) != 1:
                what = "does not list" if not same else "lists several pictures named like"
                raise RegionError(
                    f"{self.path} {what} {relative}; add it under images (without annotations "
                    "where nothing is private)"
                )
            entry = same[0]
        claimant = self._claims.setdefault(entry.name, relative)
        if claimant != relative:
            raise RegionError(
                f"both {claimant} and {relative} match {entry.name} in {self.path}; "
                "give file_name as the path inside the input folder"
            )
        return entry


def write_coco(path: Path, entries: Iterable[tuple[Path, tuple[int, int], list[Region]]]) -> None:
    """Write regions as a COCO file, in one step (a temporary name, then a rename).

    The bytes do not depend on the order of the entries. Masks are written as uncompressed
    run lengths, boxes with an empty segmentation.

    Args:
        path: Where to.
        entries: Path inside the input tree, ``(width, height)`` and regions of each picture.

    Raises:
        RegionError: A picture comes twice, or a region reaches outside of its picture.
        FileError: The file cannot be written.
    """
    pictures = sorted(entries, key=lambda entry: entry[0].as_posix())
    names = [relative.as_posix() for relative, _, _ in pictures]
    twice = sorted({name for name, next_name in pairwise(names) if name == next_name})
    if twice:
        raise RegionError(f"expected each picture once, got twice: {', '.join(twice)}")
    labels = sorted({region.label for _, _, regions in pictures for region in regions})
    categories = {label: number for number, label in enumerate(labels, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (relative, size, regions) in enumerate(pictures, 1):
        check_regions(regions, size)
        images.append(
            {"id": number, "file_name": relative.as_posix(), "width": size[0], "height": size[1]}
        )
        for region in regions:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number}
                | {"category_id": categories[region.label]}
                | _describe(region, size)
            )
    tables = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for label, number in categories.items()],
    }
    # One record a line: such a file can be edited and compared by hand.
    text = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(record) for record in records) + "\n]"
        for name, records in tables.items()
    )
    part = path.with_name(path.name + ".part")
    try:
        part.write_text("{\n" + text + "\n}\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise FileError(f"expected to write regions to {path}, got {error}") from error


def _describe(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    x0, y0, x1, y1 = region.box
    described: dict[str, Any] = {"bbox": [x0, y0, x1 - x0, y1 - y0]}
    if region.mask is None:
        described |= {"area": (x1 - x0) * (y1 - y0), "iscrowd": 0, "segmentation": []}
    else:
        whole = np.zeros((size[1], size[0]), np.bool_)
        whole[y0:y1, x0:x1] = region.mask
        runs = {"size": [size[1], size[0]], "counts": encode_rle(whole)}
        # COCO marks run lengths, as opposed to polygons, by iscrowd.
        described |= {"area": int(region.mask.sum()), "iscrowd": 1, "segmentation": runs}
    if region.score is not None:
        described["score"] = region.score
    return described


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise FileError(f"expected a COCO file at {path}, got {error}") from error
    except (ValueError, RecursionError) as error:
        raise RegionError(f"expected COCO JSON in {path}, got {error}") from error
    if not isinstance(data, dict):
        raise RegionError(f"expected a COCO JSON object in {path}, got {type(data).__name__}")
    return data


def _normalize(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _read_annotation(annotation: Mapping[str, Any], size: tuple[int, int], label: str) -> Region:
    score = annotation.get("score")
    score = None if score is None else float(score)
    box = _read_bbox(annotation["bbox"], size) if "bbox" in annotation else None
    mask = _read_segmentation(annotation.get("segmentation"), size)
    if mask is None or not mask.any():
        # A mask without a pixel says nothing; its box still does.
        if box is None:
            raise RegionError("expected a bbox or a segmentation, got neither")
        return Region(box, label=label, score=score)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    around = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    box = (
        around
        if box is None
        else (
            min(box[0], around[0]),
            min(box[1], around[1]),
            max(box[2], around[2]),
            max(box[3], around[3]),
        )
    )
    x0, y0, x1, y1 = box
    return Region(box, mask[y0:y1, x0:x1].copy(), label, score)


def _read_bbox(bbox: Any, size: tuple[int, int]) -> Box:
    """Return COCO's ``[x, y, width, height]`` rounded outward and clipped to the picture."""
    x, y, width, height = (float(value) for value in bbox)
    if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
        raise RegionError(f"expected bbox [x, y, width > 0, height > 0], got {bbox}")
    box = clip_box(
        (
            math.floor(x + _NOISE),
            math.floor(y + _NOISE),
            math.ceil(x + width - _NOISE),
            math.ceil(y + height - _NOISE),
        ),
        size,
    )
    if box is None:
        raise RegionError(f"bbox {bbox} lies outside the {size[0]}x{size[1]} picture")
    return box


def _read_segmentation(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return the ``(H, W)`` mask of polygons or run lengths; ``None`` where there is none."""
    if not segmentation:
        return None
    width, height = size
    if isinstance(segmentation, Mapping):
        if list(segmentation["size"]) != [height, width]:
            raise RegionError(
                f"expected a mask of size {[height, width]}, got {segmentation['size']}"
            )
        counts = segmentation["counts"]
        return decode_rle(decode_counts(counts) if isinstance(counts, str) else counts, *size[::-1])
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    for polygon in segmentation:
        values = [float(value) for value in polygon]
        if (
            len(values) < 6
            or len(values) % 2
            or not all(abs(value) < _FARTHEST for value in values)
        ):
            raise RegionError(f"expected a polygon of x, y pairs, three at least, got {polygon}")
        # COCO counts from the corner of the first pixel, Pillow from its middle. The outline
        # is drawn too: pixels that the polygon only touches are private as well.
        draw.polygon([value - 0.5 for value in values], fill=1, outline=1)
    return np.asarray(canvas).astype(np.bool_)
