"""A split network's release as a protection, and what fresh attackers get of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from support.natural_pictures import make_natural
from torch import Generator, Tensor, nn

from scotoma.attacks.inversion.attacks import FeatureConvInversion, FeatureTransformerInversion
from scotoma.core.errors import CipherKeyError, ModelError
from scotoma.core.keys import Key
from scotoma.core.protocols import Knowledge, Release
from scotoma.models.bottleneck import BottleneckSettings
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.models.split_model import open_split
from scotoma.protections.encode.split import SplitProtection
from scotoma.testing import check_protection

SIDE = 32
AUXILIARY = make_natural(160, SIDE, seed=1)
ATTACKED = make_natural(32, SIDE, seed=2)


@cache
def _classifier(path: Path) -> Classifier:
    return load_classifier(f"scotoma:{path}")


def _protection(
    path: Path, *, levels: int = 256, bottleneck: BottleneckSettings | None = None
) -> SplitProtection:
    torch.manual_seed(0)
    model = open_split(_classifier(path), "blocks.0", levels=levels, bottleneck=bottleneck)
    model.fit_range([_normalized(model, AUXILIARY)])
    return SplitProtection(model)


def _normalized(model: Any, images: Tensor) -> Tensor:
    preprocessing = model.description.preprocessing
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    return (images - mean) / std


def _attacked_db(protection: SplitProtection, kind: Any) -> float:
    def simulate(images: Tensor, generator: Generator) -> Release:
        return protection.protect(_normalized(protection.model, images))

    attack = kind(steps=80, batch_size=16, width=32, depth=1, learning_rate=5e-3).fit(
        Knowledge(simulate=simulate, auxiliary=AUXILIARY), generator=Generator().manual_seed(0)
    )
    release = protection.protect(_normalized(protection.model, ATTACKED))
    guesses = attack.run(release, Knowledge(), generator=Generator())
    assert guesses.shape == ATTACKED.shape
    return _psnr_db(guesses)


def _psnr_db(guesses: Tensor) -> float:
    errors = (guesses - ATTACKED).square().flatten(1).mean(1)
    return float(-10 * errors.log10().mean())


def test_it_keeps_what_every_protection_owes(tiny_files: tuple[Path, Path]) -> None:
    check_protection(_protection(tiny_files[0]), size=(SIDE, SIDE), has_fresh_randomness=False)


def test_only_whole_bytes_leave(tiny_files: tuple[Path, Path]) -> None:
    protection = _protection(tiny_files[0], levels=7)
    release = protection.protect(_normalized(protection.model, ATTACKED))
    assert set(release.data.unique().tolist()) <= set(range(7))


def test_the_adapted_half_reads_releases_and_only_its_own_network(
    tiny_files: tuple[Path, Path],
) -> None:
    classifier, protection = _classifier(tiny_files[0]), _protection(tiny_files[0])
    images = _normalized(protection.model, ATTACKED)
    assert isinstance(classifier.network, nn.Module)
    adapted = protection.adapt(classifier.network)
    plain = classifier.logits(images)
    error = (adapted(protection.protect(images).data) - plain).abs().max() / plain.abs().max()
    assert float(error) < 0.1
    other = _classifier(tiny_files[1]).network
    assert isinstance(other, nn.Module)
    with pytest.raises(ModelError, match="that was cut"):
        protection.adapt(other)
    with pytest.raises(CipherKeyError, match="seal"):
        protection.protect(images, Key.from_bytes(bytes(32)))


@pytest.mark.parametrize("kind", [FeatureConvInversion, FeatureTransformerInversion])
def test_plain_features_give_pictures_away_and_few_bits_less(
    tiny_files: tuple[Path, Path], kind: Any
) -> None:
    mean = _psnr_db(AUXILIARY.mean(0).expand_as(ATTACKED))
    fine = _attacked_db(_protection(tiny_files[0]), kind)
    few = BottleneckSettings(24, 1, 4, stride=4)  # four values of two bits
    coarse = _attacked_db(_protection(tiny_files[0], levels=4, bottleneck=few), kind)
    assert fine > mean + 3
    assert fine > coarse + 2
