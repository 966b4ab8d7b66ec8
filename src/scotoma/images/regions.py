"""Private regions: what they are, and what a source of them promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import RegionError, SettingsError

__all__ = [
    "Box",
    "DetectorSettings",
    "Region",
    "RegionSource",
    "check_regions",
    "clip_box",
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
