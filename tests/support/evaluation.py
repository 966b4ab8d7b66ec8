"""Pictures and attacks for tests of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from support.tiny_models import make_picture
from torch import Generator, Tensor

from scotoma.core.protocols import Knowledge, Release

__all__ = ["Ask", "Constant", "make_unit_images", "write_groups"]


def make_unit_images(count: int, side: int = 32, *, first: int = 0) -> Tensor:
    """Return ``(count, 3, side, side)`` float32 pictures in [0, 1]."""
    pictures = [make_picture(first + number, side, side) for number in range(count)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def write_groups(folder: Path, groups: int, each: int, *, side: int = 32) -> Path:
    """Write ``folder/gNN/NN.png`` and return the folder."""
    for group in range(groups):
        for number in range(each):
            path = folder / f"g{group:02d}" / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(make_picture(100 * group + number, side, side)).save(path)
    return folder


@dataclass(frozen=True)
class Constant:
    """Guesses one grey; worse than nothing."""

    grey: float = 0.2
    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        _, height, width = release.metadata["input_size"]
        return torch.full((len(release.data), 3, height, width), self.grey)


@dataclass(frozen=True)
class Ask:
    """Solves the one linear map of all blocks from pictures of its own choosing."""

    needs: ClassVar[frozenset[str]] = frozenset({"protect", "auxiliary"})

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        shape = (len(knowledge.auxiliary), *release.metadata["input_size"])
        chosen = torch.rand(shape, generator=generator)
        block = release.metadata["settings"]["block"]
        seen = _vectors(knowledge.protect(chosen).data, block)
        solved = torch.linalg.lstsq(seen, _vectors(chosen, block)).solution
        rows, columns = shape[2] // block, shape[3] // block
        plain = _vectors(release.data, block) @ solved
        plain = plain.view(len(release.data), rows, columns, 3, block, block)
        return plain.permute(0, 3, 1, 4, 2, 5).reshape(-1, *shape[1:]).clamp(0, 1).float()


def _vectors(images: Tensor, block: int) -> Tensor:
    """Return every block of every picture as a row."""
    count, channels, height, width = images.shape
    cut = images.view(count, channels, height // block, block, width // block, block)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels * block * block).double()
