"""How YOLOv5 reads a picture, and where its boxes lie in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from scotoma.core.errors import SettingsError
from scotoma.models.yolov5 import STRIDES
from scotoma.ops.average_precision import Boxes
from scotoma.ops.yolo_boxes import decode_maps, suppress

__all__ = ["Letterbox", "Placement", "find_boxes"]

_GREY = (114, 114, 114)


@dataclass(frozen=True)
class Placement:
    """Where a picture lies on its canvas.

    Args:
        size: The picture's own width and height.
        scaled: Width and height on the canvas.
        corner: Left and top of it there.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int]

    def to_picture(self, boxes: Boxes) -> Boxes:
        """Return boxes on the canvas as boxes in the picture, cut off at its edges."""
        corner = np.array(self.corner * 2, dtype=np.float64)
        scale = np.array([s / c for s, c in zip(self.size, self.scaled, strict=True)] * 2)
        limits = np.array(self.size * 2, dtype=np.float64)
        corners = ((boxes.corners - corner) * scale).clip(0, limits)
        return Boxes(corners, boxes.labels, boxes.scores)

    def to_canvas(self, boxes: Boxes) -> Boxes:
        """Return boxes in the picture as boxes on the canvas."""
        corner = np.array(self.corner * 2, dtype=np.float64)
        scale = np.array([c / s for s, c in zip(self.size, self.scaled, strict=True)] * 2)
        return Boxes(boxes.corners * scale + corner, boxes.labels, boxes.scores)


@dataclass(frozen=True)
class Letterbox:
    """A picture in the middle of a grey square.

    Args:
        side: Of the square, in pixels; a multiple of 32.
    """

    side: int = 640

    def __post_init__(self) -> None:
        if not (self.side >= STRIDES[-1] and self.side % STRIDES[-1] == 0):
            raise SettingsError(
                f"expected a side that is a multiple of {STRIDES[-1]}, got {self.side}"
            )

    def read(self, picture: Image.Image) -> tuple[Tensor, Placement]:
        """Return ``(3, side, side)`` float32 in [0, 1], and where the picture lies there."""
        scale = self.side / max(picture.size)
        width, height = (max(1, round(length * scale)) for length in picture.size)
        left, top = (self.side - width) // 2, (self.side - height) // 2
        canvas = Image.new("RGB", (self.side, self.side), _GREY)
        scaled = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        canvas.paste(scaled, (left, top))
        pixels = torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255
        return pixels, Placement(picture.size, (width, height), (left, top))


def find_boxes(
    network: nn.Module, images: Tensor, anchors: Tensor, *, least_score: float = 0.001
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
