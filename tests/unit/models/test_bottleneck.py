"""The bottleneck's shapes, and the quantizer's bytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scotoma.core.errors import ImageError, ModelError, SettingsError
from scotoma.models.bottleneck import Bottleneck, BottleneckSettings, Quantizer, activation_of


def test_the_papers_widths() -> None:
    features = torch.randn(2, 192, 4, 4)
    settings = BottleneckSettings.sized_to(features)
    assert (settings.hidden, settings.channels) == (128, 64)


def test_the_decoder_ends_as_the_cut_did() -> None:
    values = torch.linspace(-5, 5, 101)
    assert activation_of(values) == "linear"
    assert activation_of(values.relu()) == "relu"
    assert activation_of(torch.nn.functional.silu(values)) == "silu"
    settings = BottleneckSettings(6, 2, 4, activation="relu")
    decoded = Bottleneck(settings).decode(torch.randn(1, 2, 5, 5), (5, 5))
    assert float(decoded.detach().min()) >= 0


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (13, 16)])
def test_the_tail_gets_the_cuts_own_shape(stride: int, size: tuple[int, int]) -> None:
    bottleneck = Bottleneck(BottleneckSettings(6, 3, 5, stride))
    latent = bottleneck.encode(torch.randn(2, 6, *size))
    assert latent.shape == (2, 3, -(-size[0] // stride), -(-size[1] // stride))
    assert bottleneck.decode(latent, size).shape == (2, 6, *size)


@pytest.mark.parametrize("seed", range(5))
def test_calibration_spreads_latents(seed: int) -> None:
    torch.manual_seed(seed)
    bottleneck = Bottleneck(BottleneckSettings(6, 3, 5))
    features = torch.randn(4, 6, 8, 8) * 50 + 7
    bottleneck.calibrate(features, 2.0)
    latent = bottleneck.encode(features).detach()
    assert float(latent.std()) == pytest.approx(2.0, rel=1e-3)
    assert float(latent.mean((0, 2, 3)).abs().max()) < 1e-3


@given(levels=st.integers(2, 256), step=st.sampled_from([0.0, 0.25, 1.0]), seed=st.integers(0, 99))
def test_bytes_survive_the_way_there_and_back(levels: int, step: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    quantizer = Quantizer(3, levels)
    quantizer.fit(torch.randn(5, 3, 4, 4, generator=generator) * 3 + 1, step)
    places = torch.arange(levels).to(torch.uint8).expand(1, 3, 1, levels).contiguous()
    assert torch.equal(quantizer.quantize(quantizer.dequantize(places)), places)


def test_rounding_moves_a_latent_by_half_a_step_within_six_sigma_and_clips_beyond() -> None:
    latents = torch.randn(50, 2, 8, 8)
    quantizer = Quantizer(2)
    quantizer.fit(latents)
    sigma = float(latents.std())
    assert float(quantizer.step) == pytest.approx(12 * sigma / 255)
    back = quantizer.dequantize(quantizer.quantize(latents))
    assert float((back - latents).abs().max()) <= float(quantizer.step) / 2 * (1 + 1e-4)
    far = torch.full((1, 2, 1, 1), 100 * sigma)
    clipped = quantizer.dequantize(quantizer.quantize(far))
    assert float(clipped.max()) == pytest.approx(6 * sigma, rel=0.05)


def test_a_step_of_trainings_own_keeps_its_places() -> None:
    latents = torch.randn(50, 2, 8, 8) * 4 + torch.tensor([3.3, -7.7])[:, None, None]
    quantizer = Quantizer(2)
    quantizer.fit(latents, 1.0)
    assert torch.equal(quantizer.dequantize(quantizer.quantize(latents)), latents.round())


@pytest.mark.parametrize("latents", [torch.ones(2, 2, 3, 3), torch.full((2, 2, 3, 3), torch.nan)])
def test_latents_that_tell_nothing_are_refused(latents: torch.Tensor) -> None:
    with pytest.raises(SettingsError, match="deviation"):
        Quantizer(2).fit(latents)


@pytest.mark.parametrize(
    "wrong", [{"channels": 0}, {"stride": 3}, {"activation": "tanh"}, {"features": -1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    right = {"features": 8, "channels": 3, "hidden": 5}
    with pytest.raises(SettingsError, match="expected"):
        BottleneckSettings(**{**right, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="settings"):
        BottleneckSettings.from_config({**right, **wrong})


def test_a_cut_without_a_grid_and_more_levels_than_a_byte_are_refused() -> None:
    with pytest.raises(ImageError, match="grid"):
        BottleneckSettings.sized_to(torch.randn(2, 10, 64))
    with pytest.raises(SettingsError, match="levels"):
        Quantizer(2, 257)
