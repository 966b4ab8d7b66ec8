"""Decoding and suppression against slow, obvious versions of both."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from scotoma.core.errors import SettingsError
from scotoma.ops.yolo_boxes import decode_maps, suppress


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_decoding_is_the_published_formula_cell_by_cell() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 2, h, w, 7, generator=generator) for h, w in ((3, 4), (1, 2))]
    anchors = torch.rand(2, 2, 2, generator=generator) + 0.5
    rows: list[list[float]] = []
    for level, stride in enumerate((8, 16)):
        _, count, height, width, _ = maps[level].shape
        for a in range(count):
            for y in range(height):
                for x in range(width):
                    m = [_sigmoid(v) for v in maps[level][1, a, y, x].tolist()]
                    w, h = anchors[level, a].tolist()
                    rows.append(
                        [
                            (2 * m[0] - 0.5 + x) * stride,
                            (2 * m[1] - 0.5 + y) * stride,
                            (2 * m[2]) ** 2 * w * stride,
                            (2 * m[3]) ** 2 * h * stride,
                            *m[4:],
                        ]
                    )
    decoded = decode_maps(maps, anchors, (8, 16))
    assert decoded.shape == (2, len(rows), 7)
    assert decoded[1].numpy() == pytest.approx(np.array(rows), rel=1e-5, abs=1e-5)


def _overlap(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def _greedy(picture: Tensor, least: float, most_overlap: float) -> list[tuple[float, int]]:
    candidates = []
    for x, y, w, h, there, *classes in picture.double().tolist():
        for label, chance in enumerate(classes):
            if there * chance > least:
                box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                candidates.append((there * chance, label, box))
    kept: list[tuple[float, int, list[float]]] = []
    for candidate in sorted(candidates, key=lambda c: -c[0]):
        same = [other for other in kept if other[1] == candidate[1]]
        if all(_overlap(other[2], candidate[2]) <= most_overlap for other in same):
            kept.append(candidate)
    return [(score, label) for score, label, _ in kept]


def test_suppression_keeps_what_a_greedy_loop_keeps() -> None:
    generator = torch.Generator().manual_seed(0)
    decoded = torch.rand(2, 60, 4 + 1 + 3, generator=generator)
    decoded[..., :2] *= 20
    decoded[..., 2:4] = decoded[..., 2:4] * 20 + 5
    for picture, boxes in zip(decoded, suppress(decoded, least_score=0.2), strict=True):
        expected = _greedy(picture, 0.2, 0.6)
        assert 3 < len(expected) < 150
        assert boxes.scores == pytest.approx([score for score, _ in expected])
        assert boxes.labels.tolist() == [label for _, label in expected]


def test_no_more_boxes_than_asked_and_none_where_nothing_is() -> None:
    decoded = torch.rand(1, 50, 6, generator=torch.Generator().manual_seed(0))
    (boxes,) = suppress(decoded, least_score=0.0, most_overlap=1.0, most=7)
    assert len(boxes.labels) == 7
    (nothing,) = suppress(decoded * 0)
    assert nothing.corners.shape == (0, 4)


@pytest.mark.parametrize("limits", [{"least_score": math.nan}, {"most_overlap": 1.5}, {"most": 0}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="expected least_score"):
        suppress(torch.zeros(1, 1, 6), **limits)
