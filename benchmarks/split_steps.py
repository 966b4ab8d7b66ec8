"""The steps that benchmarks of split networks share: train, encode, code, attack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.split_pictures import Pictures
    from scotoma.models.classifier import Classifier
    from scotoma.models.split_model import SplitModel

__all__ = [
    "ATTACKERS",
    "BATCH",
    "CODED",
    "attack",
    "attack_steps",
    "bits",
    "encoded",
    "prepared",
    "psnr",
]

ATTACKERS = {"conv": 1.0, "transformer": 0.5}
"""Architectures of fresh attackers, none of them an adversary's, and their share of the steps.

A step of the transformer takes three times as long.
"""

BATCH = 100
CODED = 200
"""Pictures whose stream is measured."""


def prepared(
    classifier: Classifier, at: str, recipe: Any, pictures: Pictures, path: Path
) -> SplitModel:
    """Return the split as it is loaded from its file, trained where it is not there yet."""
    import torch
    from torch import nn

    from scotoma.models.split_model import load_split, open_split
    from scotoma.train.split import train

    if recipe is None:
        model = open_split(classifier, at)
        few = pictures.normalized(pictures.train[:1024])
        model.fit_range(torch.split(few, BATCH))
        model.fit_coder(torch.split(few, BATCH))
        return model
    if not path.is_file():
        checkpoint = path.with_name(path.name + ".checkpoint")
        train(classifier, at, pictures.source(), path, recipe, checkpoint=checkpoint)
    network = classifier.network
    return load_split(path, network=network if isinstance(network, nn.Module) else None)


def encoded(model: SplitModel, images: Tensor) -> Tensor:
    """Return what leaves the camera of normalized pictures: uint8."""
    import torch

    with torch.no_grad():
        return torch.cat([model.encode(part) for part in torch.split(images, BATCH)])


def bits(model: SplitModel, places: Tensor, images: Tensor) -> float:
    """Return the bits of the stream of some pictures for each of their pixels, once decoded."""
    from scotoma.evaluate.metrics.coding import bits_per_pixel
    from scotoma.images.bitstream import decode_latents, encode_latents

    frames = places[:CODED].numpy()
    stream = encode_latents(frames, model=model.coder)
    if not (decode_latents(stream, model=model.coder).latents == frames).all():
        raise AssertionError("the stream gives back other latents")
    return bits_per_pixel(len(stream), len(frames) * images.shape[2], images.shape[3])


def attack_steps(steps: int) -> dict[str, int]:
    """Return how many steps each attacker learns for, where the longest takes ``steps``."""
    return {name: max(1, round(share * steps)) for name, share in ATTACKERS.items()}


def attack(
    name: str,
    model: SplitModel,
    pictures: Pictures,
    steps: int,
    checkpoint: Path,
    *,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Train an attacker afresh on releases of the training pictures, and judge it on the test's."""
    from torch import Generator

    from scotoma.attacks.inversion.attacks import (
        FeatureConvInversion,
        FeatureTransformerInversion,
    )
    from scotoma.core.protocols import Knowledge, Release
    from scotoma.evaluate.metrics.pictures import edge_psnr_db, ms_ssim, ssim
    from scotoma.protections.encode.split import SplitProtection

    protection = SplitProtection(model)

    def simulate(images: Tensor, generator: Generator) -> Release:  # noqa: ARG001
        return protection.protect(pictures.normalized(images))

    kind = {"conv": FeatureConvInversion, "transformer": FeatureTransformerInversion}[name]
    knowledge = Knowledge(simulate=simulate, auxiliary=pictures.auxiliary)
    fitted = kind(steps=steps, batch_size=batch_size).fit(
        knowledge, generator=Generator().manual_seed(7), checkpoint=checkpoint
    )
    originals = pictures.judged
    release = protection.protect(pictures.normalized(originals))
    guesses = fitted.run(release, Knowledge(), generator=Generator())
    structure = ms_ssim if min(originals.shape[2:]) >= 161 else ssim
    return {
        "psnr_db": psnr(guesses, pictures),
        "edge_psnr_db": float(edge_psnr_db(guesses, originals, {}).mean()),
        structure.__name__: float(structure(guesses, originals, {}).mean()),
        "steps": steps,
        "curve": [(point.step, round(point.psnr_db, 2)) for point in fitted.history[::4]],
        "notes": list(fitted.notes),
    }


def psnr(guesses: Tensor, pictures: Pictures) -> float:
    """Return the mean PSNR of guesses, or of one guess for all, in decibels."""
    from scotoma.evaluate.metrics.pictures import psnr_db

    return float(psnr_db(guesses.expand_as(pictures.judged), pictures.judged, {}).mean())
