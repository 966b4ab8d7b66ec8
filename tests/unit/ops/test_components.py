"""Connected parts and dilation against slow and obvious versions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from scotoma.ops.components import dilate, find_components

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


def flood(mask: np.ndarray) -> list[frozenset[tuple[int, int]]]:
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    parts = []
    while left:
        todo, part = [min(left)], set()
        while todo:
            y, x = todo.pop()
            if (y, x) in left:
                left.remove((y, x))
                part.add((y, x))
                todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        parts.append(frozenset(part))
    return parts


@given(masks)
def test_parts_are_those_of_a_flood_fill_in_reading_order(mask: np.ndarray) -> None:
    found = []
    for part in find_components(mask):
        x0, y0, x1, y1 = part.box
        assert part.mask.shape == (y1 - y0, x1 - x0)
        assert part.mask.any(axis=0)[[0, -1]].all()
        assert part.mask.any(axis=1)[[0, -1]].all()
        found.append(frozenset((int(y) + y0, int(x) + x0) for y, x in np.argwhere(part.mask)))
    assert found == flood(mask)


def test_a_spiral_is_one_part() -> None:
    mask = np.zeros((9, 9), np.bool_)
    mask[0, :] = mask[:, 8] = mask[8, :] = mask[2:, 0] = True
    mask[2, :7] = mask[2:7, 6] = mask[6, 2:7] = mask[4:6, 2] = True
    mask[2, 0] = False
    assert len(find_components(mask)) == len(flood(mask))


@given(masks, st.integers(0, 5))
def test_dilation_is_the_square_neighbourhood(mask: np.ndarray, radius: int) -> None:
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        expected[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1] = True
    assert np.array_equal(dilate(mask, radius), expected)
