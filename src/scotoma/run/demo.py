"""Pictures for the demonstration, out of scikit-image's bundle."""

from __future__ import annotations

from pathlib import Path

from scotoma.core.errors import MissingExtraError
from scotoma.images.coco import write_coco
from scotoma.images.read import read_picture
from scotoma.images.region_sources import open_regions
from scotoma.images.walk import find_pictures
from scotoma.images.write import Encoding, encode_picture, write_atomically

__all__ = ["demo_regions", "write_demo_pictures"]

_NAMES = {
    "astronaut": "astronaut.png",
    "cameraman": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "galaxies": "hubble_deep_field.jpg",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
_CENTER = "center:0.3"


def write_demo_pictures(folder: Path) -> Path:
    """Write the bundled pictures as PNG files into ``folder`` and return it.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtraError("the demonstration", "scikit-image", "demo") from error
    bundle = Path(data.__file__).parent
    for name, file in _NAMES.items():
        pixels = read_picture(bundle / file).pixels
        write_atomically(folder / f"{name}.png", encode_picture(pixels, Encoding()))
    return folder


def demo_regions(pictures: Path, path: Path) -> Path:
    """Write the regions of the demonstration as COCO: faces, or the centre where there is none."""
    faces, center = open_regions("faces"), open_regions(_CENTER)
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
