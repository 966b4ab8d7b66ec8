"""Private regions: what they are, and where they come from.

A regions SPEC is one of::

    faces | <detector plugin>     found in the picture itself
    none                          no picture has a region
    center:FRACTION               a centred rectangle of the picture's aspect
    box:X0,Y0,X1,Y1               the same pixels of every picture
    FILE.json                     COCO annotations, matched by file name
    FOLDER                        a tree of masks that mirrors the pictures

A source that was told about some pictures and is asked about another one raises
instead of answering "nothing private here": no answer must not mean no protection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import FileError, RegionError, SettingsError, UnknownNameError

__all__ = [
    "Box",
    "BoxRegions",
    "CenterRegions",
    "DetectorSettings",
    "NoRegions",
    "Region",
    "RegionSource",
    "check_regions",
    "clip_box",
    "open_regions",
    "union_mask",
]

Box = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)`` in pixels of the upright picture; ``x1`` and ``y1`` are exclusive."""


@dataclass(frozen=True, eq=False)
class Region:
    """One private part of a picture.

    Args:
        box: Rectangle, at least one pixel wide and high.
        mask: ``(y1 - y0, x1 - x0)`` bool, the private pixels of the box; ``None`` for all of them.
        label: What it is: ``face``, ``licence plate``, ...
        score: How sure its finder was, or ``None``.

    Raises:
        RegionError: An empty box, or a mask that does not fit it or holds no pixel.
    """

    box: Box
    mask: NDArray[np.bool_] | None = None
    label: str = "region"
    score: float | None = None

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.box
        if not (0 <= x0 < x1 and 0 <= y0 < y1):
            raise RegionError(f"expected a box with 0 <= x0 < x1 and 0 <= y0 < y1, got {self.box}")
        if self.mask is None:
            return
        if self.mask.dtype != np.bool_ or self.mask.shape != (y1 - y0, x1 - x0):
            raise RegionError(
                f"expected a bool mask of shape {(y1 - y0, x1 - x0)} for box {self.box}, "
                f"got {self.mask.dtype} of shape {self.mask.shape}"
            )
        if not self.mask.any():
            raise RegionError(f"expected a mask with a private pixel for box {self.box}, got none")


class RegionSource(Protocol):
    """Anything that says which parts of a picture are private."""

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:
        """Return the private regions of one picture.

        Args:
            pixels: ``(H, W, 3)`` uint8, upright.
            relative: The file's path inside the input tree.

        Raises:
            RegionError: The source cannot answer for this picture.
        """
        ...


@dataclass(frozen=True)
class DetectorSettings:
    """How a detector looks.

    Args:
        threshold: Least score that counts, in (0, 1). Lower finds more, and more that is none.
        grow: How far each box is pushed out, as a fraction of its width to the left and right
            and of its height up and down. The default takes in hair, ears and chin.
        detail: Scale of the closest look; 1 is the picture's own resolution. 2 finds faces half
            as large at four times the cost, 0.5 costs a quarter.
        threads: Processor cores one look may use; 0 takes those available, at most four.

    Raises:
        SettingsError: A value outside its range.
    """

    threshold: float = 0.3
    grow: float = 0.3
    detail: float = 1.0
    threads: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise SettingsError(f"expected a detector threshold in (0, 1), got {self.threshold}")
        if not 0 <= self.grow <= 10:
            raise SettingsError(f"expected box growth in [0, 10], got {self.grow}")
        if not 0.01 <= self.detail <= 8:
            raise SettingsError(f"expected detail in [0.01, 8], got {self.detail}")
        if self.threads < 0:
            raise SettingsError(f"expected a number of threads >= 0, got {self.threads}")


def clip_box(box: Box, size: tuple[int, int]) -> Box | None:
    """Return the part of ``box`` inside a picture, or ``None`` where there is none.

    Args:
        box: May reach outside, or be empty.
        size: ``(width, height)`` of the picture.
    """
    x0, y0 = max(box[0], 0), max(box[1], 0)
    x1, y1 = min(box[2], size[0]), min(box[3], size[1])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def check_regions(regions: Sequence[Region], size: tuple[int, int]) -> None:
    """Refuse regions that do not lie inside a picture.

    Args:
        regions: As a source returned them.
        size: ``(width, height)`` of the picture.

    Raises:
        RegionError: A region reaches outside; the message names every one that does.
    """
    outside = [region.box for region in regions if clip_box(region.box, size) != region.box]
    if outside:
        raise RegionError(
            f"expected regions inside the {size[0]}x{size[1]} picture, got {outside}; "
            "were they made for another picture, or before it was turned upright?"
        )


