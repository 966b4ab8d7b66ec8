"""Fits by outputs against convolutions that are really run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scotoma.compress.fitting import FitSettings, fit_layer
from scotoma.compress.fractional_layer import FractionalLayer
from scotoma.compress.moments import find_moments
from scotoma.compress.output_fitting import (
    OutputFitSettings,
    bias_shift,
    fit_outputs,
    output_error,
)
from scotoma.core.errors import SettingsError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(channels: int, *, seed: int, count: int = 60) -> torch.Tensor:
    """Smooth features with means, channels alike: what layers read is never white."""
    mixed = torch.einsum(
        "ij,bjhw->bihw", draw(channels, channels, seed=5), draw(count, channels, 8, 8, seed=seed)
    )
    smooth = nn.functional.avg_pool2d(mixed, 3, 1, 1)
    return smooth + torch.linspace(-1, 2, channels)[:, None, None]


def convolution(out: int, inputs: int, groups: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, out, 3, padding=1, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(draw(*layer.weight.shape, seed=1))
        layer.bias.copy_(draw(out, seed=2))  # type: ignore[union-attr]
    return layer.requires_grad_(False).eval()


def moment_of(layer: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    network = nn.Sequential(layer)
    generator = torch.Generator().manual_seed(0)
    return find_moments(network, images.split(16), generator=generator)["0"]


def measured(
    layer: nn.Conv2d, other: FractionalLayer, shift: torch.Tensor, images: torch.Tensor
) -> torch.Tensor:
    """Return the share of each output's variance that is wrong, from running both."""
    before = layer(images)
    after = nn.functional.conv2d(
        images, other.weight(), layer.bias + shift, padding=1, groups=layer.groups
    )
    return (before - after).square().mean((0, 2, 3)) / before.var((0, 2, 3))


@pytest.mark.parametrize(("out", "inputs", "groups"), [(4, 6, 1), (6, 6, 6), (4, 6, 2)])
def test_fits_by_outputs_err_less_on_pictures_they_have_not_seen(
    out: int, inputs: int, groups: int
) -> None:
    layer = convolution(out, inputs, groups)
    seen, fresh = pictures(inputs, seed=0, count=200), pictures(inputs, seed=1)
    moment = moment_of(layer, seen)
    first = fit_layer(layer.weight, FitSettings(starts=1, steps=40))
    better = fit_outputs(layer.weight, first, moment)
    before = measured(layer, first, bias_shift(layer.weight, first, moment), fresh)
    after = measured(layer, better, bias_shift(layer.weight, better, moment), fresh)
    assert after.mean() < 0.9 * before.mean()
    # What is told is what is measured, up to the pictures drawn.
    torch.testing.assert_close(
        output_error(layer.weight, better, moment), after, atol=0.03, rtol=0.3
    )


def test_the_bias_takes_what_is_off_always() -> None:
    layer = convolution(4, 6)
    images = pictures(6, seed=0, count=200)
    moment = moment_of(layer, images)
    other = fit_layer(layer.weight, FitSettings(starts=1, steps=0))
    with_shift = measured(layer, other, bias_shift(layer.weight, other, moment), images)
    without = measured(layer, other, torch.zeros(4), images)
    assert (with_shift < without).all()


def test_amplitudes_are_those_of_least_squares_on_outputs() -> None:
    layer = convolution(2, 3)
    read = nn.functional.unfold(pictures(3, seed=0), 3, padding=1).movedim(1, 2).reshape(-1, 27)
    ones = torch.cat([read, torch.ones_like(read[:, :1])], 1).double()
    moment = (ones.T @ ones / len(ones))[None]  # of every place, which no sample decides
    first = fit_layer(layer.weight, FitSettings(starts=1, steps=0))
    fitted = fit_outputs(layer.weight, first, moment, OutputFitSettings(steps=0))
    read = read.reshape(-1, 3, 9).double()
    read = read - read.mean(0)
    for channel in range(2):
        shapes = first.weight()[channel]
        shapes = shapes / shapes.norm(dim=(1, 2), keepdim=True)
        design = torch.einsum("nik,ik->ni", read, shapes.flatten(1).double())
        wanted = torch.einsum("nik,ik->n", read, layer.weight[channel].flatten(1).double())
        solved = torch.linalg.lstsq(design, wanted[:, None]).solution[:, 0]
        rebuilt = solved[:, None, None] * shapes.double()
        torch.testing.assert_close(fitted.weight()[channel].double(), rebuilt, atol=0.01, rtol=0.01)


@pytest.mark.parametrize("sharing", ["kernel", "filter", "layer"])
def test_every_sharing_and_mask_is_fitted(sharing: str) -> None:
    layer = convolution(5, 6)
    moment = moment_of(layer, pictures(6, seed=0, count=120))
    mask = draw(5, 6, seed=8) > -0.5
    first = fit_layer(layer.weight, FitSettings(sharing=sharing, atoms=2, steps=10), mask)
    better = fit_outputs(layer.weight, first, moment)
    assert torch.equal(better.weight()[~mask], layer.weight[~mask])
    assert better.shapes.shape == first.shapes.shape
    before = output_error(layer.weight, first, moment)
    after = output_error(layer.weight, better, moment)
    assert after.mean() < before.mean()


def test_a_perfect_start_stays_and_silence_is_no_error() -> None:
    layer = convolution(3, 4)
    moment = moment_of(layer, pictures(4, seed=0))
    own = fit_layer(layer.weight, FitSettings(starts=1, steps=20))
    again = fit_outputs(own.weight(), own, moment)
    assert output_error(own.weight(), again, moment).max() < 1e-4
    moment[:] = 0
    silent = fit_outputs(layer.weight, own, moment)
    assert torch.isfinite(silent.weight()).all()
    assert (output_error(layer.weight, silent, moment) == 0).all()


def test_channels_that_never_move_do_no_harm() -> None:
    layer = convolution(4, 4, groups=4)
    images = pictures(4, seed=0, count=120)
    images[:, 1] = 0
    images[:, 2] = 1234.5
    moment = moment_of(layer, images)
    first = fit_layer(layer.weight, FitSettings(starts=1, steps=20))
    better = fit_outputs(layer.weight, first, moment)
    assert torch.isfinite(better.weight()).all()
    before = output_error(layer.weight, first, moment)
    after = output_error(layer.weight, better, moment)
    assert after[0] + after[3] < before[0] + before[3]


def test_what_does_not_fit_is_named() -> None:
    layer = convolution(3, 4)
    own = fit_layer(layer.weight, FitSettings(starts=1, steps=0))
    with pytest.raises(SettingsError, match=r"expected moments \(groups, 37, 37\)"):
        fit_outputs(layer.weight, own, torch.ones(1, 36, 36))
    with pytest.raises(SettingsError, match="positive rate"):
        OutputFitSettings(rate=0)
    with pytest.raises(SettingsError, match="steps of at least 0"):
        OutputFitSettings(steps=-1)
