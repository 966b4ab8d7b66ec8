"""The choice of kernels against an accuracy whose best choice is known."""

from __future__ import annotations

import pytest
import torch

from scotoma.compress.fitting import FitSettings, fit_layer
from scotoma.compress.selection import (
    Selection,
    SelectionSettings,
    choose_kernels,
    replace_kernels,
)
from scotoma.core.errors import ScoreError, SettingsError, UnknownNameError

HARMS = {
    "safe": torch.linspace(0, 1, 40).reshape(4, 10),
    "mixed": torch.linspace(1, 0, 40).reshape(8, 5),
    "fragile": torch.linspace(0, 1, 20).reshape(20, 1),
}
TRUE = {"safe": 0.0, "mixed": 2.0, "fragile": 30.0}
"""Points lost per unit of harm: what a threshold on harm cannot know."""
SAVINGS = {"safe": 3.0, "mixed": 3.0, "fragile": 3.0}


class Accuracy:
    def __init__(self) -> None:
        self.asked: list[dict[str, torch.Tensor]] = []

    def __call__(self, masks: dict[str, torch.Tensor]) -> float:
        self.asked.append(masks)
        return 90 - sum(TRUE[name] * float(HARMS[name][mask].sum()) for name, mask in masks.items())


def choose(method: str, *, budget: int, lost: float) -> tuple[Selection, Accuracy]:
    accuracy = Accuracy()
    settings = SelectionSettings(method, budget=budget)
    return choose_kernels(HARMS, SAVINGS, accuracy, lost=lost, settings=settings), accuracy


@pytest.mark.parametrize("method", ["threshold", "fda-lines", "fda", "random"])
@pytest.mark.parametrize("lost", [0.0, 5.0])
def test_the_choice_is_one_that_was_measured_and_keeps_the_budget(method: str, lost: float) -> None:
    found, accuracy = choose(method, budget=40, lost=lost)
    assert found.accuracy >= 90 - lost
    assert found.accuracy == pytest.approx(Accuracy()(found.masks))
    assert found.evaluations == len(accuracy.asked) <= 40
    assert found.saved == 3 * sum(int(mask.sum()) for mask in found.masks.values())
    feasible = [masks for masks in accuracy.asked if Accuracy()(masks) >= 90 - lost]
    most = max(3 * sum(int(mask.sum()) for mask in masks.values()) for masks in feasible)
    assert found.saved == most, "the best of what was measured"


def test_the_search_finds_what_one_limit_for_all_layers_cannot() -> None:
    search, _ = choose("fda-lines", budget=150, lost=5.0)
    threshold, _ = choose("threshold", budget=150, lost=5.0)
    assert int(search.masks["safe"].sum()) > int(threshold.masks["safe"].sum())
    assert search.saved > 1.3 * threshold.saved


def test_kernels_go_least_harm_first() -> None:
    found, _ = choose("fda-lines", budget=60, lost=5.0)
    for name, mask in found.masks.items():
        if mask.any() and not mask.all():
            assert HARMS[name][mask].max() <= HARMS[name][~mask].min()


def test_nothing_is_chosen_where_everything_harms() -> None:
    def measure(masks: dict[str, torch.Tensor]) -> float:
        return 90.0 - 50 * any(bool(mask.any()) for mask in masks.values())

    for method in ("threshold", "fda-lines", "random"):
        settings = SelectionSettings(method, budget=20)
        found = choose_kernels(HARMS, SAVINGS, measure, lost=1.0, settings=settings)
        assert not any(mask.any() for mask in found.masks.values())
        assert (found.accuracy, found.saved) == (90.0, 0.0)


def test_everything_is_chosen_where_nothing_harms() -> None:
    settings = SelectionSettings("threshold", budget=3)
    found = choose_kernels(HARMS, SAVINGS, lambda _: 90.0, lost=0.0, settings=settings)
    assert found.saved == 300
    assert found.evaluations == 2


def test_a_replaced_kernel_is_what_it_was() -> None:
    weight = torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    whole = fit_layer(weight, FitSettings(starts=1, steps=5))
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(1)) > 0.5
    part = replace_kernels(weight, whole, mask)
    assert torch.equal(part.weight()[~mask], weight[~mask])
    assert torch.equal(part.weight()[mask], whole.weight()[mask])


def test_bad_choices_are_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'threshold'"):
        SelectionSettings("treshold")
    with pytest.raises(SettingsError, match="budget of at least 1"):
        SelectionSettings(budget=0)
    with pytest.raises(SettingsError, match="savings for each"):
        choose_kernels(HARMS, {"safe": 1.0}, Accuracy(), lost=1)
    with pytest.raises(SettingsError, match="accuracy to lose"):
        choose_kernels(HARMS, SAVINGS, Accuracy(), lost=-1)
    with pytest.raises(SettingsError, match="finite harms"):
        choose_kernels({"a": torch.full((2, 2), torch.nan)}, {"a": 1.0}, Accuracy(), lost=1)
    with pytest.raises(ScoreError, match="finite accuracy, got nan"):
        choose_kernels(HARMS, SAVINGS, lambda _: float("nan"), lost=1)
