"""Each scheme against a slow oracle, and against the easy ways of faking it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from support.encryption import (
    KEY,
    OTHER_KEY,
    make_images,
    slow_blocks,
    slow_mapped,
    slow_mixed,
    slow_moved,
)
from torch import Generator, Tensor

from scotoma.core.keys import Key
from scotoma.ops.keyed_maps import derive_orthogonal, derive_permutation
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.maps import BlockMaps, Layout
from scotoma.protections.encrypt.schemes import schemes
from scotoma.protections.encrypt.settings import EncryptSettings

KEYED = [
    EncryptSettings("orthogonal", 4),
    EncryptSettings("permute", 4),
    EncryptSettings("orthogonal-per-block", 4),
    EncryptSettings("orthogonal-per-block", 4, period=(2, 3)),
    EncryptSettings("block-shuffle", 4, inner="none"),
    EncryptSettings("block-shuffle", 4, inner="permute"),
    EncryptSettings("block-shuffle", 4, inner="orthogonal"),
]


def _maps(settings: EncryptSettings, layout: Layout, key: Key = KEY) -> BlockMaps:
    derive = schemes.get(settings.scheme).derive
    assert derive is not None
    return derive(key.subkey(f"encrypt/{settings.dataset}"), settings, layout)


@pytest.mark.parametrize("sides", [(16, 24), (13, 18)], ids=["whole", "padded"])
@pytest.mark.parametrize("settings", KEYED, ids=str)
def test_keyed_schemes_are_their_maps(settings: EncryptSettings, sides: tuple[int, int]) -> None:
    images = make_images(2, *sides)
    release = open_protection(settings).protect(images, KEY)
    maps = _maps(settings, Layout(3, -(-sides[0] // 4), -(-sides[1] // 4)))
    for image, found in zip(images, release.data, strict=True):
        expected = slow_mapped(image.double().numpy(), maps)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_one_orthogonal_is_the_keys_matrix() -> None:
    subkey = KEY.subkey("encrypt/holidays")
    matrix = derive_orthogonal(subkey, "orthogonal/orthogonal/4/3/1x1", 48)[0].numpy()
    images = make_images(1, 8, 8)
    settings = EncryptSettings("orthogonal", 4, dataset="holidays")
    data = open_protection(settings).protect(images, KEY).data
    plain = slow_blocks(images[0].double().numpy(), 4)
    released = slow_blocks(data[0].double().numpy(), 4)
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(released[i][j], matrix @ plain[i][j], atol=1e-5)
        assert np.linalg.norm(released[i][j]) == pytest.approx(np.linalg.norm(plain[i][j]))


def test_one_permutation_is_the_keys_order() -> None:
    order = derive_permutation(KEY.subkey("encrypt/"), "permute/permutation/4/3/1x1", 48).numpy()
    images = make_images(1, 8, 8)
    data = open_protection(EncryptSettings("permute", 4)).protect(images, KEY).data
    plain = slow_blocks(images[0].double().numpy(), 4)
    released = slow_blocks(data[0].double().numpy(), 4)
    for i, j in np.ndindex(2, 2):
        assert np.array_equal(released[i][j], plain[i][j][order])


def test_each_position_has_its_own_rotation() -> None:
    maps = _maps(EncryptSettings("orthogonal-per-block", 4), Layout(3, 3, 5))
    assert maps.period == (3, 5)
    flat = maps.forward.flatten(0, 1).flatten(1)
    alike = torch.corrcoef(flat) - torch.eye(15)
    assert alike.abs().max() < 0.15  # 2304 entries each: a standard deviation of 0.02
    square = EncryptSettings("orthogonal-per-block", 4, period=(3, 5))
    assert torch.equal(_maps(square, Layout(3, 6, 5)).forward, maps.forward)


def test_the_period_repeats() -> None:
    settings = EncryptSettings("orthogonal-per-block", 4, period=(2, 3))
    tile = make_images(1, 8, 12)
    whole = tile.repeat(1, 1, 3, 2)
    data = open_protection(settings).protect(whole, KEY).data
    assert torch.equal(data, data[..., :8, :12].repeat(1, 1, 3, 2))
    one = torch.ones(1, 3, 8, 12)
    assert len(set(_patches(open_protection(settings).protect(one, KEY).data[0], 4))) == 6


def test_moved_blocks_are_the_pictures_own() -> None:
    images = make_images(1, 16, 16)
    settings = EncryptSettings("block-shuffle", 4, inner="none")
    data = open_protection(settings).protect(images, KEY).data
    order = _maps(settings, Layout(3, 4, 4)).order
    assert order is not None
    expected = slow_moved(images[0].double().numpy(), order.tolist(), 4)
    assert np.array_equal(data[0].double().numpy(), expected)
    assert order.tolist() != list(range(16))


def test_shuffling_is_a_fresh_order_per_picture_and_call() -> None:
    picture = make_images(1, 32, 32)
    protection = open_protection(EncryptSettings("shuffle", 8))
    generator = Generator().manual_seed(0)
    first = protection.protect(picture.repeat(4, 1, 1, 1), generator=generator).data
    second = protection.protect(picture, generator=generator).data
    orders = {_order(picture[0], released, 8) for released in (*first, *second)}
    assert len(orders) == 5
    for order in orders:
        assert sorted(order) == list(range(16))


def _order(picture: Tensor, released: Tensor, block: int) -> tuple[int, ...]:
    """Return where each released patch was, found by its content."""
    plain = {patch: number for number, patch in enumerate(_patches(picture, block))}
    return tuple(plain[patch] for patch in _patches(released, block))


def _patches(picture: Tensor, block: int) -> list[bytes]:
    grid = slow_blocks(picture.double().numpy(), block)
    return [patch.tobytes() for row in grid for patch in row]


def test_shuffled_places_are_even() -> None:
    """Every patch is as likely in every place: chi-square over 600 pictures of 9 patches."""
    marked = torch.arange(9.0).view(1, 1, 3, 3).expand(600, 3, 3, 3)
    data = open_protection(EncryptSettings("shuffle", 1)).protect(
        marked, generator=Generator().manual_seed(0)
    )
    places = torch.nn.functional.one_hot(data.data[:, 0].flatten(1).long(), 9).sum(0)
    expected = 600 / 9
    chi_square = float(((places - expected) ** 2 / expected).sum())
    assert chi_square < 112  # 64 degrees of freedom, p = 0.0002


@pytest.mark.parametrize("sub_patches", [4, 16])
def test_mixing_is_the_mean_of_sub_patches(sub_patches: int) -> None:
    images = make_images(2, 20, 32)
    settings = EncryptSettings("mix", 8, sub_patches=sub_patches)
    data = open_protection(settings).protect(images).data
    side = settings.parts
    assert data.shape == (2, 3, 24 // side, 32 // side)
    for image, found in zip(images, data, strict=True):
        expected = slow_mixed(image.double().numpy(), 8, side)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_mixing_does_not_see_the_order_of_sub_patches() -> None:
    images = make_images(1, 16, 16)
    protection = open_protection(EncryptSettings("mix", 16))
    swapped = images.view(1, 3, 2, 8, 2, 8)[:, :, [1, 0]][:, :, :, :, [1, 0]].reshape(1, 3, 16, 16)
    turned = images.view(1, 3, 2, 8, 2, 8).transpose(2, 4).reshape(1, 3, 16, 16)
    data = protection.protect(images).data
    for other in (swapped, turned):
        assert not torch.equal(other, images)
        torch.testing.assert_close(protection.protect(other).data, data)
    flipped = protection.protect(images.flip(3)).data
    assert (flipped - data).abs().max() > 0.1, "but it sees what is within them"


GOLDEN = {
    "permute": "c6fcfb5c660f6e2c",
    "block-shuffle": "3ec470f92d0aaa84",
    "orthogonal": "c2f0c443d43d5ccc",
    "orthogonal-per-block": "1141471bdb2ef4c2",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_same_key_is_the_same_cipher_for_ever(name: str) -> None:
    """Releases outlive versions: whoever changes these hashes makes all of them unreadable."""
    settings = EncryptSettings(name, 4, dataset="holidays")
    maps = _maps(settings, Layout(3, 3, 4))
    order = torch.arange(12) if maps.order is None else maps.order
    state = hashlib.sha256(maps.forward.contiguous().numpy().tobytes())
    state.update(order.numpy().astype("<i8").tobytes())
    assert state.hexdigest()[:16] == GOLDEN[name]


@pytest.mark.parametrize("settings", KEYED, ids=str)
def test_ciphers_share_nothing(settings: EncryptSettings) -> None:
    """Another key, label, block side or grid gives other maps."""
    layout = Layout(3, 4, 4)
    maps = _maps(settings, layout)
    labelled = EncryptSettings(
        settings.scheme, 4, settings.period, settings.inner, dataset="another"
    )
    for other in (_maps(settings, layout, OTHER_KEY), _maps(labelled, layout)):
        same = [torch.equal(other.forward, maps.forward)]
        if maps.order is not None and other.order is not None:
            same.append(torch.equal(other.order, maps.order))
        assert not all(same)
        if settings.inner != "none" or settings.scheme != "block-shuffle":
            assert not any(same)
