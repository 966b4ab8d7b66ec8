"""What a picture's surroundings suggest for its private regions.

Where an object reaches beyond the hidden region, what lies around it often says enough of the
class: mirrored, repeated or shrunk into the region it brings back many decisions before any
search. An echo is made of the naive fill alone, in which the private pixels are already gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scotoma.images.regions import Box, Region
from scotoma.protections.anonymize.exemplars import paste

__all__ = ["ECHOES", "echoes", "shrunk"]

Pixels = NDArray[np.uint8]
_DEPTH = 4  # pictures in a picture, until the innermost region is small


def echoes(start: Pixels, regions: Sequence[Region]) -> Iterator[Pixels]:
    """Yield the picture with each of :data:`ECHOES` in all regions, most helpful first.

    Args:
        start: ``(H, W, 3)`` uint8, after a naive fill.
        regions: Where echoes go.

    Security:
        An echo owes to the regions what the naive fill owes to them: nothing, where that reads
        the background only.
    """
    for make in ECHOES:
        picture = start
        for region in regions:
            picture = paste(picture, region, make(start, region))
        yield picture


def shrunk(start: Pixels, regions: Sequence[Region]) -> Pixels:
    """Return the picture with itself, made small, in all regions: no flat place is left."""
    picture = start
    for region in regions:
        picture = paste(picture, region, _shrunk(start, region))
    return picture


def _shrunk(start: Pixels, region: Region) -> Pixels:
    picture = start
    for _ in range(_DEPTH):
        picture = paste(picture, region, _fitted(picture, region.box))
    return _cut(picture, region.box)


def _mirrored_sideways(start: Pixels, region: Region) -> Pixels:
    return _mirrored(start, region.box)


def _mirrored_upwards(start: Pixels, region: Region) -> Pixels:
    x0, y0, x1, y1 = region.box
    return _mirrored(start.transpose(1, 0, 2), (y0, x0, y1, x1)).transpose(1, 0, 2)


def _mirrored(start: Pixels, box: Box) -> Pixels:
    """Return the region with its halves mirroring what lies to their left and right."""
    x0, y0, x1, y1 = box
    width, half = x1 - x0, (x1 - x0) // 2
    before = start[y0:y1, max(0, x0 - half) : x0]
    after = start[y0:y1, x1 : x1 + width - half]
    content = _cut(start, box).copy()
    content[:, : before.shape[1]] = before[:, ::-1]
    content[:, width - after.shape[1] :] = after[:, ::-1]
    return content


def _corner(top: bool, left: bool) -> Callable[[Pixels, Region], Pixels]:
    """Return an echo of the picture's corner, of the region's size."""

    def make(start: Pixels, region: Region) -> Pixels:
        filled = paste(start, region, _shrunk(start, region))  # corners may overlap the region
        x0, y0, x1, y1 = region.box
        height, width = y1 - y0, x1 - x0
        rows = slice(0, height) if top else slice(len(start) - height, None)
        columns = slice(0, width) if left else slice(start.shape[1] - width, None)
        return filled[rows, columns]

    return make


def _side(across: int, down: int) -> Callable[[Pixels, Region], Pixels]:
    """Return an echo of all that lies to one side, stretched into the region."""

    def make(start: Pixels, region: Region) -> Pixels:
        x0, y0, x1, y1 = region.box
        rows = {-1: slice(0, y0), 0: slice(None), 1: slice(y1, None)}[down]
        columns = {-1: slice(0, x0), 0: slice(None), 1: slice(x1, None)}[across]
        part = start[rows, columns]
        return _fitted(part if part.size else start, region.box)

    return make


def _fitted(pixels: Pixels, box: Box) -> Pixels:
    x0, y0, x1, y1 = box
    size = (x1 - x0, y1 - y0)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _cut(pixels: Pixels, box: Box) -> Pixels:
    x0, y0, x1, y1 = box
    return pixels[y0:y1, x0:x1]


ECHOES: tuple[Callable[[Pixels, Region], Pixels], ...] = (
    _shrunk,
    _mirrored_sideways,
    _mirrored_upwards,
    _corner(top=False, left=True),
    _corner(top=True, left=False),
    _corner(top=True, left=True),
    _corner(top=False, left=False),
    _side(-1, 0),
    _side(1, 0),
    _side(0, -1),
    _side(0, 1),
)
"""Ways to make one, in the order in which they are tried."""
