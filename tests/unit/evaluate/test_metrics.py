"""Every metric of pictures against an implementation that shares no code with it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from scotoma.core.errors import ModelError, NotApplicableError, SettingsError
from scotoma.evaluate.metrics.perceptual import BACKBONE
from scotoma.evaluate.metrics.registry import MEASURES, Metric, metrics

LUMA = np.array([0.299, 0.587, 0.114])
EQUAL = {"psnr_db": math.inf, "edge_psnr_db": math.inf}


def measure(
    name: str, guesses: Tensor, originals: Tensor, context: Mapping[str, Any] | None = None
) -> Tensor:
    return metrics.get(name).function(guesses, originals, context or {})


def smooth_pictures(count: int, side: int, seed: int) -> Tensor:
    """Pictures with structure at several scales, so that no window is empty."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, 3, side, side))
    parts = [ndimage.gaussian_filter(noise, (0, 0, s, s)) * s for s in (0.5, 2, 8)]
    mixed = sum(parts)
    low, high = mixed.min(), mixed.max()
    return torch.tensor((mixed - low) / (high - low), dtype=torch.float32)


def disturbed(images: Tensor, seed: int = 1) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (0.8 * images + 0.05 + 0.08 * noise).clamp(0, 1)


PICTURES = smooth_pictures(3, 64, 0)
GUESSES = disturbed(PICTURES)


def grey(picture: Tensor) -> np.ndarray:
    return np.tensordot(LUMA, picture.double().numpy(), 1)


def test_psnr_is_scikit_images() -> None:
    pairs = zip(PICTURES.double().numpy(), GUESSES.double().numpy(), strict=True)
    expected = [peak_signal_noise_ratio(*pair, data_range=1.0) for pair in pairs]
    np.testing.assert_allclose(measure("psnr_db", GUESSES, PICTURES), expected, rtol=1e-6)


