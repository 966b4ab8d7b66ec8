"""Pictures for the demonstration, out of scikit-image's bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scotoma.core.errors import MissingExtraError
from scotoma.images.coco import write_coco
from scotoma.images.read import read_picture
from scotoma.images.regions import open_regions
from scotoma.images.walk import find_pictures
from scotoma.images.write import Encoding, encode_picture, write_atomically

__all__ = ["demo_regions", "write_demo_pictures"]

_NAMES = ("astronaut", "chelsea", "coffee", "rocket")


def write_demo_pictures(folder: Path) -> Path:
    """Write the bundled pictures as PNG files into ``folder`` and return it.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtraError("the demonstration", "scikit-image", "demo") from error
    for name in _NAMES:
        pixels = np.ascontiguousarray(getattr(data, name)())
        write_atomically(folder / f"{name}.png", encode_picture(pixels, Encoding()))
    return folder


def demo_regions(pictures: Path, path: Path) -> Path:
    """Write the regions of the demonstration as COCO: faces, or the centre where there is none."""
    faces, center = open_regions("faces"), open_regions("center:0.2")
    entries = []
    for found in find_pictures([pictures]):
        picture = read_picture(found.path)
        regions = faces.find(picture.pixels, found.relative)
        entries.append(
            (
                found.relative,
                picture.size,
                regions or center.find(picture.pixels, found.relative),
            )
        )
    write_coco(path, entries)
    return path
