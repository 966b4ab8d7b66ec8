"""One picture on its way through a run: read, regions found, naively filled."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import FileError
from scotoma.images.picture import Picture
from scotoma.images.read import decode_picture
from scotoma.images.regions import Region, RegionSource, union_mask
from scotoma.images.walk import Found
from scotoma.images.write import encode_picture
from scotoma.ops.fills import apply_fill, fills
from scotoma.run.settings import AnonymizeSettings

__all__ = ["RunSubject", "name_of", "open_subject"]

Pixels = NDArray[np.uint8]


@dataclass(eq=False)
class RunSubject:
    """A picture with its regions; what :class:`~scotoma.protections.anonymize.search.Search` takes.

    Args:
        found: Where it lies, and its place in the input tree.
        picture: As read.
        regions: Private ones; empty when there is nothing to hide.
        start: The picture after the naive fill; the original itself without regions.
        sha256_in: Of the file's bytes.
        settings: Of the run.
        begun: ``time.perf_counter()`` when reading began.
    """

    found: Found
    picture: Picture
    regions: list[Region]
    start: Pixels
    sha256_in: str
    settings: AnonymizeSettings
    begun: float = field(default_factory=time.perf_counter)

    @property
    def original(self) -> Pixels:
        """The picture as read."""
        return self.picture.pixels

    def encode(self, pixels: Pixels) -> bytes:
        """Return the bytes of the file that would be written for ``pixels``."""
        return encode_picture(
            pixels,
            self.settings.encoding,
            metadata=self.picture.metadata,
            keep=self.settings.keep_metadata,
        )

    def publish(self, pixels: Pixels) -> Pixels:
        """Return the pixels that a reader of the written file would see."""
        if self.settings.encoding.lossless:
            return pixels
        return decode_picture(self.encode(pixels), name=str(self.found.relative)).pixels


def open_subject(found: Found, source: RegionSource, settings: AnonymizeSettings) -> RunSubject:
    """Read a picture, find its regions and fill them.

    Raises:
        FileError: The file cannot be read as a picture.
        RegionError: The source has no regions that fit it.
    """
    begun = time.perf_counter()
    try:
        data = found.path.read_bytes()
    except OSError as error:
        raise FileError(f"expected a readable file at {found.path}, got: {error}") from error
    picture = decode_picture(data, name=found.path.name)
    regions = source.find(picture.pixels, found.relative)
    start = picture.pixels
    if regions:
        height, width = start.shape[:2]
        mask = union_mask(regions, height, width)
        start = apply_fill(start, mask, fills.get(settings.fill), seed=settings.seed)
    return RunSubject(
        found, picture, regions, start, hashlib.sha256(data).hexdigest(), settings, begun
    )


def name_of(found: Found) -> str:
    """Return the name under which the manifest knows an input."""
    return found.path.as_posix()
