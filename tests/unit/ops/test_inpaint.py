"""The interpolated surface: exact where it can be, within bounds, near to harmonic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from scotoma.ops.inpaint import interpolate


@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20)), st.integers(0, 2**32 - 1)
)
def test_known_values_stay_and_bound_the_others(known: np.ndarray, seed: int) -> None:
    assume(known.any())
    values = np.random.default_rng(seed).random((2, *known.shape), dtype=np.float32)
    surface = interpolate(values, known)
    assert np.array_equal(surface[:, known], values[:, known])
    for plane, given_plane in zip(surface, values, strict=True):
        assert plane.min() >= given_plane[known].min() - 1e-5
        assert plane.max() <= given_plane[known].max() + 1e-5


def test_unknown_values_are_not_read() -> None:
    known = np.ones((40, 50), np.bool_)
    known[5:30, 10:45] = False
    values = np.random.default_rng(0).random((3, 40, 50), dtype=np.float32)
    poisoned = np.where(known, values, np.float32(np.nan))
    assert np.array_equal(interpolate(poisoned, known), interpolate(values, known))


@pytest.mark.parametrize("side", [24, 96])
def test_the_surface_is_near_to_the_solution_of_laplaces_equation(side: int) -> None:
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    exact = (x * x - y * y + 0.5 * x * y)[None]  # harmonic
    known = np.ones((side, side), np.bool_)
    known[2:-2, 2:-2] = False
    error = np.abs(interpolate(exact, known) - exact)
    assert error.max() < 0.08 * np.ptp(exact)
    constant = np.full_like(exact, exact[:, known].mean())
    assert error[:, ~known].mean() < 0.1 * np.abs(constant - exact)[:, ~known].mean()
