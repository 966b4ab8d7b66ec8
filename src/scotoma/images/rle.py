"""Run-length encoded masks as COCO files hold them: runs down the columns, zeros first.

Source:
    The format is that of COCO's ``maskApi``; this is an implementation of our own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import RegionError

__all__ = ["decode_counts", "decode_rle", "encode_rle"]


def encode_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of the runs of ``mask``, the first of them of zeros.

    Args:
        mask: ``(H, W)`` bool.

    Example:
        >>> encode_rle(np.array([[False, True], [True, True]]))
        [1, 3]
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts: list[int] = np.diff(edges).tolist()
    return [0, *counts] if flat.size and flat[0] else counts


def decode_rle(counts: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask that the runs stand for.

    Args:
        counts: Lengths of runs, the first of them of zeros.
        height: Of the picture.
        width: Of the picture.

    Returns:
        ``(height, width)`` bool.

    Raises:
        RegionError: The runs do not add up to the picture.

    Example:
        >>> decode_rle([1, 3], 2, 2).tolist()
        [[False, True], [True, True]]
    """
    # Whole numbers of any size are summed here, before NumPy's could overflow.
    if any(type(count) is not int or count < 0 for count in counts) or (
        sum(counts) != height * width
    ):
        raise RegionError(
            f"expected run lengths >= 0 with a sum of {height * width} for a mask of "
            f"{width}x{height} pixels, got other ones; the annotation is damaged or of another size"
        )
    values = np.arange(len(counts)) % 2 == 1
    flat = np.repeat(values, np.array(counts, np.int64))
    return flat.reshape((height, width), order="F")


def decode_counts(text: str) -> list[int]:
    """Return the run lengths of a compressed string.

    Each number is written in groups of five bits, the lowest first, as a character from ``0``
    on; a sixth bit says that another group follows. From the fourth number on, the difference
    to the one before the last is what is written.

    Args:
        text: The ``counts`` of a compressed segmentation.

    Raises:
        RegionError: A character outside the code, or a number without its end.

    Example:
        >>> decode_counts("13")
        [1, 3]
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise RegionError(f"expected a COCO compressed mask, got {text[:40]!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise RegionError(f"expected a COCO compressed mask, got one cut short: {text[:40]!r}")
    return counts
