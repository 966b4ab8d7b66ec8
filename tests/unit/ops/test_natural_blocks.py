"""The model of natural blocks: an exact transform, and deviations that photographs have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from scotoma.ops.natural_blocks import block_transform, natural_deviations


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("block", [1, 4, 8])
def test_the_transform_loses_nothing(channels: int, block: int) -> None:
    transform = block_transform(channels, block)
    unit = torch.eye(channels * block**2, dtype=torch.float64)
    torch.testing.assert_close(transform @ transform.T, unit, atol=1e-12, rtol=0)


def test_it_is_the_cosine_transform_of_brightness_and_two_differences() -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 8, 8))
    red, green, blue = pixels
    colours = [
        (red + green + blue) / 3**0.5,
        (red - blue) / 2**0.5,
        (red - 2 * green + blue) / 6**0.5,
    ]
    expected = np.concatenate([dctn(plane, norm="ortho").ravel() for plane in colours])
    found = block_transform(3, 8) @ torch.from_numpy(pixels.ravel())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_deviations_fall_with_frequency_and_colour() -> None:
    brightness, first, second = natural_deviations(3, 8).view(3, 8, 8)
    assert (brightness.diff(dim=0) < 0).all()
    assert (brightness > first).all()
    assert (first >= second).all()
    assert float(natural_deviations(3, 8).min()) == pytest.approx(0.1)


@pytest.mark.parametrize("block", [4, 8, 16])
def test_fields_of_natural_power_come_out_even(block: int) -> None:
    """Fields whose amplitude falls with frequency: every coefficient within a factor of two."""
    side = 256
    across = np.fft.fftfreq(side)
    frequency = np.hypot(across[:, None], across)
    frequency[0, 0] = 1 / side
    random = np.random.default_rng(1)
    grain = np.fft.fft2(random.normal(size=(24, side, side)))
    fields = np.fft.ifft2(grain / frequency).real
    fields = 1.7 * (fields - fields.mean()) / fields.std()  # brightness, of three equal colours
    blocks = fields.reshape(24, side // block, block, side // block, block)
    blocks = blocks.transpose(0, 1, 3, 2, 4).reshape(-1, block, block)
    spectrum = dctn(blocks, axes=(1, 2), norm="ortho").std(0)
    ratio = spectrum / natural_deviations(3, block)[: block**2].view(block, block).numpy()
    assert ratio.max() / ratio.min() < 3
    assert 0.5 < np.median(ratio) < 2
