"""The protection around the schemes: what it checks, notes, keeps, and never keeps."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
import torch
from support.encryption import KEY, NOISY, OTHER_KEY, make_images
from torch import Generator, Tensor, nn

from scotoma import __version__
from scotoma.core.errors import (
    CipherKeyError,
    ImageError,
    ModelError,
    ReleaseError,
    SettingsError,
)
from scotoma.core.keys import Key
from scotoma.core.protocols import Release
from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.maps import BlockMaps, Layout
from scotoma.protections.encrypt.schemes import Scheme, schemes
from scotoma.protections.encrypt.settings import EncryptSettings

PERMUTE = EncryptSettings("permute", 8)
READING = Preprocessing((3, 32, 32), interpolation="bilinear", crop_pct=1.0)


def test_a_release_says_how_it_was_made() -> None:
    settings = EncryptSettings("orthogonal-per-block", 8, period=(2, 2), dataset="holidays")
    release = open_protection(settings, READING).protect(make_images(1), KEY)
    assert dict(release.metadata) == {
        "format": 1,
        "version": __version__,
        "scheme": "orthogonal-per-block",
        "settings": {"block": 8, "period": [2, 2]},
        "key_id": KEY.key_id,
        "dataset": "holidays",
        "input_size": [3, 32, 32],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }


def test_a_release_without_key_or_reading_says_so() -> None:
    release = open_protection(EncryptSettings("mix", 8)).protect(make_images(1))
    assert release.metadata["key_id"] is None
    assert release.metadata["dataset"] is None
    assert release.metadata["mean"] is None


def test_no_secret_is_shown_or_travels() -> None:
    protection = open_protection(PERMUTE)
    images = make_images(1)
    data = protection.protect(images, KEY).data
    secret = KEY.subkey("encrypt/").stream("permute/permutation/8/3/1x1", 64)
    for leak in (repr(protection).encode(), pickle.dumps(protection)):
        assert secret not in leak
    assert len(pickle.dumps(protection)) < 1000, "no maps"
    for copied in (pickle.loads(pickle.dumps(protection)), copy.deepcopy(protection)):
        assert not copied._maps
        assert not copied._ciphers
        assert torch.equal(copied.protect(images, KEY).data, data)


def test_maps_are_derived_once_for_each_key_and_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = schemes.get("permute")

    def derive(key: Key, settings: EncryptSettings, layout: Layout) -> BlockMaps:
        calls.append((key.key_id, layout))
        assert real.derive is not None
        return real.derive(key, settings, layout)

    monkeypatch.setitem(schemes._built_in, "permute", Scheme("permute", "", "", derive=derive))
    protection = open_protection(PERMUTE)
    for _ in range(3):
        release = protection.protect(make_images(1), KEY)
        protection.unprotect(release, KEY)
    assert len(calls) == 1
    protection.protect(make_images(1, 16, 32), KEY)
    protection.protect(make_images(1), OTHER_KEY)
    assert len(set(calls)) == len(calls) == 3
    for size in range(8, 80, 8):
        protection.protect(make_images(1, size, size), KEY)
    assert max(len(protection._maps), len(protection._ciphers)) <= 4, "memory stays bounded"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 32, 32), r"images \(B, C, H, W\)"),
        (torch.zeros(0, 3, 32, 32), r"images \(B, C, H, W\)"),
        (torch.zeros(1, 3, 32, 32).numpy(), "got"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "float32 images"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float64), "float32 images"),
        (torch.full((1, 3, 32, 32), torch.nan), "finite images, got 3072"),
        (torch.cat([torch.full((1, 3, 32, 16), s * torch.inf) for s in (1, -1)], 3), "finite"),
        (torch.zeros(1, 3, 32, 40), r"images \(B, 3, 32, 32\) as the preprocessing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "images",
)
def test_what_is_no_batch_of_inputs_is_refused(images: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_protection(PERMUTE, READING).protect(images, KEY)


def test_large_values_are_finite() -> None:
    images = torch.full((1, 3, 32, 32), 3e38)
    assert torch.equal(open_protection(PERMUTE).protect(images, KEY).data, images)


def test_keys_are_asked_for_where_they_matter() -> None:
    keyed, keyless = open_protection(PERMUTE), open_protection(EncryptSettings("mix", 8))
    images = make_images(1)
    with pytest.raises(CipherKeyError, match="a key for scheme 'permute'"):
        keyed.protect(images)
    with pytest.raises(CipherKeyError, match="a key for scheme 'permute'"):
        keyed.unprotect(keyed.protect(images, KEY))
    with pytest.raises(CipherKeyError, match="a key for scheme 'permute'"):
        keyed.adapt(nn.Identity())
    with pytest.raises(CipherKeyError, match="no key for the key-less scheme 'mix'"):
        keyless.protect(images, KEY)
    with pytest.raises(SettingsError, match="keep the originals"):
        keyless.unprotect(keyless.protect(images))


def test_generators_are_asked_for_where_they_matter() -> None:
    shuffle, images = open_protection(EncryptSettings("shuffle", 8)), make_images(1)
    with pytest.raises(SettingsError, match="a generator for scheme 'shuffle'"):
        shuffle.protect(images)
    assert open_protection(PERMUTE).protect(images, KEY).data.shape == images.shape


def _altered(release: Release, data: Tensor | None = None, **changes: Any) -> Release:
    return Release(release.data if data is None else data, {**release.metadata, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"format": 2}, ReleaseError, "format 1, got 2"),
        ({"scheme": "orthogonal"}, ReleaseError, "made with"),
        ({"settings": {"block": 4}}, ReleaseError, "made with"),
        ({"dataset": "other"}, ReleaseError, "made with"),
        ({"scheme": "unknown"}, ReleaseError, "known scheme"),
        ({"key_id": OTHER_KEY.key_id}, CipherKeyError, f"expected key '{OTHER_KEY.key_id}'"),
        ({"key_id": None}, CipherKeyError, "expected key None"),
        ({"input_size": [3, 40, 32]}, ReleaseError, r"\(B, C, 40, 32\)"),
        ({"input_size": [3, 10**9, 10**9]}, ReleaseError, "by its metadata"),
        ({"input_size": [1, 32, 32]}, ReleaseError, "1 channels, got 3"),
        ({"input_size": "3, 32, 32"}, ReleaseError, "input_size"),
        ({"input_size": [3, 32, True]}, ReleaseError, "input_size|by its metadata"),
    ],
    ids=str,
)
def test_releases_that_do_not_fit_are_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    protection = open_protection(PERMUTE)
    release = protection.protect(make_images(1), KEY)
    with pytest.raises(error, match=message):
        protection.unprotect(_altered(release, **changes), KEY)


def test_the_wrong_key_is_named_not_tried() -> None:
    protection = open_protection(PERMUTE)
    release = protection.protect(make_images(1), KEY)
    with pytest.raises(CipherKeyError, match=f"{KEY.key_id}.*got '{OTHER_KEY.key_id}'"):
        protection.unprotect(release, OTHER_KEY)


def test_half_precision_releases_come_back() -> None:
    protection, images = open_protection(PERMUTE), make_images(1)
    release = protection.protect(images, KEY)
    back = protection.unprotect(_altered(release, release.data.half()), KEY)
    assert (back - images).abs().max() < 2e-3


class _Reader(nn.Identity):
    reads = frozenset({"shuffle"})


def test_keyless_schemes_need_a_model_that_reads_them() -> None:
    shuffle = open_protection(EncryptSettings("shuffle", 8))
    reader = _Reader()
    assert shuffle.adapt(reader) is reader
    with pytest.raises(ModelError, match=r"reads pictures only; no rewriting.*train pevit"):
        shuffle.adapt(nn.Identity())
    with pytest.raises(ModelError, match="a _Reader that reads shuffle"):
        open_protection(EncryptSettings("mix", 8)).adapt(reader)


def test_adapting_asks_for_the_input_size() -> None:
    with pytest.raises(SettingsError, match="pass one to open_protection"):
        open_protection(PERMUTE).adapt(nn.Conv2d(3, 4, 8, 8), KEY)


def test_a_scheme_may_add_planes_of_fresh_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schemes._built_in, NOISY.name, NOISY)
    protection = open_protection(EncryptSettings(NOISY.name, 4))
    images = make_images(3, 30, 32)
    generator = Generator().manual_seed(0)
    first = protection.protect(images, KEY, generator=generator)
    second = protection.protect(images, KEY, generator=generator)
    assert first.data.shape == (3, 4, 32, 32)
    assert (first.data - second.data).abs().mean() > 1, "fresh noise for every call"
    for release in (first, second):
        torch.testing.assert_close(protection.unprotect(release, KEY), images, atol=1e-4, rtol=0)
    again = Generator().manual_seed(0)
    split = [protection.protect(part, KEY, generator=again).data for part in images.split([1, 2])]
    assert torch.equal(torch.cat(split), first.data)
    with pytest.raises(SettingsError, match="a generator for scheme 'noisy'"):
        protection.protect(images, KEY)
    json.dumps(first.metadata)
