"""Learned inversion rebuilds what can be rebuilt, and falls to the mean picture elsewhere."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.natural_pictures import make_natural
from torch import Generator, Tensor

from scotoma.attacks.inversion import attacks as inversion
from scotoma.attacks.inversion.attacks import FittedInversion
from scotoma.core.errors import NotApplicableError, NotGrantedError
from scotoma.core.keys import Key
from scotoma.core.protocols import Knowledge, Release
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

SIDE = 16
AUXILIARY = make_natural(160, SIDE, seed=1)
ATTACKED = make_natural(32, SIDE, seed=2)
KEY = Key.from_bytes(bytes(32))
OTHER = Key.from_bytes(bytes(range(32)))
SMALL: dict[str, Any] = {"width": 32, "depth": 1, "batch_size": 16, "learning_rate": 5e-3}

SAME_KEY = [inversion.ConvInversion, inversion.TransformerInversion]
CHOSEN = [inversion.ChosenConvInversion, inversion.ChosenTransformerInversion]
OTHER_KEY = [inversion.OtherKeyConvInversion, inversion.OtherKeyTransformerInversion]


@cache
def protection(scheme: str, block: int = 4) -> Any:
    return open_protection(EncryptSettings(scheme, block=block))


def protect(images: Tensor, key: Key | None, scheme: str, block: int = 4) -> Release:
    return protection(scheme, block).protect(images, key)


def fresh_key(generator: Generator) -> Key:
    drawn = torch.randint(256, (32,), dtype=torch.uint8, generator=generator)
    return Key.from_bytes(drawn.numpy().tobytes())


def psnr_db(guesses: Tensor, originals: Tensor = ATTACKED) -> float:
    errors = (guesses - originals).square().flatten(1).mean(1)
    return float(-10 * errors.clamp(min=1e-10).log10().mean())


def mean_db() -> float:
    return psnr_db(AUXILIARY.mean(0).expand_as(ATTACKED))


def fit(kind: Any, knowledge: Knowledge, **settings: Any) -> FittedInversion:
    fitted: FittedInversion = kind(**{**SMALL, "steps": 60, **settings}).fit(
        knowledge, generator=Generator().manual_seed(0)
    )
    return fitted


def guess(fitted: FittedInversion, release: Release) -> Tensor:
    return fitted.run(release, Knowledge(), generator=Generator())


def pairs(scheme: str, *, shift: int = 0) -> Knowledge:
    """Return known pairs; each picture's release is that of the one ``shift`` further on."""
    return Knowledge(pairs=(AUXILIARY.roll(shift, 0), protect(AUXILIARY, KEY, scheme)))


@pytest.mark.parametrize("kind", SAME_KEY)
def test_known_pairs_undo_a_rotation_of_blocks(kind: Any) -> None:
    fitted = fit(kind, pairs("orthogonal"))
    found = psnr_db(guess(fitted, protect(ATTACKED, KEY, "orthogonal")))
    assert found > mean_db() + 12
    # Of another key nothing was learned.
    assert psnr_db(guess(fitted, protect(ATTACKED, OTHER, "orthogonal"))) < mean_db() + 1


@pytest.mark.parametrize("kind", SAME_KEY)
def test_pairs_of_unlike_pictures_teach_the_mean_picture(kind: Any) -> None:
    fitted = fit(kind, pairs("orthogonal", shift=1))
    found = psnr_db(guess(fitted, protect(ATTACKED, KEY, "orthogonal")))
    assert mean_db() - 0.5 < found < mean_db() + 0.5


def test_known_pairs_undo_a_map_for_every_position() -> None:
    fitted = fit(inversion.ConvInversion, pairs("orthogonal-per-block"))
    found = psnr_db(guess(fitted, protect(ATTACKED, KEY, "orthogonal-per-block")))
    assert found > mean_db() + 6


@pytest.mark.parametrize("kind", SAME_KEY)
def test_known_pairs_put_shuffled_blocks_back(kind: Any) -> None:
    """A secret order that is the same for all pictures is learned."""
    fitted = fit(kind, pairs("block-shuffle"), steps=300)
    found = psnr_db(guess(fitted, protect(ATTACKED, KEY, "block-shuffle")))
    assert found > mean_db() + 3


