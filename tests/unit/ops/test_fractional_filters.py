"""Fractional filters against a slow sum of single terms, known derivatives, and their limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scotoma.core.errors import SettingsError
from scotoma.ops.fractional_filters import (
    fractional_kernel,
    fractional_profile,
    fractional_shape,
    separable_energy,
    shape_bounds,
)

centres = st.floats(-2, 2)
sigmas = st.floats(0.4, 4)
orders = st.floats(-1, 3)


def slow_profile(centre: float, sigma: float, order: float, length: int, terms: int) -> list[float]:
    """Return the sum written out, with binomials from the gamma function."""
    values = []
    for place in range(length):
        x = place - (length - 1) / 2
        total = 0.0
        for n in range(terms):
            binomial = 1.0
            for factor in range(n):
                binomial *= (order - factor) / (factor + 1)
            total += (-1) ** n * binomial * math.exp(-(((x - n - centre) / sigma) ** 2) / 2)
        values.append(total)
    return values


@settings(deadline=None)
@given(centres, centres, sigmas, orders, orders, st.integers(1, 7), st.integers(1, 7))
def test_a_kernel_is_the_sum_written_out(
    x0: float, y0: float, sigma: float, a: float, b: float, height: int, width: int
) -> None:
    row = torch.tensor(slow_profile(x0, sigma, a, width, 9), dtype=torch.double)
    column = torch.tensor(slow_profile(y0, sigma, b, height, 9), dtype=torch.double)
    if row.norm() < 1e-4 or column.norm() < 1e-4:
        return  # what is all but zero has no direction to compare
    expected = -2.5 * torch.outer(column / column.norm(), row / row.norm())
    parameters = torch.tensor([-2.5, x0, y0, sigma, a, b], dtype=torch.double)
    torch.testing.assert_close(
        fractional_kernel(parameters, (height, width), terms=9), expected, atol=1e-6, rtol=1e-6
    )


def test_orders_are_differences_and_sums() -> None:
    def at(order: float) -> torch.Tensor:
        numbers = torch.tensor([0.3, 1.2, order], dtype=torch.double)
        return fractional_profile(*numbers, 9, terms=15)

    def unit(values: torch.Tensor) -> torch.Tensor:
        return values / values.norm()

    places = torch.arange(-24, 5, dtype=torch.double)
    gaussian = torch.exp(-(((places - 0.3) / 1.2) ** 2) / 2)
    torch.testing.assert_close(at(0), unit(gaussian[-9:]))
    torch.testing.assert_close(at(1), unit(gaussian.diff()[-9:]))
    torch.testing.assert_close(at(2), unit(gaussian.diff().diff()[-9:]))
    torch.testing.assert_close(at(-1), unit(gaussian.cumsum(0)[-9:]), atol=1e-6, rtol=1e-5)
    twice_half = at(0.5)
    assert (twice_half - at(0)).norm() > 0.1
    assert (twice_half - at(1)).norm() > 0.1


def test_gradients_are_those_of_small_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = torch.rand(4, 6, dtype=torch.double, generator=generator) + 0.4
    parameters[0, 4:] = 1.0  # whole orders end the sum early
    torch.autograd.gradcheck(
        lambda p: fractional_kernel(p, (3, 5)), parameters.requires_grad_(), atol=1e-6
    )


@settings(deadline=None)
@given(st.integers(1, 11), st.integers(1, 11), st.integers(0, 1000))
def test_shapes_have_unit_norm_and_one_row_times_one_column(
    height: int, width: int, seed: int
) -> None:
    lower, upper = map(torch.tensor, shape_bounds((height, width)))
    drawn = torch.rand(6, 5, generator=torch.Generator().manual_seed(seed))
    shape = fractional_shape((lower + (upper - lower) * drawn).double(), (height, width))
    assert torch.isfinite(shape).all()
    norms = shape.norm(dim=(1, 2))
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)
    assert (separable_energy(shape) > 1 - 1e-9).all()


def test_a_narrow_filter_far_outside_is_still_finite_and_differentiable() -> None:
    parameters = torch.tensor([1.0, 3.5, 3.5, 0.3, 0.0, 0.0], requires_grad=True)
    kernel = fractional_kernel(parameters, (3, 3))
    kernel.sum().backward()  # type: ignore[no-untyped-call]
    assert parameters.grad is not None
    assert torch.isfinite(parameters.grad).all()
    assert float(kernel.detach().norm()) == pytest.approx(1)
    assert kernel[2, 2] > 0.99, "its nearest corner"


def test_separable_energy_is_that_of_the_best_product() -> None:
    kernel = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert float(separable_energy(kernel)) == pytest.approx(0.8)
    assert float(separable_energy(torch.zeros(3, 3))) == 1


@pytest.mark.parametrize(
    ("numbers", "message"), [(5, "expected 6 numbers per filter"), (7, "got 7")]
)
def test_wrong_numbers_are_named(numbers: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fractional_kernel(torch.ones(2, numbers), (3, 3))
    with pytest.raises(SettingsError, match="expected 5 numbers per shape"):
        fractional_shape(torch.ones(2, 6), (3, 3))
    with pytest.raises(SettingsError, match="got 0 and 15"):
        fractional_profile(*torch.ones(3), 0)
