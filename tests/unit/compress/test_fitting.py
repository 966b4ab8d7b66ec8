"""Fits reach what can be reached, never more, and say honestly what they leave."""

from __future__ import annotations

import pytest
import torch

from scotoma.compress.fitting import (
    FitSettings,
    fit_kernels,
    fit_layer,
    fit_stacks,
    kernel_errors,
)
from scotoma.compress.fractional_layer import FractionalLayer
from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.ops.fractional_filters import fractional_kernel, separable_energy, shape_bounds


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw_filters(count: int, size: tuple[int, int]) -> torch.Tensor:
    lower, upper = map(torch.tensor, shape_bounds(size))
    places = torch.rand(count, 5, generator=torch.Generator().manual_seed(3)) * 0.8 + 0.1
    shapes = lower + (upper - lower) * places
    return fractional_kernel(torch.cat([draw(count, 1) + 3, shapes], -1), size)


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (7, 6)])
def test_the_table_finds_filters_again(size: tuple[int, int]) -> None:
    kernels = draw_filters(40, size)
    rebuilt = fractional_kernel(fit_kernels(kernels), size)
    left = (kernels - rebuilt).square().sum((1, 2)) / kernels.square().sum((1, 2))
    assert float(left.median()) < 1e-3
    assert float(left.max()) < 0.05


@pytest.mark.parametrize("method", ["table", "gradient", "fda", "random"])
def test_no_fit_explains_more_than_a_row_times_a_column(method: str) -> None:
    kernels = draw(12, 5, 5)
    settings = FitSettings(method, budget=200, steps=40)
    errors = fit_stacks(kernels[:, None], settings).errors
    floor = 1 - separable_energy(kernels)
    assert (errors > floor - 1e-5).all()
    assert (errors < 1).all()


def test_the_table_beats_random_search_and_random_starts_at_more_evaluations() -> None:
    stacks = draw(60, 1, 5, 5)
    table = fit_stacks(stacks, FitSettings("table", starts=1, steps=60))
    gradient = fit_stacks(stacks, FitSettings("gradient", starts=4, steps=60))
    random = fit_stacks(stacks, FitSettings("random", budget=400))
    assert table.errors.mean() < gradient.errors.mean() < random.errors.mean()
    assert table.evaluations < gradient.evaluations


def test_searches_spend_their_budget_and_repeat() -> None:
    stacks = draw(3, 1, 3, 3)
    found = fit_stacks(stacks, FitSettings("random", budget=70))
    assert found.evaluations == 3 * 70
    again = fit_stacks(stacks, FitSettings("random", budget=70))
    assert torch.equal(found.shapes, again.shapes)
    other = fit_stacks(stacks, FitSettings("random", budget=70, seed=9))
    assert not torch.equal(found.shapes, other.shapes)


@pytest.mark.parametrize("sharing", ["kernel", "filter", "layer"])
@pytest.mark.parametrize("atoms", [1, 2])
def test_errors_are_those_of_the_rebuilt_weight(sharing: str, atoms: int) -> None:
    weight = draw(4, 12, 3, 3)  # more kernels in a filter than weights in a kernel
    settings = FitSettings(sharing=sharing, atoms=atoms, steps=30)
    layer = fit_layer(weight, settings)
    stacks = weight.reshape(-1, {"kernel": 1, "filter": 12, "layer": 48}[sharing], 3, 3)
    left = (weight - layer.weight()).square().reshape(len(stacks), -1).sum(1)
    told = fit_stacks(stacks, settings).errors
    torch.testing.assert_close(
        left / stacks.square().sum((1, 2, 3)), told, atol=1e-4, rtol=1e-3, check_dtype=False
    )


def test_amplitudes_are_the_best_ones() -> None:
    weight = draw(3, 4, 3, 3)
    layer = fit_layer(weight, FitSettings(sharing="filter", atoms=2, steps=20))
    least = (weight - layer.weight()).square().sum()
    for seed in range(5):
        moved = layer.amplitudes + 0.05 * draw(*layer.amplitudes.shape, seed=seed)
        other = FractionalLayer(layer.shapes, moved, layer.mask, layer.plain)
        assert (weight - other.weight()).square().sum() > least


