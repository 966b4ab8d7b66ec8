"""Pictures and networks small enough for every test, whose decisions really do depend on pixels.

The networks are random, but not arbitrary: their statistics are calibrated on seeded
pictures, so that decisions differ between pictures and a filled region often changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from scotoma.models import saved
from scotoma.models.preprocessing import Preprocessing

__all__ = [
    "CLASSES",
    "SIDE",
    "make_picture",
    "naively_filled",
    "write_pictures",
    "write_tiny_model",
]

CLASSES = ("ash", "birch", "cedar", "dogwood", "elm")
SIDE = 32
_ARGUMENTS = {"dim": 24, "depth": 2, "kernel_size": 5, "patch_size": 4, "num_classes": len(CLASSES)}
_PREPROCESSING = Preprocessing((3, SIDE, SIDE), interpolation="bilinear", crop_pct=1.0)
_CALIBRATION = 96
_SPREAD = 4.0  # standard deviation of every logit, so that a lead of two logits is common

Pixels = NDArray[np.uint8]


def make_picture(seed: int, width: int = 60, height: int = 48) -> Pixels:
    """Return ``(height, width, 3)`` of a gradient, stripes, blobs and grain, all seeded."""
    random = np.random.default_rng([seed, 20])
    down, across = np.mgrid[0:height, 0:width].astype(float)
    picture = np.empty((height, width, 3))
    for channel in range(3):
        slope = random.normal(0, 1.5, 2)
        picture[..., channel] = random.uniform(60, 190) + slope[0] * down + slope[1] * across
    wave = random.uniform(0.1, 1.2, 2)
    stripes = np.sin(wave[0] * down + wave[1] * across)[..., None]
    picture += stripes * random.normal(0, 30, 3)
    for _ in range(int(random.integers(2, 6))):
        centre = random.uniform(0.3, 0.7, 2) * (height, width)
        radius = random.uniform(0.1, 0.35) * min(height, width)
        inside = (down - centre[0]) ** 2 + (across - centre[1]) ** 2 < radius**2
        picture[inside] = random.uniform(0, 255, 3)
    picture += random.normal(0, random.uniform(1, 12), picture.shape)
    return np.clip(picture, 0, 255).round().astype(np.uint8)


def write_pictures(folder: Path, count: int, *, first: int = 1000, suffix: str = ".png") -> Path:
    """Write seeded pictures of several sizes into ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        width, height = ((60, 48), (48, 60), (72, 40))[number % 3]
        image = Image.fromarray(make_picture(first + number, width, height))
        image.save(folder / f"{number:03d}{suffix}", quality=92)
    return folder


def write_tiny_model(path: Path, *, seed: int = 0) -> Path:
    """Write a calibrated random ConvMixer that ``scotoma:FILE`` loads, and return ``path``.

    Raises:
        RuntimeError: Its decisions are so uniform that tests with it would prove nothing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = saved.build("convmixer", _ARGUMENTS)
    pictures = [make_picture(number) for number in range(_CALIBRATION)]
    _calibrate(network, _read(pictures))
    _check(network, pictures)
    saved.save(
        path,
        network.state_dict(),
        saved.SavedModel("convmixer", _ARGUMENTS, _PREPROCESSING, CLASSES),
    )
    return path


def _read(pictures: Sequence[Pixels]) -> Tensor:
    return torch.stack([_PREPROCESSING.transform(Image.fromarray(p)) for p in pictures])


def _calibrate(network: nn.Module, inputs: Tensor) -> None:
    """Set the normalization to the pictures' own statistics, and make every class as likely."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain average over all that is seen
            module.reset_running_stats()
    with torch.no_grad():
        network.train()(inputs)
        network.eval()
        head = network.get_classifier()  # type: ignore[operator]
        logits = network(inputs)
        scale = _SPREAD / logits.std(0)
        head.weight.mul_(scale[:, None])
        head.bias.copy_((head.bias - logits.mean(0)) * scale)


def _check(network: nn.Module, pictures: Sequence[Pixels]) -> None:
    """Refuse a network that says one thing of everything, or that no fill confuses."""
    filled = [naively_filled(picture) for picture in pictures]
    with torch.no_grad():
        before = network(_read(pictures)).argmax(1)
        after = network(_read(filled)).argmax(1)
    largest = float(before.bincount(minlength=len(CLASSES)).max()) / len(pictures)
    flipped = float((before != after).float().mean())
    if not (largest <= 0.5 and flipped >= 0.35):
        raise RuntimeError(
            f"expected decisions that vary and that a fill changes, got one class for "
            f"{largest:.0%} of the pictures and {flipped:.0%} flipped; choose another seed"
        )


def naively_filled(picture: Pixels) -> Pixels:
    """Fill the central 30 % with the mean of the rest, without any code that is under test."""
    height, width = picture.shape[:2]
    inside = np.zeros((height, width), bool)
    side = 0.3**0.5
    top, left = round(height * (1 - side) / 2), round(width * (1 - side) / 2)
    inside[top : height - top, left : width - left] = True
    filled = picture.copy()
    filled[inside] = picture[~inside].mean(0).round()
    return filled
