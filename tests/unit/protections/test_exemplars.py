"""Public pictures in place of private regions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scotoma.images.regions import Region
from scotoma.protections.anonymize.exemplars import largest_region, paste

SIDES = st.integers(1, 300)


@settings(deadline=None)
@given(width=SIDES, height=SIDES, across=st.integers(1, 90), down=st.integers(1, 60))
def test_any_exemplar_fits_any_region(width: int, height: int, across: int, down: int) -> None:
    pixels = np.full((64, 96, 3), 7, np.uint8)
    exemplar = np.full((height, width, 3), 200, np.uint8)
    x0, y0 = (96 - across) // 2, (64 - down) // 2
    pasted = paste(pixels, Region((x0, y0, x0 + across, y0 + down)), exemplar)
    assert (pasted[y0 : y0 + down, x0 : x0 + across] == 200).all()
    assert (pasted == 200).all(2).sum() == across * down


def test_a_mask_bounds_what_is_pasted() -> None:
    mask = np.eye(20, dtype=bool)
    pasted = paste(
        np.zeros((40, 40, 3), np.uint8),
        Region((5, 5, 25, 25), mask),
        np.full((9, 9, 3), 90, np.uint8),
    )
    assert (pasted == 90).all(2).sum() == 20


def test_the_largest_region_is_chosen() -> None:
    small, large = Region((0, 0, 3, 30)), Region((5, 5, 20, 20))
    assert largest_region([small, large]) is large
