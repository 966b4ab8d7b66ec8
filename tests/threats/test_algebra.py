"""What known pictures, and two models, give away."""

from __future__ import annotations

import pytest
import torch
from support.encryption import KEY
from support.scenes import block_brightness, encrypt, make_scenes, pearson
from torch import Generator, Tensor, nn

from scotoma.attacks.registry import attacks
from scotoma.core.errors import NotApplicableError, NotGrantedError
from scotoma.core.protocols import Knowledge, Release
from scotoma.models.preprocessing import Preprocessing
from scotoma.ops.generators import seeded_generator
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

SCHEMES = [
    ("orthogonal", {}),
    ("permute", {}),
    ("orthogonal-per-block", {"period": (2, 3)}),
    ("block-shuffle", {"inner": "none"}),
    ("block-shuffle", {"inner": "orthogonal"}),
]
NEEDY = ("known-plaintext", "known-likeness", "chosen-plaintext", "noise-space", "stem-recovery")


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


def spread(images: Tensor, seed: int) -> Release:
    """Return a release of hardened blocks of 4 pixels, with noise of its own."""
    protection = open_protection(EncryptSettings("hardened", block=4))
    return protection.protect(images, KEY, generator=seeded_generator(bytes([seed]) * 32))


def test_likeness_to_known_pictures_tells_scenes_but_not_through_noise() -> None:
    known = make_scenes(40, 48, seed=9)
    grain = 0.05 * torch.randn(6, 3, 48, 48, generator=Generator().manual_seed(0))
    images = (0.9 * known[:6] + grain).clamp(0, 1)
    mean = psnr_db(known.mean(0), images)
    whole = Knowledge(pairs=(known, encrypt(known, "orthogonal-per-block", 4)))
    guess = run("known-likeness", encrypt(images, "orthogonal-per-block", 4), whole)
    assert psnr_db(guess, images) > mean + 5
    hidden = Knowledge(pairs=(known, spread(known, 1)))
    assert abs(psnr_db(run("known-likeness", spread(images, 2), hidden), images) - mean) < 1


def test_likeness_needs_several_pictures() -> None:
    known = make_scenes(2, 48, seed=9)
    with pytest.raises(NotApplicableError, match="3 known pairs"):
        run("known-likeness", spread(known, 2), Knowledge(pairs=(known, spread(known, 1))))


def test_noise_is_seen_around_once_it_is_known() -> None:
    images = make_scenes(3, 16)
    asked: list[int] = []

    def protect(chosen: Tensor) -> Release:
        asked.append(len(chosen))
        return spread(chosen, len(asked))

    release, noise = spread(images, 0), 16 * 16
    attack = attacks.get("noise-space")
    generator = Generator().manual_seed(0)
    with pytest.raises(NotApplicableError, match="264 chosen pictures"):
        attack(queries=noise).run(release, Knowledge(protect=protect), generator=generator)
    assert not asked
    enough = noise + 8 + images[0].numel()
    guess = attack(queries=enough).run(release, Knowledge(protect=protect), generator=generator)
    assert sum(asked) == enough
    assert psnr_db(guess, images) > 40
    few = attack(queries=noise + 8 + 16).run(
        release, Knowledge(protect=protect), generator=generator
    )
    assert pearson(block_brightness(few, 4), block_brightness(images, 4)) > 0.99


def test_answers_that_change_are_not_taken_for_columns() -> None:
    images = make_scenes(1, 16)
    count = iter(range(1, 100))
    knowledge = Knowledge(protect=lambda chosen: spread(chosen, next(count)))
    with pytest.raises(NotApplicableError, match="alike"):
        run("chosen-plaintext", spread(images, 0), knowledge)
    with pytest.raises(NotApplicableError, match="try chosen-plaintext"):
        run("noise-space", encrypt(images, "orthogonal", 4), knowledge)


def test_what_is_not_granted_is_not_read() -> None:
    release = encrypt(make_scenes(1, 48), "orthogonal", 4)
    for name in NEEDY:
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
