"""Regions pieced together out of what lies around them.

Networks decide by textures, and the textures of a picture's surroundings are its own: a piece
of them, at some scale, laid over some part of a region, often says more of the class than any
smooth pattern. So pieces are laid one by one, and what helps stays; large ones come first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scotoma.images.regions import Region
from scotoma.protections.anonymize.echoes import shrunk

__all__ = ["Patchwork"]

Pixels = NDArray[np.uint8]

_FIRST = (0.25, 0.7)  # least and greatest side of a piece, in sides of its region, at the start
_LAST = (0.08, 0.25)  # and at the end
_SMALLEST = 0.35  # scale at which surroundings are taken: enlarged by its inverse
_CONTRAST, _COLOUR = 0.4, 40.0  # spread of what a piece's contrast and colour are changed by
_AGAIN, _REMEMBERED = 0.5, 6  # share of pieces out of what helped last, and how many that are


@dataclass(frozen=True, eq=False)
class _Cut:
    """What a piece is made of: a window of the surroundings, and what is done to it.

    Args:
        window: Rows and columns of the surroundings.
        is_mirrored: Left and right change places.
        contrast: Its colours' distance from their mean is multiplied by this.
        shift: ``(3,)`` added to its colours.
    """

    window: tuple[slice, slice]
    is_mirrored: bool
    contrast: float
    shift: NDArray[np.float64]


class Patchwork:
    """Pieces of one picture's surroundings, drawn from a seed.

    Pieces are elliptic: corners and straight edges, which no picture has there, would be read too.
    Half of them are cut like one of those that helped last, and laid elsewhere.

    Args:
        start: ``(H, W, 3)`` uint8, after the naive fill.
        regions: Where pieces are laid.
        seed: Of what is drawn.

    Security:
        Pieces come from the naive fill alone, so they owe to the regions what that does:
        nothing, where it reads the background only. What is drawn depends on the seed, on the
        regions' shapes and on what helped, which only the decision to keep decides.

    Source:
        Andriushchenko et al., Square Attack, ECCV 2020, for the schedule of sizes and for
        keeping what helps; there, the squares are flat.
    """

    def __init__(self, start: Pixels, regions: Sequence[Region], *, seed: int) -> None:
        self._regions = list(regions)
        areas = np.array([_area(region) for region in regions], float)
        self._shares = areas / areas.sum()
        self._source = shrunk(start, regions)
        self._generator = np.random.default_rng(seed)
        self._cuts: list[_Cut] = []
        self._helpful: list[_Cut] = []

    def variants(self, pixels: Pixels, count: int, progress: float) -> list[Pixels]:
        """Return ``count`` copies of a picture, each with one more piece.

        Args:
            pixels: ``(H, W, 3)`` uint8.
            count: How many.
            progress: From 0 at the start of a search to 1 at its end.
        """
        self._cuts = []
        return [self._lay(pixels.copy(), progress) for _ in range(count)]

    def praise(self, number: int) -> None:
        """Note that a piece of the last variants helped."""
        self._helpful = [*self._helpful, self._cuts[number]][-_REMEMBERED:]

    def _lay(self, picture: Pixels, progress: float) -> Pixels:
        draw = self._generator
        region = self._regions[draw.choice(len(self._regions), p=self._shares)]
        x0, y0, x1, y1 = region.box
        least, most = (
            first + (last - first) * progress for first, last in zip(_FIRST, _LAST, strict=True)
        )
        shares = draw.uniform(least, most, 2)
        height, width = max(1, round((y1 - y0) * shares[0])), max(1, round((x1 - x0) * shares[1]))
        top = y0 + int(draw.integers(y1 - y0 - height + 1))
        left = x0 + int(draw.integers(x1 - x0 - width + 1))
        if self._helpful and draw.random() < _AGAIN:
            cut = self._helpful[draw.integers(len(self._helpful))]
        else:
            cut = self._cut(height, width)
        self._cuts.append(cut)
        inside = _ellipse(height, width)
        if region.mask is not None:
            inside &= region.mask[top - y0 :, left - x0 :][:height, :width]
        window = picture[top : top + height, left : left + width]
        window[inside] = self._made(cut, height, width)[inside]
        return picture

    def _cut(self, height: int, width: int) -> _Cut:
        """Draw some window of the surroundings, at some scale, and some change of it."""
        draw = self._generator
        full_height, full_width = self._source.shape[:2]
        largest = min(full_height / height, full_width / width)
        scale = math.exp(draw.uniform(math.log(min(_SMALLEST, largest)), math.log(largest)))
        down, across = max(1, int(height * scale)), max(1, int(width * scale))
        top = int(draw.integers(full_height - down + 1))
        left = int(draw.integers(full_width - across + 1))
        is_changed = draw.random() < 0.5  # surroundings lack some colours
        return _Cut(
            (slice(top, top + down), slice(left, left + across)),
            bool(draw.random() < 0.5),
            math.exp(draw.normal(0, _CONTRAST)) if is_changed else 1.0,
            draw.normal(0, _COLOUR, 3) if is_changed else np.zeros(3),
        )

    def _made(self, cut: _Cut, height: int, width: int) -> Pixels:
        """Return what was cut, ``(height, width, 3)``."""
        found = self._source[cut.window]
        if cut.is_mirrored:
            found = found[:, ::-1]
        picture = Image.fromarray(np.ascontiguousarray(found))
        piece = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
        middle = piece.mean((0, 1))
        coloured = (piece - middle) * cut.contrast + middle + cut.shift
        pixels: Pixels = np.rint(coloured).clip(0, 255).astype(np.uint8)
        return pixels


def _ellipse(height: int, width: int) -> NDArray[np.bool_]:
    down = (np.arange(height) + 0.5) / height * 2 - 1
    across = (np.arange(width) + 0.5) / width * 2 - 1
    inside: NDArray[np.bool_] = down[:, None] ** 2 + across**2 <= 1
    return inside


def _area(region: Region) -> int:
    x0, y0, x1, y1 = region.box
    return (x1 - x0) * (y1 - y0)
