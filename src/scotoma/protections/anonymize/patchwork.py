"""Regions pieced together out of what lies around them.

Networks decide by textures, and the textures of a picture's surroundings are its own: a piece
of them, at some scale, laid over some part of a region, often says more of the class than any
smooth pattern. So pieces are laid one by one, and what helps stays; large ones come first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scotoma.images.regions import Region
from scotoma.protections.anonymize.echoes import shrunk

__all__ = ["Patchwork"]

Pixels = NDArray[np.uint8]

_FIRST = (0.25, 0.7)  # least and greatest side of a piece, in sides of its region, at the start
_LAST = (0.08, 0.25)  # and at the end
_CONTRAST, _COLOUR = 0.4, 40.0  # spread of what a piece's contrast and colour are changed by
_SMALLEST = 0.35  # scale at which surroundings are taken: enlarged by its inverse


class Patchwork:
    """Pieces of one picture's surroundings, drawn from a seed.

    Args:
        start: ``(H, W, 3)`` uint8, after the naive fill.
        regions: Where pieces are laid.
        seed: Of what is drawn.

    Security:
        Pieces come from the naive fill alone, so they owe to the regions what that does:
        nothing, where it reads the background only. The order in which they are drawn depends
        on the seed and on the regions' shapes.

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

    def variants(self, pixels: Pixels, count: int, progress: float) -> list[Pixels]:
        """Return ``count`` copies of a picture, each with one more piece.

        Args:
            pixels: ``(H, W, 3)`` uint8.
            count: How many.
            progress: From 0 at the start of a search to 1 at its end.
        """
        return [self._lay(pixels.copy(), progress) for _ in range(count)]

    def _lay(self, picture: Pixels, progress: float) -> Pixels:
        region = self._regions[self._generator.choice(len(self._regions), p=self._shares)]
        x0, y0, x1, y1 = region.box
        least, most = (
            first + (last - first) * progress for first, last in zip(_FIRST, _LAST, strict=True)
        )
        shares = self._generator.uniform(least, most, 2)
        height, width = max(1, round((y1 - y0) * shares[0])), max(1, round((x1 - x0) * shares[1]))
        top = y0 + int(self._generator.integers(y1 - y0 - height + 1))
        left = x0 + int(self._generator.integers(x1 - x0 - width + 1))
        piece = self._draw(height, width)
        window = picture[top : top + height, left : left + width]
        if region.mask is None:
            window[:] = piece
        else:
            inside = region.mask[top - y0 :, left - x0 :][:height, :width]
            window[inside] = piece[inside]
        return picture

    def _draw(self, height: int, width: int) -> Pixels:
        """Return some window of the surroundings, at some scale, perhaps mirrored."""
        full_height, full_width = self._source.shape[:2]
        largest = min(full_height / height, full_width / width)
        scale = math.exp(
            self._generator.uniform(math.log(min(_SMALLEST, largest)), math.log(largest))
        )
        down, across = max(1, int(height * scale)), max(1, int(width * scale))
        top = int(self._generator.integers(full_height - down + 1))
        left = int(self._generator.integers(full_width - across + 1))
        found = self._source[top : top + down, left : left + across]
        if self._generator.random() < 0.5:
            found = found[:, ::-1]
        picture = Image.fromarray(np.ascontiguousarray(found))
        piece = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
        return self._recoloured(piece) if self._generator.random() < 0.5 else piece

    def _recoloured(self, piece: Pixels) -> Pixels:
        """Return a piece with another contrast and another colour: surroundings lack some."""
        middle = piece.mean((0, 1))
        contrast = math.exp(self._generator.normal(0, _CONTRAST))
        shift = self._generator.normal(0, _COLOUR, 3)
        recoloured = (piece - middle) * contrast + middle + shift
        pixels: Pixels = np.rint(recoloured).clip(0, 255).astype(np.uint8)
        return pixels


def _area(region: Region) -> int:
    x0, y0, x1, y1 = region.box
    return (x1 - x0) * (y1 - y0)
