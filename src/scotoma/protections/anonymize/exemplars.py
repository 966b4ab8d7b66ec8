"""Public pictures of the decided class, to start a search from.

Perturbations that merely look like noise transfer badly to other models; content that
means the class transfers. An exemplar is chosen by the decisions alone: its pixels owe
nothing to the private picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scotoma.core.errors import FileError, SettingsError
from scotoma.images.read import read_picture
from scotoma.images.regions import Region
from scotoma.images.walk import find_pictures
from scotoma.models.classifier import Classifier

__all__ = ["Exemplars", "largest_region", "paste"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Exemplars:
    """Public pictures and what the models say of them.

    Args:
        paths: The files.
        digests: Of their pixels, so that a picture is never its own exemplar.
        scores: One ``(N, K)`` tensor of log-probabilities per model.
    """

    paths: tuple[Path, ...]
    digests: tuple[bytes, ...]
    scores: tuple[Tensor, ...]

    @classmethod
    def open(cls, folder: Path, models: Sequence[Classifier], *, most: int = 20_000) -> Exemplars:
        """Read a folder of public pictures and ask the models about each.

        Unreadable files are passed over; beyond ``most`` files, an even sample is taken.

        Raises:
            FileError: No readable picture there.
            SettingsError: No model.
        """
        if not models:
            raise SettingsError("expected a model to choose exemplars by, got none")
        found = [item.path for item in find_pictures([folder])]
        found = found[:: max(1, -(-len(found) // most))]
        paths: list[Path] = []
        digests: list[bytes] = []
        scores: list[list[Tensor]] = [[] for _ in models]
        for start in range(0, len(found), 32):
            pictures = []
            for path in found[start : start + 32]:
                try:
                    pixels = read_picture(path, keep_profile=True).pixels
                except FileError:
                    continue
                pictures.append(Image.fromarray(pixels))
                paths.append(path)
                digests.append(_digest(pixels))
            for place, model in enumerate(models if pictures else ()):
                logits = model.logits(torch.stack([model.read(picture) for picture in pictures]))
                scores[place].append(logits.log_softmax(1).half())
        if not paths:
            raise FileError(f"expected public pictures in {folder}, found none that can be read")
        return cls(tuple(paths), tuple(digests), tuple(torch.cat(part) for part in scores))

    def best(self, goals: Sequence[Tensor], *, apart_from: Pixels) -> Pixels | None:
        """Return the picture that the models find most like their goals.

        Args:
            goals: Of each model; only the first label of an ordered goal counts.
            apart_from: ``(H, W, 3)`` uint8, the private picture; never the answer.

        Returns:
            ``(H, W, 3)`` uint8; None where the goals decide no single class.
        """
        own = _digest(apart_from)
        total = torch.zeros(len(self.paths))
        for scores, goal in zip(self.scores, goals, strict=True):
            if goal.is_floating_point():  # scores of several labels
                return None
            total = total + scores[:, int(goal.reshape(-1)[0])].float()
        for place in total.argsort(descending=True).tolist():
            if self.digests[place] != own:
                return read_picture(self.paths[place], keep_profile=True).pixels
        return None


def largest_region(regions: Sequence[Region]) -> Region:
    """Return the region with the largest bounding box."""
    return max(regions, key=lambda r: (r.box[2] - r.box[0]) * (r.box[3] - r.box[1]))


def paste(pixels: Pixels, region: Region, exemplar: Pixels) -> Pixels:
    """Return a copy with the region showing the middle of the exemplar, cropped to its shape."""
    x0, y0, x1, y1 = region.box
    width, height = x1 - x0, y1 - y0
    picture = Image.fromarray(exemplar)
    scale = min(picture.width / width, picture.height / height)
    # Rounding may put the box a hair outside of the picture, which Pillow refuses.
    across, down = min(width * scale, picture.width), min(height * scale, picture.height)
    left, top = max(0.0, (picture.width - across) / 2), max(0.0, (picture.height - down) / 2)
    right, bottom = min(left + across, picture.width), min(top + down, picture.height)
    content = np.asarray(
        picture.resize(
            (width, height),
            Image.Resampling.BICUBIC,
            box=(left, top, right, bottom),
        )
    )
    result = pixels.copy()
    window = result[y0:y1, x0:x1]
    if region.mask is None:
        window[:] = content
    else:
        window[region.mask] = content[region.mask]
    return result


def _digest(pixels: Pixels) -> bytes:
    return hashlib.sha256(pixels.tobytes()).digest()
