"""What known pictures, and two models, give away."""

from __future__ import annotations

import pytest
import torch
from support.encryption import KEY
from support.scenes import encrypt, make_scenes
from torch import Generator, Tensor, nn

from scotoma.attacks.registry import attacks
from scotoma.core.errors import NotApplicableError, NotGrantedError
from scotoma.core.protocols import Knowledge, Release
from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

SCHEMES = [
    ("orthogonal", {}),
    ("permute", {}),
    ("orthogonal-per-block", {"period": (2, 3)}),
    ("block-shuffle", {"inner": "none"}),
    ("block-shuffle", {"inner": "orthogonal"}),
]


def run(name: str, release: Release, knowledge: Knowledge) -> Tensor:
    return attacks.get(name)().run(release, knowledge, generator=Generator().manual_seed(0))


def psnr_db(guess: Tensor, images: Tensor) -> float:
    return float(-10 * torch.log10((guess - images).double().square().mean() + 1e-20))


@pytest.mark.parametrize(("scheme", "settings"), SCHEMES)
def test_known_pairs_give_the_map(scheme: str, settings: dict[str, object]) -> None:
    images, known = make_scenes(2, 48), make_scenes(4, 48, seed=9)
    pairs = (known, encrypt(known, scheme, 4, **settings))
    guess = run("known-plaintext", encrypt(images, scheme, 4, **settings), Knowledge(pairs=pairs))
    assert psnr_db(guess, images) > 60


def test_one_known_picture_is_enough_for_one_rotation() -> None:
    images, known = make_scenes(2, 96), make_scenes(1, 96, seed=9)
    release = encrypt(images, "orthogonal", 4)
    guess = run(
        "known-plaintext", release, Knowledge(pairs=(known, encrypt(known, "orthogonal", 4)))
    )
    assert psnr_db(guess, images) > 60


def test_pairs_of_another_key_give_nothing() -> None:
    images, known = make_scenes(2, 48), make_scenes(4, 48, seed=9)
    pairs = (known, encrypt(known, "orthogonal", 4, key=2))
    guess = run("known-plaintext", encrypt(images, "orthogonal", 4), Knowledge(pairs=pairs))
    assert psnr_db(guess, images) < 15


@pytest.mark.parametrize(("scheme", "settings"), SCHEMES)
def test_impulses_give_the_map(scheme: str, settings: dict[str, object]) -> None:
    images = make_scenes(2, 48)
    knowledge = Knowledge(protect=lambda chosen: encrypt(chosen, scheme, 4, **settings))
    guess = run("chosen-plaintext", encrypt(images, scheme, 4, **settings), knowledge)
    assert psnr_db(guess, images) > 60


def test_what_is_not_granted_is_not_read() -> None:
    release = encrypt(make_scenes(1, 48), "orthogonal", 4)
    for name in ("known-plaintext", "chosen-plaintext", "stem-recovery"):
        with pytest.raises(NotGrantedError):
            run(name, release, Knowledge())


@pytest.mark.parametrize(
    ("stem", "scheme", "settings"),
    [
        (nn.Conv2d(3, 200, 8, stride=8), "orthogonal", {}),
        (nn.Conv2d(3, 60, 8, stride=8), "orthogonal", {}),
        (nn.Conv2d(3, 16, 7, stride=2, padding=3), "orthogonal", {}),
        (nn.Conv2d(3, 16, 7, stride=2, padding=3), "orthogonal-per-block", {"period": (2, 2)}),
    ],
)
def test_two_models_give_the_map(stem: nn.Module, scheme: str, settings: dict[str, object]) -> None:
    images = make_scenes(2, 48)
    public = nn.Sequential(stem)
    reading = Preprocessing((3, 48, 48), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    block = 4 if stem.stride != (8, 8) or stem.out_channels < 192 else 8
    protection = open_protection(EncryptSettings(scheme, block=block, **settings), reading)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (reading.mean, reading.std))
    release = protection.protect((images - mean) / std, KEY)
    knowledge = Knowledge(public_model=public, adapted_model=protection.adapt(public, KEY))
    assert psnr_db(run("stem-recovery", release, knowledge), images) > 60
    stranger = nn.Sequential(
        type(stem)(3, stem.out_channels, stem.kernel_size, stem.stride, stem.padding)
    )
    wrong = Knowledge(public_model=stranger, adapted_model=protection.adapt(public, KEY))
    assert psnr_db(run("stem-recovery", release, wrong), images) < 15


def test_models_of_different_kinds_are_refused() -> None:
    release = encrypt(make_scenes(1, 48), "orthogonal", 8)
    knowledge = Knowledge(
        public_model=nn.Sequential(nn.Conv2d(3, 8, 8, stride=8)), adapted_model=nn.Identity()
    )
    with pytest.raises(NotApplicableError, match="different architectures"):
        run("stem-recovery", release, knowledge)