@pytest.mark.parametrize("kind", CHOSEN)
def test_an_oracle_teaches_as_pairs_do(kind: Any) -> None:
    asked = []

    def oracle(images: Tensor) -> Release:
        asked.append(images.clone())
        return protect(images, KEY, "orthogonal")

    fitted = fit(kind, Knowledge(protect=oracle, auxiliary=AUXILIARY))
    found = psnr_db(guess(fitted, protect(ATTACKED, KEY, "orthogonal")))
    assert found > mean_db() + 12
    assert len(asked) > 60  # fresh questions, not one set


@pytest.mark.parametrize("kind", OTHER_KEY)
def test_keys_of_ones_own_teach_what_no_rotation_hides(kind: Any) -> None:
    """Pictures that are not normalized: a block's length is its brightness."""

    def simulate(images: Tensor, generator: Generator) -> Release:
        return protect(images, fresh_key(generator), "orthogonal")

    fitted = fit(kind, Knowledge(simulate=simulate, auxiliary=AUXILIARY), steps=60)
    found = psnr_db(guess(fitted, protect(ATTACKED, KEY, "orthogonal")))
    # As good as the true brightness of each block would be, within a fraction.
    thumbnail = F.adaptive_avg_pool2d(ATTACKED.mean(1, keepdim=True), SIDE // 4)
    assert found > psnr_db(F.interpolate(thumbnail, (SIDE, SIDE))) - 0.5
    assert found > mean_db() + 1


def test_a_keyless_mixture_is_enlarged_better_than_by_interpolation() -> None:
    def simulate(images: Tensor, generator: Generator) -> Release:
        return protect(images, None, "mix", block=8)

    release = protect(ATTACKED, None, "mix", block=8)
    fitted = fit(
        inversion.OtherKeyConvInversion,
        Knowledge(simulate=simulate, auxiliary=AUXILIARY),
        steps=100,
    )
    thumbnail = F.adaptive_avg_pool2d(release.data, 2)
    enlarged = F.interpolate(thumbnail, (SIDE, SIDE), mode="bilinear")
    assert psnr_db(guess(fitted, release)) > psnr_db(enlarged) + 0.5


def test_same_seed_same_guesses() -> None:
    release = protect(ATTACKED, KEY, "orthogonal")
    kinds = (inversion.ConvInversion, inversion.ConvInversion)
    first, second = (guess(fit(kind, pairs("orthogonal"), steps=5), release) for kind in kinds)
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", [*SAME_KEY, *CHOSEN, *OTHER_KEY])
def test_what_is_not_granted_raises(kind: Any) -> None:
    with pytest.raises(NotGrantedError):
        kind().fit(Knowledge(), generator=Generator())


def test_an_oracle_without_a_key_is_not_worth_asking() -> None:
    known = Knowledge(protect=lambda images: protect(images, None, "mix", 8), auxiliary=AUXILIARY)
    with pytest.raises(NotApplicableError, match="holds a key"):
        fit(inversion.ChosenConvInversion, known)


def test_one_pair_is_too_few_to_learn_from() -> None:
    one = (AUXILIARY[:1], protect(AUXILIARY[:1], KEY, "orthogonal"))
    with pytest.raises(NotApplicableError, match="at least 2"):
        fit(inversion.ConvInversion, Knowledge(pairs=one))


def test_another_kind_of_release_is_refused() -> None:
    fitted = fit(inversion.ConvInversion, pairs("orthogonal"), steps=1)
    with pytest.raises(NotApplicableError, match="like those learned from"):
        guess(fitted, protect(ATTACKED, KEY, "orthogonal", block=8))


def test_a_run_that_was_cut_short_says_so() -> None:
    assert any(
        "flattened" in note for note in fit(SAME_KEY[0], pairs("orthogonal"), steps=12).notes
    )


def test_a_run_that_found_nothing_says_so() -> None:
    constant = Release(torch.zeros_like(AUXILIARY), protect(AUXILIARY, KEY, "orthogonal").metadata)
    few = (AUXILIARY[:20], Release(constant.data[:20], constant.metadata))
    fitted = fit(SAME_KEY[0], Knowledge(pairs=few), steps=1, learning_rate=1.0)
    assert any("mean picture" in note for note in fitted.notes)
    assert torch.allclose(guess(fitted, constant)[0], fitted.network.base, atol=1e-6)