def test_ssim_is_torchmetrics_inside_the_border() -> None:
    _, maps = structural_similarity_index_measure(
        GUESSES.double(),
        PICTURES.double(),
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    expected = maps[..., 5:-5, 5:-5].mean((1, 2, 3))
    torch.testing.assert_close(measure("ssim", GUESSES, PICTURES), expected, atol=1e-6, rtol=0)


def test_ms_ssim_is_the_papers_formula() -> None:
    originals = smooth_pictures(2, 176, 3)
    guesses = disturbed(originals)
    expected = [ms_ssim_by_hand(*pair) for pair in zip(guesses, originals, strict=True)]
    np.testing.assert_allclose(measure("ms_ssim", guesses, originals), expected, atol=2e-4)


def ms_ssim_by_hand(guess: Tensor, original: Tensor) -> float:
    """Contrast and structure at five scales, luminance at the last; windows mirror at the border.

    The windows at the border count, except those whose centre's window would leave the contrast
    map: the library crops that map by five pixels at all scales but the last.
    """
    one, other = guess.double().numpy(), original.double().numpy()
    found = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            one, other = (
                picture.reshape(3, picture.shape[1] // 2, 2, picture.shape[2] // 2, 2).mean((2, 4))
                for picture in (one, other)
            )

        def window(values: np.ndarray) -> np.ndarray:
            return ndimage.gaussian_filter(values, (0, 1.5, 1.5), radius=(0, 5, 5), mode="mirror")

        means = window(one), window(other)
        variances = window(one**2) - means[0] ** 2, window(other**2) - means[1] ** 2
        covariance = window(one * other) - means[0] * means[1]
        contrast = (2 * covariance + 0.03**2) / (sum(variances) + 0.03**2)
        luminance = (2 * means[0] * means[1] + 0.01**2) / (means[0] ** 2 + means[1] ** 2 + 0.01**2)
        inside = contrast[:, 5:-5, 5:-5].mean()
        found *= (inside if scale < 4 else (contrast * luminance).mean()) ** weight
    return float(found)


def test_edge_psnr_is_scipys_sobel() -> None:
    expected = []
    for guess, original in zip(GUESSES, PICTURES, strict=True):
        lengths = [
            np.hypot(ndimage.sobel(grey(picture), 0), ndimage.sobel(grey(picture), 1))[1:-1, 1:-1]
            for picture in (guess, original)
        ]
        expected.append(10 * np.log10(16 / np.square(lengths[0] - lengths[1]).mean()))
    np.testing.assert_allclose(measure("edge_psnr_db", GUESSES, PICTURES), expected, rtol=1e-6)


def test_a_straight_edge_has_the_peak_gradient() -> None:
    """A step from black to white against nothing: the lost edge is 4 high and 2 of 30 wide."""
    step = torch.zeros(1, 3, 32, 32)
    step[..., 16:] = 1
    found = measure("edge_psnr_db", torch.zeros_like(step), step)
    assert float(found) == pytest.approx(10 * math.log10(30 / 2))


def test_block_brightness_correlation_is_numpys() -> None:
    for block in (8, 16):
        expected = []
        for guess, original in zip(GUESSES, PICTURES, strict=True):
            means = [
                grey(picture).reshape(64 // block, block, 64 // block, block).mean((1, 3)).ravel()
                for picture in (guess, original)
            ]
            expected.append(np.corrcoef(*means)[0, 1])
        found = measure("block_brightness_correlation", GUESSES, PICTURES, {"block": block})
        np.testing.assert_allclose(found, np.abs(expected), rtol=1e-6)


def test_luma_correlation_is_numpys() -> None:
    expected = [
        np.corrcoef(grey(guess).ravel(), grey(original).ravel())[0, 1]
        for guess, original in zip(GUESSES, PICTURES, strict=True)
    ]
    found = measure("luma_correlation", GUESSES, PICTURES)
    np.testing.assert_allclose(found, np.abs(expected), rtol=1e-6)


def test_a_negative_gives_away_what_the_picture_does() -> None:
    negative = 1 - PICTURES
    for name in ("block_brightness_correlation", "luma_correlation"):
        torch.testing.assert_close(
            measure(name, negative, PICTURES), torch.ones(3, dtype=torch.float64)
        )
    signed = measure("signed_block_brightness_correlation", negative, PICTURES)
    torch.testing.assert_close(signed, -torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_guess_correlates_with_nothing(value: float) -> None:
    constant = torch.full_like(PICTURES, value)
    for name in ("block_brightness_correlation", "luma_correlation"):
        assert measure(name, constant, PICTURES).tolist() == [0.0, 0.0, 0.0]
        assert measure(name, PICTURES, constant).tolist() == [0.0, 0.0, 0.0]


PIXELWISE = [
    name for name in metrics.names() if name not in ("lpips", "ms_ssim", "neighbour_accuracy")
]
BOUNDS = {"psnr_db": (0.0, math.inf), "edge_psnr_db": (-6.0, math.inf)}


@pytest.mark.parametrize("name", PIXELWISE)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(11, 40), width=st.integers(11, 40))
def test_ranges_hold_and_equal_pictures_score_best(
    name: str, seed: int, height: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pair = torch.rand((2, 2, 3, height, width), generator=generator)
    guesses, originals = pair[0], pair[1]
    low, high = BOUNDS.get(name, (-1.0, 1.0))
    found = measure(name, guesses, originals)
    assert found.shape == (2,)
    assert found.dtype == torch.float64
    assert bool(((found >= low) & (found <= high)).all())
    best = measure(name, originals, originals)
    torch.testing.assert_close(best, torch.full((2,), EQUAL.get(name, 1.0), dtype=torch.float64))
    assert bool((best > found).all())


def test_ms_ssim_of_a_negative_is_zero_and_of_itself_is_one() -> None:
    originals = smooth_pictures(1, 176, 4)
    assert measure("ms_ssim", originals, originals).tolist() == pytest.approx([1.0])
    assert measure("ms_ssim", 1 - originals, originals).tolist() == [0.0]


@pytest.mark.parametrize(("name", "side"), [("ssim", 10), ("ms_ssim", 160), ("edge_psnr_db", 2)])
def test_pictures_too_small_are_refused_with_the_reason(name: str, side: int) -> None:
    with pytest.raises(NotApplicableError, match=f"{name}: expected sides of at least {side + 1}"):
        measure(name, torch.rand(1, 3, side, 400), torch.rand(1, 3, side, 400))


def test_lpips_says_why_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BACKBONE, raising=False)
    with pytest.raises(NotApplicableError, match=f"{BACKBONE} to name SqueezeNet"):
        measure("lpips", PICTURES, PICTURES)


def test_lpips_refuses_other_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from safetensors.torch import save_file

    save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    monkeypatch.setenv(BACKBONE, str(tmp_path / "other.safetensors"))
    with pytest.raises(ModelError, match="squeezenet1_1"):
        measure("lpips", PICTURES, PICTURES)


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore:The parameter 'pretrained':UserWarning")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight:UserWarning")
def test_lpips_is_its_authors(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import lpips
    from safetensors.torch import load_file

    path = shared / "models" / "squeezenet1_1.safetensors"
    monkeypatch.setenv(BACKBONE, str(path))
    theirs = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    weights = load_file(path)
    names = theirs.net.state_dict()
    theirs.net.load_state_dict({n: weights[f"features.{n.split('.', 1)[1]}"] for n in names})
    with torch.no_grad():
        expected = theirs(GUESSES, PICTURES, normalize=True).flatten().double()
    found = measure("lpips", GUESSES, PICTURES)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert measure("lpips", PICTURES, PICTURES).tolist() == [0.0, 0.0, 0.0]
    assert bool((found > 0.01).all())


def test_names_are_listed_without_torch() -> None:
    code = (
        "import sys; from scotoma.evaluate.metrics.registry import metrics; "
        "assert 'ssim' in metrics.names() and metrics.get('ssim').summary; "
        "assert not {'torch', 'skimage', 'torchmetrics', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_measures_name_every_metric_once() -> None:
    assert set(metrics.names()) <= set(MEASURES)
    assert all(name == metric.name for name, metric in MEASURES.items())
    with pytest.raises(SettingsError, match="'higher' or 'lower'"):
        Metric("x", "", "up", "x", "x")
