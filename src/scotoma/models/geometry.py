"""The linear part of a model's preprocessing: which pixels make which inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import ModelError
from scotoma.models.preprocessing import Preprocessing
from scotoma.ops.resampling import resize_matrix

__all__ = ["Geometry", "geometry"]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Resize and crop of one picture size as two matrices.

    ``rows @ pixels @ columns.T`` is what the network reads of a channel, up to Pillow's
    rounding, constant padding, and normalization.

    Args:
        rows: ``(input height, picture height)`` float32.
        columns: ``(input width, picture width)`` float32.
    """

    rows: NDArray[np.float32]
    columns: NDArray[np.float32]


def geometry(preprocessing: Preprocessing, width: int, height: int) -> Geometry:
    """Return the matrices for pictures of ``width`` × ``height`` pixels.

    Mirrors timm's evaluation transform (``timm.data.create_transform``): resize as its crop
    mode says, then crop or pad around the centre.

    Raises:
        ModelError: A detector's preprocessing.
    """
    if preprocessing.is_letterbox:
        raise ModelError("expected a classifier's preprocessing, got a detector's letterbox")
    _, target_height, target_width = preprocessing.input_size
    new_height, new_width = _resized(preprocessing, width, height)
    return Geometry(
        _centred(resize_matrix(height, new_height, preprocessing.interpolation), target_height),
        _centred(resize_matrix(width, new_width, preprocessing.interpolation), target_width),
    )


def _resized(preprocessing: Preprocessing, width: int, height: int) -> tuple[int, int]:
    """Height and width after the resize."""
    _, target_height, target_width = preprocessing.input_size
    scale_height = math.floor(target_height / preprocessing.crop_pct)
    scale_width = math.floor(target_width / preprocessing.crop_pct)
    if preprocessing.crop_mode == "squash":
        return scale_height, scale_width
    if preprocessing.crop_mode == "center" and scale_height == scale_width:
        # torchvision's Resize(int): the shorter side is exact, the longer one truncated
        if width <= height:
            return int(scale_height * height / width), scale_height
        return scale_height, int(scale_height * width / height)
    ratios = (height / scale_height, width / scale_width)
    ratio = max(ratios) if preprocessing.crop_mode == "border" else min(ratios)
    return round(height / ratio), round(width / ratio)


def _centred(matrix: NDArray[np.float32], target: int) -> NDArray[np.float32]:
    """Crop the output axis to ``target`` around its centre, or pad it with zero rows."""
    size = matrix.shape[0]
    if size < target:
        before = (target - size) // 2
        return np.pad(matrix, ((before, target - size - before), (0, 0)))
    start = round((size - target) / 2)
    return matrix[start : start + target]
