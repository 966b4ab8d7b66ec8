"""COCO's average precision of detected boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import SettingsError

__all__ = ["IOU_THRESHOLDS", "Boxes", "average_precision", "box_iou"]

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_RECALLS = np.linspace(0, 1, 101)
_MOST_PER_PICTURE = 100


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


def box_iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(N, M)`` intersection over union of ``(N, 4)`` with ``(M, 4)`` boxes."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    intersection: NDArray[np.float64] = (high - low).clip(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - intersection
    overlaps = np.zeros_like(intersection)
    np.divide(intersection, union, out=overlaps, where=union > 0)
    return overlaps


def average_precision(
    found: Sequence[Boxes],
    annotated: Sequence[Boxes],
    *,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> float:
    """Return COCO's AP in [0, 1]: the mean over categories and IoU thresholds.

    For each, detections are taken in order of their scores; each claims the yet unclaimed
    annotation it overlaps most, if by the threshold or more, else it is false. Precision is
    made monotone and averaged over 101 recalls.

    Args:
        found: Detections, one entry a picture; the 100 of highest score count.
        annotated: Annotations of the same pictures.
        thresholds: IoU from which a detection counts as right; ``(0.5,)`` gives AP50.

    Raises:
        SettingsError: Not the same number of pictures, or nothing annotated.

    Differences from pycocotools:
        No crowds and no size classes.

    Source:
        Lin et al., Microsoft COCO, ECCV 2014; the evaluation code of its authors.
    """
    if len(found) != len(annotated):
        raise SettingsError(f"expected detections for {len(annotated)} pictures, got {len(found)}")
    categories = np.unique(np.concatenate([[], *(boxes.labels for boxes in annotated)]))
    if len(categories) == 0:
        raise SettingsError("expected annotated boxes to compare with, got none")
    best = [_highest(boxes) for boxes in found]
    values: list[float] = []
    for category in categories:
        parts, total = _overlaps(best, annotated, category)
        values.extend(_precision(parts, total, threshold) for threshold in thresholds)
    return float(np.mean(values))


def _highest(boxes: Boxes) -> Boxes:
    if boxes.scores is None:
        raise SettingsError("expected detections with scores, got none")
    order = np.argsort(-boxes.scores, kind="stable")[:_MOST_PER_PICTURE]
    return Boxes(boxes.corners[order], boxes.labels[order], boxes.scores[order])


def _overlaps(
    found: Sequence[Boxes], annotated: Sequence[Boxes], category: float
) -> tuple[list[tuple[NDArray[np.float64], NDArray[np.float64]]], int]:
    """Scores and overlaps of a category's detections in each picture, and its annotations."""
    parts = []
    total = 0
    for detections, truths in zip(found, annotated, strict=True):
        mine, there = detections.labels == category, truths.labels == category
        total += int(there.sum())
        if detections.scores is not None and mine.any():
            overlaps = box_iou(detections.corners[mine], truths.corners[there])
            parts.append((detections.scores[mine], overlaps))
    return parts, total


def _precision(
    parts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], total: int, threshold: float
) -> float:
    if not parts:
        return 0.0
    scores = np.concatenate([score for score, _ in parts])
    right = np.concatenate([_claims(overlaps, threshold) for _, overlaps in parts])
    hits = right[np.argsort(-scores, kind="stable")].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(hits / total, _RECALLS, side="left")
    return float(np.mean(np.append(envelope, 0.0)[reached]))


def _claims(overlaps: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Whether each detection, by falling score, finds an annotation no other has claimed."""
    right = np.zeros(len(overlaps), dtype=bool)
    free = np.ones(overlaps.shape[1], dtype=bool)
    # A detection that overlaps nothing enough claims nothing.
    for number in np.flatnonzero((overlaps >= threshold).any(axis=1)):
        candidates = np.where(free, overlaps[number], -1.0)
        best = int(candidates.argmax())
        if candidates[best] >= threshold:
            right[number], free[best] = True, False
    return right
