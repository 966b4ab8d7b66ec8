"""Where private regions come from: what a regions SPEC names.

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import FileError, RegionError, SettingsError, UnknownNameError
from scotoma.images.coco import CocoRegions
from scotoma.images.detectors import detectors
from scotoma.images.mask_folder import MaskFolder
from scotoma.images.regions import (
    Box,
    DetectorSettings,
    Region,
    RegionSource,
    clip_box,
)

__all__ = ["BoxRegions", "CenterRegions", "NoRegions", "open_regions"]


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


def open_regions(spec: str, settings: DetectorSettings | None = None) -> RegionSource:
    """Return the source that a SPEC names (see the module's head).

    A detector's name wins over a file or folder of the same name; ``./faces`` means the folder.

    Args:
        spec: As given on the command line.
        settings: Used by detectors, ignored by the others; None takes the defaults.

    Raises:
        UnknownNameError: No such source; the nearest one is suggested.
        SettingsError: A number in the SPEC that cannot be used.
        FileError: A ``.json`` file that is not there or cannot be read.
        RegionError: Annotations or masks that contradict themselves.
        MissingExtraError: The detector's optional dependencies are not installed.
    """
    kind, colon, argument = spec.partition(":")
    if spec == "none":
        return NoRegions()
    if colon and kind == "center":
        return CenterRegions(_read_number(argument, spec))
    if colon and kind == "box":
        return BoxRegions(_read_box(argument, spec))
    names = detectors.names()
    if spec in names:
        return detectors.get(spec)(settings or DetectorSettings())
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
