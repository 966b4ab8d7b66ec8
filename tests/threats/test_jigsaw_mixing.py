"""Mixed patches: the thumbnail that is left, and what a linear guess adds to it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.encryption import correlation
from support.natural_pictures import make_natural
from torch import Generator, Tensor

from scotoma.attacks.jigsaw.mixing import PatchMeans, Unmix, mixed_patch
from scotoma.core.errors import NotApplicableError, SettingsError
from scotoma.core.protocols import Knowledge, Release
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

SIDE, BLOCK = 96, 16


def drawn(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def mixed(pictures: Tensor) -> Release:
    return open_protection(EncryptSettings("mix", block=BLOCK)).protect(pictures)


def psnr_db(guesses: Tensor, pictures: Tensor) -> float:
    return float(-10 * (guesses - pictures).square().flatten(1).mean(1).log10().mean())


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return make_natural(48, SIDE, seed=12)


@pytest.fixture(scope="module")
def knowledge(pictures: Tensor) -> Knowledge:
    return Knowledge(auxiliary=pictures[8:], simulate=lambda batch, generator: mixed(batch))


def test_the_thumbnail_is_the_true_one(pictures: Tensor) -> None:
    guess = PatchMeans().run(mixed(pictures[:8]), Knowledge(), generator=drawn(0))
    assert guess.shape == pictures[:8].shape
    seen, true = (F.avg_pool2d(one, BLOCK) for one in (guess, pictures[:8]))
    assert correlation(seen, true) > 0.98


def test_unmixing_beats_enlarging(pictures: Tensor, knowledge: Knowledge) -> None:
    release = mixed(pictures[:8])
    fitted = Unmix().fit(knowledge, generator=drawn(0))
    guess = fitted.run(release, Knowledge(), generator=drawn(0))
    means = PatchMeans().run(release, Knowledge(), generator=drawn(0))
    size = pictures.shape[-2:]
    enlarged = F.interpolate(release.data, size, mode="bilinear", align_corners=False)
    best = max(psnr_db(means, pictures[:8]), psnr_db(enlarged, pictures[:8]))
    assert psnr_db(guess, pictures[:8]) > best + 0.5


def test_the_guess_mixes_to_the_release(pictures: Tensor, knowledge: Knowledge) -> None:
    """What a patch's mean says is kept; only what it does not say is guessed."""
    release = mixed(pictures[:4])
    guess = Unmix(ridges=(1e-9,)).fit(knowledge, generator=drawn(0))
    again = mixed(guess.run(release, Knowledge(), generator=drawn(0)))
    assert float((again.data - release.data).abs().mean()) < 0.01


def test_noise_is_not_unmixed() -> None:
    noise = torch.rand(16, 3, SIDE, SIDE, generator=drawn(3))
    knowledge = Knowledge(auxiliary=noise[4:], simulate=lambda batch, generator: mixed(batch))
    fitted = Unmix().fit(knowledge, generator=drawn(0))
    guess = fitted.run(mixed(noise[:4]), Knowledge(), generator=drawn(0))
    # Grey has 10.8 dB; one value in four of independent ones is known, so 1.2 dB are the most.
    assert 10.6 < psnr_db(guess, noise[:4]) < 12.1


def test_it_is_deterministic_and_says_what_it_is_for(
    pictures: Tensor, knowledge: Knowledge
) -> None:
    fits = [Unmix(most_patches=200).fit(knowledge, generator=drawn(4)) for _ in range(2)]
    assert torch.equal(fits[0].weights, fits[1].weights)
    shuffled = open_protection(EncryptSettings("shuffle", block=BLOCK))
    release = shuffled.protect(pictures[:1], generator=drawn(0))
    for attack in (PatchMeans(), fits[0]):
        with pytest.raises(NotApplicableError, match="mix"):
            attack.run(release, Knowledge(), generator=drawn(0))
    assert mixed_patch(mixed(pictures[:1])) == (16, 8)
    with pytest.raises(SettingsError, match="ridge"):
        Unmix(ridges=(0.0,))
