"""Fits by answers lower the divergence that is really there, and never raise it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scotoma.compress.accuracy_fitting import (
    AccuracyFitSettings,
    find_divergence,
    fit_answers,
)
from scotoma.compress.fitting import FitSettings, fit_layer
from scotoma.compress.fractional_layer import FractionalLayer
from scotoma.core.errors import ModelError, SettingsError, UnknownNameError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5))
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=number) * 0.5)
    return net.eval().requires_grad_(False)


def start(network: nn.Module, **settings: object) -> dict[str, FractionalLayer]:
    fit = FitSettings(starts=1, steps=10, **settings)  # type: ignore[arg-type]
    return {
        name: fit_layer(module.weight, fit)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def divergence_by_hand(
    network: nn.Module, layers: dict[str, FractionalLayer], images: torch.Tensor
) -> float:
    """Put the weights in, ask the network, and let torch compare."""
    wanted = network(images).log_softmax(1)
    held = {name: network.get_submodule(name).weight.clone() for name in layers}
    with torch.no_grad():
        for name, layer in layers.items():
            network.get_submodule(name).weight.copy_(layer.weight())
        given = network(images).log_softmax(1)
        for name, weight in held.items():
            network.get_submodule(name).weight.copy_(weight)
    return float(nn.functional.kl_div(given, wanted, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize(
    "settings",
    [
        AccuracyFitSettings(budget=60, rate=0.01, batch=32),
        AccuracyFitSettings("random", budget=40, reach=0.05),
        AccuracyFitSettings("fda-lines", budget=60, reach=0.05),
    ],
    ids=lambda settings: settings.method,
)
@pytest.mark.parametrize("sharing", ["kernel", "filter"])
def test_the_answers_come_nearer(
    network: nn.Module, settings: AccuracyFitSettings, sharing: str
) -> None:
    images = draw(64, 3, 8, 8, seed=7)
    layers = start(network, sharing=sharing)
    fit = fit_answers(network, layers, images, settings)
    assert fit.before == pytest.approx(divergence_by_hand(network, layers, images), rel=1e-4)
    assert fit.after == pytest.approx(divergence_by_hand(network, fit.layers, images), rel=1e-4)
    assert fit.evaluations <= settings.budget
    # Sixty answers about hundreds of numbers take a search a little way, gradients a long one.
    assert fit.after < (0.7 if settings.method == "gradient" else 1.0) * fit.before


def test_gradients_help_on_pictures_not_seen(network: nn.Module) -> None:
    fresh = draw(200, 3, 8, 8, seed=11)
    layers = start(network)
    answers = network(fresh)
    fit = fit_answers(
        network, layers, draw(200, 3, 8, 8, seed=7), AccuracyFitSettings(budget=80, rate=0.01)
    )
    before = find_divergence(network, layers, fresh, answers)
    assert find_divergence(network, fit.layers, fresh, answers) < 0.7 * before


def test_plain_kernels_and_the_network_stay_and_runs_repeat(network: nn.Module) -> None:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    weight = network.get_submodule("2").weight
    mask = draw(6, 6, seed=3) > 0
    layers = {"2": fit_layer(weight, FitSettings(starts=1, steps=5), mask)}
    images = draw(40, 3, 8, 8)
    settings = AccuracyFitSettings(budget=10, rate=0.01, batch=16)
    first, second = (fit_answers(network, layers, images, settings) for _ in range(2))
    assert torch.equal(first.layers["2"].weight()[~mask], weight[~mask])
    assert not torch.equal(first.layers["2"].weight(), layers["2"].weight())
    assert torch.equal(first.layers["2"].weight(), second.layers["2"].weight())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_a_search_that_only_harms_returns_the_start() -> None:
    convolution = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
    convolution.weight.copy_(fit_layer(draw(4, 3, 3, 3), FitSettings(steps=5)).weight())
    network = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    layers = start(network)
    layers["0"] = fit_layer(convolution.weight, FitSettings(starts=8, steps=200))
    settings = AccuracyFitSettings("random", budget=5, reach=1.0)
    fit = fit_answers(network, layers, draw(30, 3, 8, 8), settings)
    assert fit.after == fit.before < 1e-4
    assert torch.equal(fit.layers["0"].weight(), layers["0"].weight())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": "gradeint"}, UnknownNameError, "did you mean 'gradient'"),
        ({"budget": 0}, SettingsError, "budget of at least 1"),
        ({"reach": 2.0}, SettingsError, "reach above 0"),
        ({"rate": 0.0}, SettingsError, "positive rate"),
        ({"seed": -1}, SettingsError, "seed of at least 0"),
    ],
)
def test_bad_accuracy_settings_are_named(
    settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AccuracyFitSettings(**settings)  # type: ignore[arg-type]


def test_what_cannot_be_fitted_is_named(network: nn.Module) -> None:
    layers = start(network)
    images = draw(2, 3, 8, 8)
    with pytest.raises(ModelError, match="convolution named 'stem'"):
        fit_answers(network, {"stem": layers["0"]}, images)
    with pytest.raises(SettingsError, match="at least one layer and one picture"):
        fit_answers(network, {}, images)
    with pytest.raises(ModelError, match="evaluation mode"):
        fit_answers(nn.Sequential(nn.Conv2d(3, 1, 3)), {"0": layers["0"]}, images)
