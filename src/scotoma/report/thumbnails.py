"""Small pictures that live inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from scotoma.core.errors import ImageError

__all__ = ["MAX_SIDE", "Thumbnail", "make_thumbnail"]

MAX_SIDE = 480
"""No side of a thumbnail is longer, in pixels."""

_PNG_UP_TO = 128  # below, JPEG saves nothing and its blocks would be what one sees


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a ``data:`` address.

    Args:
        address: For an image element's ``src``.
        width: In pixels.
        height: In pixels.
    """

    address: str
    width: int
    height: int


def make_thumbnail(pixels: np.ndarray, *, max_side: int = MAX_SIDE) -> Thumbnail:
    """Return ``pixels`` shrunk to ``max_side``; a smaller picture keeps its size.

    It is made from pixels alone: no metadata of any file can be in it.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        max_side: Of the longer side, in pixels.

    Raises:
        ImageError: Wrong shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(
            f"expected a picture as (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}"
        )
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    if max(image.size) <= _PNG_UP_TO:
        kind = "png"
        image.save(data, "PNG", optimize=True)
    else:
        kind = "jpeg"
        image.save(data, "JPEG", quality=88, subsampling=0, optimize=True)
    text = base64.b64encode(data.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{kind};base64,{text}", image.width, image.height)
