"""A picture in memory: its pixels, the format it came in, and what could be kept of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scotoma.core.errors import ImageError
from scotoma.images.metadata import Metadata

__all__ = ["Picture", "check_pixels"]


@dataclass(frozen=True, eq=False)
class Picture:
    """One still picture, upright.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB, C-contiguous; sRGB, or in the colours of
            ``metadata.icc`` where that is kept.
        format: What it was read from: ``"jpeg"``, ``"png"``, ...
        metadata: What could be kept on request.

    Raises:
        ImageError: Pixels of another shape or type.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    format: str = "png"
    metadata: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        check_pixels(self.pixels)

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` in pixels."""
        height, width = self.pixels.shape[:2]
        return width, height

    def to_pil(self) -> Image.Image:
        """Return the pixels as a Pillow image without metadata."""
        return Image.fromarray(self.pixels)


def check_pixels(pixels: NDArray[np.uint8]) -> None:
    """Raise unless ``pixels`` is a non-empty ``(H, W, 3)`` uint8 array.

    Raises:
        ImageError: It is not.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ImageError(
            f"expected (height, width, 3) pixels of uint8, got {pixels.shape} of {pixels.dtype}"
        )
