"""Runs to look at, and a witness that reads released files without the code that made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from support.tiny_models import SIDE
from torch import Tensor

from scotoma.images.regions import Box
from scotoma.models import saved
from scotoma.run.entry import Entry
from scotoma.run.manifest import latest

__all__ = ["OURS", "Witness", "entries_of", "inside", "pixels_of", "releases_of"]

OURS = {"manifest.jsonl", "summary.json", "report.html"}
"""What a run writes beside pictures."""


class Witness:
    """What a tiny model says of a picture file, by Pillow, NumPy and the bare network."""

    def __init__(self, model: Path) -> None:
        self.network, described = saved.load(model)
        self.classes = described.classes
        self.mean = np.array(described.preprocessing.mean)
        self.std = np.array(described.preprocessing.std)

    def logits(self, path: Path) -> Tensor:
        """Return ``(K,)`` logits of the file."""
        with Image.open(path) as file:
            image = file.convert("RGB")
        width, height = image.size
        scale = SIDE / min(width, height)
        image = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
        left, top = round((image.width - SIDE) / 2), round((image.height - SIDE) / 2)
        pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), float) / 255
        inputs = torch.tensor(((pixels - self.mean) / self.std).transpose(2, 0, 1))
        with torch.no_grad():
            logits: Tensor = self.network(inputs.float()[None])[0]
        return logits

    def label(self, path: Path) -> int:
        """Return the most probable class."""
        return int(self.logits(path).argmax())


def entries_of(out: Path) -> dict[str, Entry]:
    """Return the manifest's last entry of each input, by the input's bare file name."""
    return {Path(entry.input).name: entry for entry in latest(out / "manifest.jsonl").values()}


def releases_of(out: Path) -> dict[str, bytes]:
    """Return the content of every file under ``out`` that is a release, hidden ones included."""
    files = (path for path in out.rglob("*") if path.is_file())
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in files
        if path.relative_to(out).as_posix() not in OURS
    }


def pixels_of(path: Path) -> NDArray[np.uint8]:
    """Return what plain Pillow sees in a file."""
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def inside(boxes: Sequence[Box], shape: tuple[Any, ...]) -> NDArray[np.bool_]:
    """Return which pixels lie in one of the boxes."""
    mask = np.zeros(shape[:2], bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask
