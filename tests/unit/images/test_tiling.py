"""The plan of looks at a picture, and the merging of what they find."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scotoma.images.tiling import OVERLAP, TILE, is_cut, merge, plan_levels, suppress

sides = st.integers(1, 9000)


@given(sides, sides, st.sampled_from([0.25, 1.0, 2.0]))
@settings(max_examples=60)
def test_tiles_cover_each_level_and_overlap(width: int, height: int, detail: float) -> None:
    levels = plan_levels((width, height), detail)
    assert max(levels[-1].size) <= 640 or len(levels[-1].tiles) == 1
    for level in levels:
        for axis in (0, 1):
            spans = sorted({(tile[axis], tile[axis + 2]) for tile in level.tiles})
            assert spans[0][0] == 0
            assert spans[-1][1] == level.size[axis]
            assert all(stop - start <= TILE for start, stop in spans)
            for (_, stop), (start, _) in pairwise(spans):
                assert stop - start >= OVERLAP - 1


def test_small_pictures_are_enlarged_and_large_ones_seen_at_several_sizes() -> None:
    assert [level.size for level in plan_levels((227, 227), 1.0)] == [(454, 454)]
    assert [level.size for level in plan_levels((800, 600), 1.0)] == [(1024, 768), (256, 192)]
    sizes = [level.size for level in plan_levels((4000, 3000), 1.0)]
    assert sizes == [(4000, 3000), (1000, 750), (250, 188)]
    assert len(plan_levels((4000, 3000), 1.0)[0].tiles) == 20


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(shared / (areas - shared))


@given(st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_suppression_is_the_slow_and_obvious_one(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 50, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(1, 30, (count, 2))], axis=1)
    scores = generator.random(count)
    expected: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(iou(boxes[index], boxes[other]) < 0.3 for other in expected):
            expected.append(int(index))
    assert suppress(boxes, scores).tolist() == expected


def test_cut_means_at_an_inner_border() -> None:
    boxes = np.array([[0.0, 0.0, 30.0, 30.0], [990.0, 50.0, 1020.0, 90.0], [500, 500, 530, 540]])
    assert is_cut(boxes, (0, 0, 1024, 1024), (2000, 1024)).tolist() == [False, True, False]
    assert is_cut(boxes, (0, 0, 1024, 1024), (1024, 1024)).tolist() == [False, False, False]
    assert is_cut(boxes, (0, 0, 1024, 1024), (1024, 2000)).tolist() == [False, False, False]


@pytest.mark.parametrize("cut_score", [0.2, 0.99])
def test_a_cut_box_yields_to_a_whole_one_only(cut_score: float) -> None:
    whole, half, lone = [100.0, 100, 200, 200], [150.0, 100, 200, 200], [400.0, 100, 450, 200]
    boxes = np.array([whole, half, lone])
    scores = np.array([0.5, cut_score, 0.4])
    kept = merge(boxes, scores, np.array([False, True, True]))
    assert kept.tolist() == [0, 2]


def test_nothing_found_is_nothing_kept() -> None:
    assert merge(np.empty((0, 4)), np.empty(0), np.empty(0, np.bool_)).tolist() == []
