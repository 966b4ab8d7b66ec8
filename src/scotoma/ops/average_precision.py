"""COCO's average precision of detected boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import MissingExtraError, SettingsError

__all__ = ["IOU_THRESHOLDS", "Boxes", "average_precision"]

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_MOST_PER_PICTURE = 100
_ANY_AREA = [0, 1e10]


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one picture, detected or annotated.

    Args:
        corners: ``(N, 4)`` x0, y0, x1, y1.
        labels: ``(N,)`` category of each.
        scores: ``(N,)`` confidence of each; None for annotations.
    """

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.corners.shape != (count, 4) or (
            self.scores is not None and len(self.scores) != count
        ):
            raise SettingsError(
                f"expected (N, 4) corners with N labels and scores, got {self.corners.shape}, "
                f"{count} and {None if self.scores is None else len(self.scores)}"
            )


def average_precision(
    found: Sequence[Boxes],
    annotated: Sequence[Boxes],
    *,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> float:
    """Return COCO's AP in [0, 1]: the mean over categories and IoU thresholds.

    Args:
        found: Detections, one entry a picture; the 100 of highest score count of each category.
        annotated: Annotations of the same pictures, none of them a crowd.
        thresholds: IoU from which a detection counts as right; ``(0.5,)`` gives AP50.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
        SettingsError: Not the same number of pictures, or nothing annotated.

    Source:
        Lin et al., Microsoft COCO, ECCV 2014; computed by faster-coco-eval.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingExtraError("average precision", "faster_coco_eval", "train") from error
    if len(found) != len(annotated):
        raise SettingsError(f"expected detections for {len(annotated)} pictures, got {len(found)}")
    truths = _rows(annotated)
    if not truths:
        raise SettingsError("expected annotated boxes to compare with, got none")
    if any(boxes.scores is None for boxes in found):
        raise SettingsError("expected detections with scores, got none")
    categories = sorted({row["category_id"] for row in truths})
    truth = COCO(
        {
            "images": [{"id": number} for number in range(len(annotated))],
            "annotations": truths,
            "categories": [{"id": category} for category in categories],
        }
    )
    judge = COCOeval_faster(truth, truth.loadRes(_rows(found)), iouType="bbox")
    judge.params.iouThrs = np.array(thresholds)
    judge.params.maxDets, judge.params.areaRng = [_MOST_PER_PICTURE], [_ANY_AREA]
    judge.params.areaRngLbl = ["all"]
    judge.evaluate()
    judge.accumulate()
    return float(np.mean(judge.eval["precision"]))


def _rows(pictures: Sequence[Boxes]) -> list[dict[str, Any]]:
    """Return boxes as COCO's JSON has them; ids from 1, for 0 means none."""
    rows: list[dict[str, Any]] = []
    for picture, boxes in enumerate(pictures):
        scores = np.ones(len(boxes.labels)) if boxes.scores is None else boxes.scores
        for (x0, y0, x1, y1), label, score in zip(
            boxes.corners.tolist(), boxes.labels.tolist(), scores.tolist(), strict=True
        ):
            width, height = max(0.0, x1 - x0), max(0.0, y1 - y0)
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": picture,
                    "category_id": label,
                    "bbox": [x0, y0, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": score,
                }
            )
    return rows
