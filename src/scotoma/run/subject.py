"""One picture on its way through a run: read, regions found, naively filled."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import ImageError
from scotoma.images.picture import Picture
from scotoma.images.read import decode_picture, read_file
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

    def check_release(self, pixels: Pixels) -> None:
        """Refuse to release what no search may return, whatever made it.

        Args:
            pixels: ``(H, W, 3)`` uint8, before encoding.

        Raises:
            ImageError: They are not the original outside the regions, or still the original
                inside one.
        """
        height, width = self.original.shape[:2]
        if pixels.shape != self.original.shape or pixels.dtype != np.uint8:
            raise ImageError(
                f"expected a release of {self.original.shape} uint8 like its original, "
                f"got {pixels.shape} {pixels.dtype}"
            )
        changed = (pixels != self.original).any(axis=2)
        filled = (self.start != self.original).any(axis=2)
        if (changed & ~union_mask(self.regions, height, width)).any():
            raise ImageError(
                f"expected changes inside the regions only, got others in {self.found.path}"
            )
        for region in self.regions:
            mask = union_mask([region], height, width)
            if (filled & mask).any() and not (changed & mask).any():
                raise ImageError(
                    f"expected region {region.box} of {self.found.path} to be hidden, "
                    "got it as it was"
                )

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
        return _decode(self.encode(pixels), f"release{self.settings.encoding.suffix}").pixels


def open_subject(found: Found, source: RegionSource, settings: AnonymizeSettings) -> RunSubject:
    """Read a picture, find its regions and fill them.

    Raises:
        FileError: The file cannot be read as a picture.
        RegionError: The source has no regions that fit it.
    """
    begun = time.perf_counter()
    data = read_file(found.path)
    picture = _decode(data, found.path.name)
    regions = source.find(picture.pixels, found.relative)
    start = picture.pixels
    if regions:
        height, width = start.shape[:2]
        mask = union_mask(regions, height, width)
        start = apply_fill(start, mask, fills.get(settings.fill), seed=settings.seed)
    return RunSubject(
        found, picture, regions, start, hashlib.sha256(data).hexdigest(), settings, begun
    )


def _decode(data: bytes, name: str) -> Picture:
    # The stored numbers, not colours converted by the profile: they are what the owner's
    # own pipeline reads, and what must stay the same outside the regions.
    return decode_picture(data, name=name, keep_profile=True)


def name_of(found: Found) -> str:
    """Return the name under which the manifest knows an input."""
    return found.path.as_posix()
