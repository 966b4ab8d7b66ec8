"""What a split detector's server finds, in pixels of the picture that the camera saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from scotoma.core.errors import BitstreamError, ModelError
from scotoma.models.letterbox import Letterbox
from scotoma.models.yolov5_pictures import find_boxes

if TYPE_CHECKING:
    from scotoma.models.split_model import SplitModel

__all__ = ["FoundBox", "find_objects"]

_MOST_PIXELS = 1 << 20  # of a side; larger numbers are damage


@dataclass(frozen=True)
class FoundBox:
    """What a detector found in a frame.

    Args:
        label: Index of the class.
        name: That class, in words.
        score: The detector's confidence, in [0, 1].
        box: x0, y0, x1, y1 in pixels of the picture that was encoded.
    """

    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]


def find_objects(
    model: SplitModel, places: Tensor, metadata: Mapping[str, Any], *, least_score: float
) -> Iterator[tuple[FoundBox, ...]]:
    """Yield what a detector finds in each of some frames, best first.

    Args:
        model: Decoder and tail are used.
        places: ``(B, c, h, w)`` uint8 as they left the camera.
        metadata: Of their stream, which says the pictures' ``size``.
        least_score: Of boxes, in [0, 1].

    Raises:
        ModelError: The model is no detector.
        BitstreamError: The stream does not say the pictures' size.
    """
    if model.anchors is None:
        raise ModelError(f"expected a detector, got {model.description.name}, which is none")
    placement = Letterbox(model.description.preprocessing.input_size[1]).place(_size(metadata))
    classes = model.description.classes
    for found in find_boxes(model.answer, places, model.anchors, least_score=least_score):
        boxes = placement.to_picture(found)
        scores = () if boxes.scores is None else boxes.scores
        yield tuple(
            FoundBox(
                int(label),
                classes[label] if classes else str(label),
                round(float(score), 6),
                (x0, y0, x1, y1),
            )
            for label, score, (x0, y0, x1, y1) in zip(
                boxes.labels, scores, boxes.corners.round(2).tolist(), strict=True
            )
        )


def _size(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """Return the width and height that a stream for a detector says."""
    size = metadata.get("size")
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and 0 < side <= _MOST_PIXELS for side in size)
    ):
        raise BitstreamError(
            f"expected the picture's width and height in a stream for a detector, got {size!r}; "
            "encode it again"
        )
    width, height = size
    return width, height
