"""Labelled pictures that the smallest network can learn, and a way to stop it."""

from __future__ import annotations

import torch
from torch import Generator

from scotoma.train.data import LabelledPictures

__all__ = ["StoppedError", "reddish_and_bluish"]


class StoppedError(Exception):
    """Raised by a test to interrupt a run."""


def reddish_and_bluish(count: int = 20, side: int = 16) -> LabelledPictures:
    """Return noise that is reddish (label 0) and bluish (label 1) in turn."""
    generator = Generator().manual_seed(0)
    images = torch.randint(0, 128, (count, 3, side, side), generator=generator)
    labels = torch.arange(count) % 2
    images[labels == 0, 0] += 127
    images[labels == 1, 2] += 127
    return LabelledPictures(images.to(torch.uint8), labels, ("red", "blue"))
