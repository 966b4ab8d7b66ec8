"""Decisions as a stranger reads them: Pillow, timm or torchvision, and nothing of Scotoma's.

Whoever takes a release and asks the public network gets what this module gets. It shares no
code with the package, so that a mistake in the package's reading cannot hide itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from benchmarks.pictures import MODELS

__all__ = ["Reader", "Resize", "open_picture", "open_reader"]

_BATCH = 16


@dataclass(frozen=True)
class Resize:
    """What may happen to a picture on its way to the network.

    Args:
        scale: Of both sides.
        filter: Pillow's.
    """

    scale: float
    filter: Image.Resampling

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return the resized picture."""
        width, height = (max(1, round(side * self.scale)) for side in picture.size)
        return picture.resize((width, height), self.filter)


@dataclass(frozen=True, eq=False)
class Reader:
    """A public network behind its public preprocessing.

    Args:
        network: In evaluation mode.
        transform: From an RGB picture to one input.
    """

    network: nn.Module
    transform: Callable[[Image.Image], Tensor]

    def logits(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return ``(N, K)`` logits."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                batch = [self.transform(p) for p in pictures[start : start + _BATCH]]
                parts.append(self.network(torch.stack(batch)))
        return torch.cat(parts) if parts else torch.zeros(0, 1000)

    def labels(self, paths: Sequence[Path], change: Resize | None = None) -> list[int]:
        """Return the top-1 class of each file, after ``change`` where one is given."""
        found: list[int] = []
        for batch in _batches(paths):
            pictures = [open_picture(path) for path in batch]
            if change is not None:
                pictures = [change(picture) for picture in pictures]
            found += self.logits(pictures).argmax(1).tolist()
        return found


def open_picture(path: Path) -> Image.Image:
    """Return a file as an upright RGB picture."""
    with Image.open(path) as file:
        return ImageOps.exif_transpose(file).convert("RGB")


@cache
def open_reader(name: str) -> Reader:
    """Return the reader of one of the ImageNet networks in ``../shared``.

    Args:
        name: ``mobilenetv2`` or ``squeezenet1_1``.
    """
    if name == "mobilenetv2":
        return _open_timm(MODELS / "mobilenetv2_100")
    if name == "squeezenet1_1":
        return _open_squeezenet(MODELS / "squeezenet1_1.safetensors")
    return _open_exported(MODELS / name)


def _open_timm(folder: Path) -> Reader:
    import timm
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    return Reader(network, create_transform(**config))


def _open_squeezenet(weights: Path) -> Reader:
    import torchvision
    from safetensors.torch import load_file
    from torchvision import transforms

    network = torchvision.models.squeezenet1_1()
    network.load_state_dict(load_file(weights))
    transform = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BILINEAR),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return Reader(network.eval(), transform)


def _open_exported(folder: Path) -> Reader:
    import json

    from timm.data.transforms_factory import create_transform

    config = json.loads((folder / "config.json").read_text("utf-8"))
    config = config.get("pretrained_cfg", config)
    known = ("input_size", "mean", "std", "interpolation", "crop_pct")
    options = {key: config[key] for key in known if key in config}
    network = torch.export.load(folder / "model.pt2").module()
    return Reader(network, create_transform(**options, is_training=False))


def _batches(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    for start in range(0, len(paths), _BATCH):
        yield paths[start : start + _BATCH]
