"""Split networks and videos small enough for every test."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import torch
from numpy.typing import NDArray
from support.tiny_models import SIDE, make_picture
from torch import nn

from scotoma.models.bottleneck import BottleneckSettings
from scotoma.models.spec import load_classifier
from scotoma.models.split_model import open_split, save_split

__all__ = ["write_split", "write_video"]


def write_split(path: Path, model: Path, *, seed: int = 0, bottleneck: bool = True) -> Path:
    """Cut a tiny model after its first block, and write the split with a random bottleneck."""
    classifier = load_classifier(f"scotoma:{model}")
    assert isinstance(classifier.network, nn.Module)
    generator = torch.Generator().manual_seed(seed)
    settings = BottleneckSettings(24, 5, 8) if bottleneck else None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        split = open_split(classifier, "blocks.0", bottleneck=settings)
    images = torch.randn(64, 3, SIDE, SIDE, generator=generator)
    split.fit_range([images])
    split.fit_coder([images])
    save_split(path, split, classifier.network)
    return path


def write_video(path: Path, count: int, *, width: int = 64, height: int = 48) -> Sequence[NDArray]:
    """Write a video of seeded pictures, nearly lossless, and return them."""
    pictures = [make_picture(seed, width, height) for seed in range(count)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        stream.options = {"qp": "1"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return pictures