def union_mask(regions: Sequence[Region], height: int, width: int) -> NDArray[np.bool_]:
    """Return which pixels of a picture are private.

    Args:
        regions: Inside the picture.
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.

    Returns:
        ``(height, width)`` bool.

    Raises:
        RegionError: A region reaches outside the picture.
    """
    check_regions(regions, (width, height))
    private = np.zeros((height, width), np.bool_)
    for region in regions:
        x0, y0, x1, y1 = region.box
        private[y0:y1, x0:x1] |= True if region.mask is None else region.mask
    return private


@dataclass(frozen=True)
class NoRegions:
    """The source that finds nothing (SPEC ``none``)."""

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:  # noqa: ARG002
        """Return no region."""
        return []


@dataclass(frozen=True)
class CenterRegions:
    """A centred rectangle of the picture's aspect (SPEC ``center:FRACTION``).

    Args:
        fraction: Share of the picture's area that it covers, in (0, 1].

    Raises:
        SettingsError: ``fraction`` is outside its range.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise SettingsError(
                f"expected center:FRACTION with a fraction in (0, 1], got {self.fraction}"
            )

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:  # noqa: ARG002
        """Return the one rectangle."""
        height, width = pixels.shape[:2]
        side = math.sqrt(self.fraction)
        inner_width, inner_height = max(1, round(width * side)), max(1, round(height * side))
        x0, y0 = (width - inner_width) // 2, (height - inner_height) // 2
        return [Region((x0, y0, x0 + inner_width, y0 + inner_height))]


@dataclass(frozen=True)
class BoxRegions:
    """The same rectangle in every picture (SPEC ``box:X0,Y0,X1,Y1``).

    Args:
        box: Clipped to each picture.

    Raises:
        SettingsError: The box is empty.
    """

    box: Box

    def __post_init__(self) -> None:
        if not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise SettingsError(
                f"expected box:X0,Y0,X1,Y1 with X0 < X1 and Y0 < Y1, got {self.box}"
            )

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:
        """Return the rectangle's part inside the picture.

        Raises:
            RegionError: It has none.
        """
        height, width = pixels.shape[:2]
        box = clip_box(self.box, (width, height))
        if box is None:
            raise RegionError(
                f"box {self.box} lies outside {relative}, which is {width}x{height} pixels; "
                "name a box inside it"
            )
        return [Region(box)]


def open_regions(spec: str, settings: DetectorSettings = DetectorSettings()) -> RegionSource:
    """Return the source that a SPEC names (see the module's head).

    A detector's name wins over a file or folder of the same name; ``./faces`` means the folder.

    Args:
        spec: As given on the command line.
        settings: Used by detectors, ignored by the others.

    Raises:
        UnknownNameError: No such source; the nearest one is suggested.
        SettingsError: A number in the SPEC that cannot be used.
        FileError: A ``.json`` file that is not there or cannot be read.
        RegionError: Annotations or masks that contradict themselves.
        MissingExtraError: The detector's optional dependencies are not installed.
    """
    # These modules build on the types above.
    from scotoma.images.coco import CocoRegions
    from scotoma.images.detectors import detectors
    from scotoma.images.mask_folder import MaskFolder

    kind, colon, argument = spec.partition(":")
    if spec == "none":
        return NoRegions()
    if colon and kind == "center":
        return CenterRegions(_read_number(argument, spec))
    if colon and kind == "box":
        return BoxRegions(_read_box(argument, spec))
    names = detectors.names()
    if spec in names:
        return detectors.get(spec)(settings)
    path = Path(spec)
    if path.is_dir():
        return MaskFolder(path)
    if path.is_file():
        return CocoRegions(path)
    if path.suffix.lower() == ".json":
        raise FileError(f"expected a COCO file at {path}, got nothing there; check the path")
    forms = ["none", f"center:{argument or 'FRACTION'}", f"box:{argument or 'X0,Y0,X1,Y1'}"]
    raise UnknownNameError("region source", spec, [*names, *forms])


def _read_number(text: str, spec: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise SettingsError(f"expected a number, as in center:0.3, got {spec!r}") from error


def _read_box(text: str, spec: str) -> Box:
    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"expected four whole numbers, as in box:10,20,110,220, got {spec!r}"
        ) from error
    return x0, y0, x1, y1
