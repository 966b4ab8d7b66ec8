"""The hardened scheme: what it hides of a picture's energy, and what files keep of it."""

from __future__ import annotations

import pytest
import torch
from support.encryption import KEY, correlation, make_images
from torch import Generator, Tensor

from scotoma.core.errors import SettingsError
from scotoma.images.ciphertext import CipherEncoding, decode_release, encode_release
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

IMAGES = make_images(6, 64, 64)


def _protect(images: Tensor, *, seed: int = 0, **options: float) -> Tensor:
    protection = open_protection(EncryptSettings("hardened", 8, **options))  # type: ignore[arg-type]
    return protection.protect(images, KEY, generator=Generator().manual_seed(seed)).data


@pytest.mark.parametrize("contrast", [0.0, 0.1, 1.0])
def test_every_release_has_the_same_length(contrast: float) -> None:
    data = _protect(IMAGES * contrast)
    squares = data.square().mean((1, 2, 3))
    torch.testing.assert_close(squares, torch.ones(6), atol=1e-5, rtol=0)


def test_noise_is_as_strong_as_asked() -> None:
    """What two releases of one picture share is the picture: of a photograph 1 in 1 + noise².

    These pictures have more grain than photographs have, so their share is larger.
    """
    for noise in (1.0, 3.0):
        first, second = (_protect(IMAGES, noise=noise, seed=seed) for seed in (1, 2))
        share = float((first * second).mean())
        assert 0.5 < share * noise**2 < 5


def test_a_release_tells_hardly_which_picture_it_shows() -> None:
    first, second = (_protect(IMAGES, seed=seed).flatten(1) for seed in (1, 2))
    alike = (first @ second.T / first.shape[1]).abs()
    assert alike.max() < 0.2


def test_values_look_normal_and_alone() -> None:
    data = _protect(IMAGES)
    assert abs(float((data**4).mean()) - 3) < 0.15
    assert float(data.abs().max()) < 6
    for axis in (2, 3):
        assert abs(correlation(data, data.roll(1, axis))) < 0.02


@pytest.mark.parametrize("planes", [1, 2])
def test_more_planes_make_larger_releases(planes: int) -> None:
    assert _protect(IMAGES, noise_planes=planes).shape == (6, 3 + planes, 64, 64)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("float16", 0.03)])
def test_files_keep_the_picture(dtype: str, error: float) -> None:
    protection = open_protection(EncryptSettings("hardened", 8))
    release = protection.protect(IMAGES[:1], KEY, generator=Generator().manual_seed(0))
    file = encode_release(release, CipherEncoding("safetensors", dtype), key=KEY)
    back = protection.unprotect(decode_release(file, name="release", key=KEY), KEY)
    assert float((back - IMAGES[:1]).abs().max()) < error


def test_how_many_pictures_a_label_serves_grows_with_noise_dimensions() -> None:
    protection = open_protection(EncryptSettings("hardened", 8))
    assert protection.most_pictures((3, 224, 224)) == 224 * 224 // 5
    assert protection.most_pictures((3, 32, 32)) == 32 * 32 // 5
    double = open_protection(EncryptSettings("hardened", 8, noise_planes=2))
    assert double.most_pictures((3, 32, 32)) == 2 * 32 * 32 // 5
    assert open_protection(EncryptSettings("permute", 8)).most_pictures((3, 32, 32)) is None


@pytest.mark.parametrize(
    "options", [{"noise": 0}, {"noise": 65}, {"noise": True}, {"noise_planes": 0}], ids=str
)
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="expected noise"):
        EncryptSettings("hardened", 8, **options)  # type: ignore[arg-type]
