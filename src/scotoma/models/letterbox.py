"""How detectors read a picture: scaled to fit a grey square; and where boxes then lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scotoma.core.errors import SettingsError
from scotoma.ops.average_precision import Boxes

__all__ = ["GREY", "Letterbox", "Placement"]

GREY = (114, 114, 114)
"""What is around the picture."""

_COARSEST = 32  # pixels from one cell of a detector's coarsest map to the next


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
        if not (self.side >= _COARSEST and self.side % _COARSEST == 0):
            raise SettingsError(
                f"expected a side that is a multiple of {_COARSEST}, got {self.side}"
            )

    def read(self, picture: Image.Image) -> tuple[Tensor, Placement]:
        """Return ``(3, side, side)`` float32 in [0, 1], and where the picture lies there."""
        placement = self.place(picture.size)
        canvas = Image.new("RGB", (self.side, self.side), GREY)
        scaled = picture.convert("RGB").resize(placement.scaled, Image.Resampling.BILINEAR)
        canvas.paste(scaled, placement.corner)
        return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255, placement

    def place(self, size: tuple[int, int]) -> Placement:
        """Return where a picture of so many pixels, width and height, lies on the canvas."""
        scale = self.side / max(size)
        width, height = (max(1, round(length * scale)) for length in size)
        corner = ((self.side - width) // 2, (self.side - height) // 2)
        return Placement(size, (width, height), corner)
