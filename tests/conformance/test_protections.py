"""What every protection owes its owner, plugins included: see the property each test names."""

from __future__ import annotations

import json

import pytest
import torch
from support.encryption import KEY, OTHER_KEY, correlation, make_images
from torch import Generator, Tensor, nn

from scotoma.core.errors import CipherKeyError, ImageError, ModelError, SettingsError
from scotoma.core.keys import Key
from scotoma.core.protocols import Protection, Release
from scotoma.protections.encrypt.encryption import Encryption, open_protection
from scotoma.protections.encrypt.schemes import schemes
from scotoma.protections.encrypt.settings import EncryptSettings

BLOCK = 4
NAMES = schemes.names()
KEYED = [name for name in NAMES if schemes.get(name).keyed]
KEYLESS = [name for name in NAMES if not schemes.get(name).keyed]


def _open(name: str, *, dataset: str = "") -> Encryption:
    return open_protection(EncryptSettings(name, BLOCK, dataset=dataset))


def _protect(protection: Encryption, images: Tensor, *, key: Key = KEY, seed: int = 0) -> Release:
    """Protect with whatever the scheme asks for."""
    generator = Generator().manual_seed(seed) if protection.fresh else None
    return protection.protect(images, key if protection.keyed else None, generator=generator)


def _noise(count: int, side: int = 32) -> Tensor:
    """Return pictures of independent values, of which no two are alike."""
    return torch.randn(count, 3, side, side, generator=Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    scheme, protection = schemes.get(name), _open(name)
    assert isinstance(protection, Protection)
    assert protection.keyed == scheme.keyed
    assert len(scheme.summary) > 10
    assert "\n" not in scheme.summary
    assert len(scheme.fits) > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_release_is_public_and_says_how_it_was_made(name: str) -> None:
    protection = _open(name)
    release = _protect(protection, make_images(2))
    assert release.data.dtype == torch.float32
    assert release.data.isfinite().all()
    assert len(release.data) == 2
    metadata = json.loads(json.dumps(release.metadata))
    assert EncryptSettings.from_metadata(metadata) == protection.settings
    assert metadata["key_id"] == (KEY.key_id if protection.keyed else None)
    assert metadata["input_size"] == [3, 32, 32]


@pytest.mark.parametrize("sides", [(32, 32), (30, 25)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_same_key_and_seed_same_bytes_in_any_batches(name: str, sides: tuple[int, int]) -> None:
    images = make_images(7, *sides)
    whole = _protect(_open(name), images).data
    for sizes in ([1] * 7, [2, 5], [6, 1]):
        protection = _open(name)
        generator = Generator().manual_seed(0) if protection.fresh else None
        key = KEY if protection.keyed else None
        parts = [
            protection.protect(part, key, generator=generator).data for part in images.split(sizes)
        ]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_do_not_change_and_do_not_come_out(name: str) -> None:
    images = _noise(2)
    before = images.clone()
    data = _protect(_open(name), images).data
    assert torch.equal(images, before)
    assert data.data_ptr() != images.data_ptr()
    if data.shape == images.shape:
        assert (data == images).float().mean() < 0.1, "hardly any value is where it was"
        assert abs(correlation(data, images)) < 0.1
    else:
        assert data.numel() != images.numel()


@pytest.mark.parametrize("name", NAMES)
def test_every_value_matters(name: str) -> None:
    """No scheme drops a part of the picture, nor lets one picture reach into another."""
    images = _noise(3, 8)
    data = _protect(_open(name), images).data
    for position in [(0, 0, 0), (1, 3, 5), (2, 7, 7)]:
        changed = images.clone()
        changed[(1, *position)] += 1
        moved = (_protect(_open(name), changed).data - data).abs().flatten(1).amax(1)
        assert moved[1] > 0.01
        assert moved[0] == moved[2] == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sides", [(1, 1), (5, 32), (31, 6)], ids=str)
def test_odd_sizes_are_completed(name: str, sides: tuple[int, int]) -> None:
    images, protection = make_images(1, *sides), _open(name)
    release = _protect(protection, images)
    height, width = (-(-side // BLOCK) * BLOCK for side in sides)
    if protection.keyed:
        assert release.data.shape[2:] == (height, width)
        back = protection.unprotect(release, KEY)
        torch.testing.assert_close(back, images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_picture_is_refused(name: str) -> None:
    for images in (
        torch.zeros(3, 8, 8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.full((1, 3, 8, 8), torch.nan),
        torch.full((1, 3, 8, 8), -torch.inf),
    ):
        with pytest.raises(ImageError, match="expected"):
            _protect(_open(name), images)


@pytest.mark.parametrize("name", KEYED)
def test_the_key_opens_it(name: str) -> None:
    protection, images = _open(name), make_images(3)
    back = protection.unprotect(_protect(protection, images), KEY)
    torch.testing.assert_close(back, images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KEYED)
def test_another_key_does_not(name: str) -> None:
    protection, images = _open(name), _noise(4)
    release = _protect(protection, images)
    with pytest.raises(CipherKeyError, match=KEY.key_id):
        protection.unprotect(release, OTHER_KEY)
    forged = Release(release.data, {**release.metadata, "key_id": OTHER_KEY.key_id})
    assert abs(correlation(protection.unprotect(forged, OTHER_KEY), images)) < 0.1


@pytest.mark.parametrize("name", KEYED)
def test_keys_and_labels_part_ciphers(name: str) -> None:
    images = _noise(4)
    data = _protect(_open(name), images).data
    for other in (
        _protect(_open(name), images, key=OTHER_KEY).data,
        _protect(_open(name, dataset="another"), images).data,
    ):
        assert abs(correlation(other, data)) < 0.1


@pytest.mark.parametrize("name", KEYED)
def test_no_key_no_release(name: str) -> None:
    with pytest.raises(CipherKeyError, match="expected a key"):
        _open(name).protect(make_images(1), generator=Generator())


@pytest.mark.parametrize("name", KEYLESS)
def test_a_key_that_protects_nothing_is_refused(name: str) -> None:
    with pytest.raises(CipherKeyError, match="no key"):
        _open(name).protect(make_images(1), KEY, generator=Generator())


@pytest.mark.parametrize("name", KEYLESS)
def test_models_that_were_not_trained_for_it_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="train one"):
        _open(name).adapt(nn.Conv2d(3, 8, 3))


@pytest.mark.parametrize("name", [name for name in NAMES if schemes.get(name).fresh])
def test_fresh_is_fresh(name: str) -> None:
    protection, images = _open(name), make_images(1).repeat(2, 1, 1, 1)
    generator = Generator().manual_seed(0)
    key = KEY if protection.keyed else None
    first = protection.protect(images, key, generator=generator).data
    second = protection.protect(images, key, generator=generator).data
    releases = {release.numpy().tobytes() for release in (*first, *second)}
    assert len(releases) == 4
    with pytest.raises(SettingsError, match="expected a generator"):
        protection.protect(images, key)
