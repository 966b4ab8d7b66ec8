"""Who holds the adapted model: what it undoes, and what the public one beside it tells."""

from __future__ import annotations

import pytest
import timm
import torch
from support.encryption import KEY
from support.scenes import block_brightness, make_scenes, pearson
from torch import Generator, Tensor, nn

from scotoma.attacks.algebra.stem_recovery import AdaptedStatistics, StemRecovery
from scotoma.attacks.statistics.spatial_lag import LagICA
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release
from scotoma.models.preprocessing import Preprocessing
from scotoma.ops.generators import seeded_generator
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

SIDE = 96
PICTURES = 10


def protect(scheme: str) -> tuple[Tensor, Release, nn.Module, nn.Module]:
    """Return pictures, their release, and a public network before and after it is adapted."""
    torch.manual_seed(0)
    network = timm.create_model("resnet10t").eval()
    reading = Preprocessing((3, SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    protection = open_protection(EncryptSettings(scheme, block=8), reading)
    images = make_scenes(PICTURES, SIDE)
    generator = seeded_generator(b"a test") if protection.fresh else None
    release = protection.protect((images - 0.5) / 0.5, KEY, generator=generator)
    return images, release, network, protection.adapt(network, KEY)


def best(guesses: Tensor, images: Tensor) -> float:
    """Return the correlation of the candidate that shows most."""
    wanted = block_brightness(images, 8)
    found = [block_brightness(guess, 8) for guess in guesses]
    return max(
        sum(abs(pearson(one, other)) for one, other in zip(guess, wanted, strict=True)) / PICTURES
        for guess in found
    )


@pytest.mark.parametrize("scheme", ["orthogonal", "hardened"])
def test_the_public_model_beside_the_adapted_one_gives_all(scheme: str) -> None:
    images, release, public, adapted = protect(scheme)
    knowledge = Knowledge(public_model=public, adapted_model=adapted)
    guess = StemRecovery().run(release, knowledge, generator=Generator())
    assert float((guess - images).square().mean()) < 1e-6  # 60 dB


def test_the_adapted_model_alone_undoes_the_rounds() -> None:
    images, release, _, adapted = protect("hardened")
    generator = Generator().manual_seed(0)
    blind = best(LagICA().run(release, Knowledge(), generator=generator), images)
    knowledge = Knowledge(adapted_model=adapted)
    seeing = best(AdaptedStatistics().run(release, knowledge, generator=generator), images)
    assert seeing > 0.6
    assert seeing > 2 * blind


def test_where_nothing_was_spread_an_adapted_model_tells_no_more() -> None:
    _, release, _, adapted = protect("orthogonal")
    with pytest.raises(NotApplicableError, match="without rounds"):
        AdaptedStatistics().run(release, Knowledge(adapted_model=adapted), generator=Generator())
