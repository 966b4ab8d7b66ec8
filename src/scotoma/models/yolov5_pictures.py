"""What YOLOv5 finds in pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scotoma.models.yolov5 import STRIDES
from scotoma.ops.average_precision import Boxes
from scotoma.ops.yolo_boxes import decode_maps, suppress

__all__ = ["find_boxes"]


def find_boxes(
    network: Callable[[Tensor], Any],
    images: Tensor,
    anchors: Tensor,
    *,
    least_score: float = 0.001,
) -> list[Boxes]:
    """Return what a YOLOv5, or the tail of one, finds, in pixels of the canvas.

    Args:
        network: In evaluation mode; returns YOLOv5's maps.
        images: What it reads, ``(B, ...)``.
        anchors: ``YOLOv5.anchors`` of the whole network.
        least_score: Scores above it count.
    """
    with torch.no_grad():
        maps = network(images)
    return suppress(decode_maps(maps, anchors, STRIDES), least_score=least_score)