def test_two_atoms_leave_less_than_one_and_sharing_leaves_more() -> None:
    weight = draw(6, 8, 3, 3)

    def left(**settings: object) -> float:
        layer = fit_layer(weight, FitSettings(**settings))  # type: ignore[arg-type]
        return float((weight - layer.weight()).square().sum() / weight.square().sum())

    own, shared = left(), left(sharing="filter")
    assert left(atoms=2) < 0.7 * own
    assert left(sharing="filter", atoms=3) < shared
    assert own < shared < left(sharing="layer") < 1


def test_kernels_outside_the_mask_stay_as_they_are() -> None:
    weight = draw(4, 5, 3, 3)
    mask = draw(4, 5, seed=1) > 0
    layer = fit_layer(weight, FitSettings(steps=5), mask)
    rebuilt = layer.weight()
    assert torch.equal(rebuilt[~mask], weight[~mask])
    errors = kernel_errors(weight, layer)
    assert (errors[~mask] == 0).all()
    assert (errors[mask] > 0).all()
    assert layer.numbers == 6 * int(mask.sum()) + 9 * int((~mask).sum())


def test_shared_shapes_are_counted_once() -> None:
    weight = draw(4, 5, 3, 3)
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1, :2] = mask[3] = True
    layer = fit_layer(weight, FitSettings(steps=2, sharing="filter", atoms=2), mask)
    assert layer.shapes_used.flatten().tolist() == [False, True, False, True]
    assert layer.numbers == 2 * 2 * 5 + 7 * 2 + 13 * 9


def test_gradients_reach_what_is_stored_and_nothing_else() -> None:
    weight = draw(3, 4, 3, 3)
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[0] = True
    layer = fit_layer(weight, FitSettings(steps=2), mask)
    leaves = [layer.shapes, layer.amplitudes, layer.plain]
    for leaf in leaves:
        leaf.requires_grad_()
    layer.weight().square().sum().backward()  # type: ignore[no-untyped-call]
    for leaf in leaves[:2]:
        assert leaf.grad is not None
        assert (leaf.grad[mask] != 0).any()
        assert (leaf.grad[~mask] == 0).all()
    assert layer.plain.grad is not None
    assert (layer.plain.grad[mask] == 0).all()
    assert (layer.plain.grad[~mask] != 0).all()


def test_dead_kernels_stay_dead() -> None:
    weight = draw(2, 3, 3, 3)
    weight[1] = 0
    layer = fit_layer(weight, FitSettings(steps=10))
    assert torch.equal(layer.weight()[1], weight[1])
    assert torch.isfinite(layer.shapes).all()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": "tabel"}, UnknownNameError, "did you mean 'table'"),
        ({"sharing": "channel"}, UnknownNameError, "no sharing named 'channel'"),
        ({"atoms": 0}, SettingsError, "atoms of at least 1, got 0"),
        ({"starts": 9}, SettingsError, "at most 8 starts"),
        ({"budget": 0}, SettingsError, "budget of at least 1"),
        ({"steps": -1}, SettingsError, "steps of at least 0"),
    ],
)
def test_bad_settings_are_named(
    settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        FitSettings(**settings)  # type: ignore[arg-type]


def test_bad_kernels_are_named() -> None:
    with pytest.raises(SettingsError, match="NaN or infinity"):
        fit_kernels(torch.full((2, 3, 3), torch.nan))
    with pytest.raises(SettingsError, match="expected float kernels"):
        fit_layer(torch.ones(2, 3, 3, 3, dtype=torch.int32))
    with pytest.raises(SettingsError, match="use fit_layer"):
        fit_kernels(torch.ones(2, 3, 3), FitSettings(sharing="filter"))
    with pytest.raises(SettingsError, match="expected shapes as"):
        FractionalLayer(
            torch.ones(2, 1, 1, 5),
            torch.ones(3, 1, 1),
            torch.ones(3, 1) > 0,
            torch.ones(3, 1, 3, 3),
        )
