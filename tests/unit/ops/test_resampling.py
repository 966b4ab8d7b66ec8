"""Resize matrices against Pillow itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.ops.resampling import cell_matrix, resize_matrix

FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize("name", FILTERS)
@settings(max_examples=25, deadline=None)
@given(before=st.integers(1, 90), after=st.integers(1, 90), seed=st.integers(0, 9))
def test_equals_pillow_in_float(name: str, before: int, after: int, seed: int) -> None:
    # Pillow resizes float pictures ("F") without rounding: a one-pixel-high strip is one axis.
    values = np.random.default_rng(seed).uniform(0, 255, (1, before)).astype(np.float32)
    expected = np.asarray(Image.fromarray(values).resize((after, 1), FILTERS[name]))
    assert np.allclose(values @ resize_matrix(before, after, name).T, expected, atol=1e-3)


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 8), (9, 3), (7, 5)])
def test_nearest_equals_pillow(before: int, after: int) -> None:
    values = np.random.default_rng(0).uniform(0, 255, (1, before)).astype(np.float32)
    expected = np.asarray(Image.fromarray(values).resize((after, 1), Image.Resampling.NEAREST))
    assert np.allclose(values @ resize_matrix(before, after, "nearest").T, expected)


def test_rejects_sizes_and_names() -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        resize_matrix(0, 4, "box")
    with pytest.raises(UnknownNameError, match="did you mean 'bicubic'"):
        resize_matrix(4, 3, "bicubik")


@pytest.mark.parametrize("smooth", [True, False])
@given(size=st.integers(1, 200), cells=st.integers(1, 200))
def test_cells_keep_their_range(smooth: bool, size: int, cells: int) -> None:
    if cells > size:
        with pytest.raises(SettingsError, match="cells <= size"):
            cell_matrix(size, cells, smooth=smooth)
        return
    matrix = cell_matrix(size, cells, smooth=smooth)
    assert matrix.shape == (size, cells)
    assert np.allclose(matrix.sum(1), 1)
    assert matrix.min() >= 0
    assert (matrix.sum(0) > 0).all()  # every cell moves some pixel


def test_flat_cells_are_squares() -> None:
    assert cell_matrix(6, 3, smooth=False).argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
