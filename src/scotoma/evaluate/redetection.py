"""Does the detector still find the face, or whatever it is that it finds?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scotoma.core.errors import ModelError
from scotoma.evaluate.intervals import wilson_interval
from scotoma.evaluate.records import Figure
from scotoma.images.regions import DetectorSettings, Region, RegionSource, clip_box
from scotoma.models.onnx_scores import OnnxNetwork

__all__ = ["Redetection", "UltraLight", "is_found", "open_detector", "open_detectors"]

_OVERLAP = 0.5
_NAME = Path("guess")


@dataclass
class Redetection:
    """Judges all guesses of a cell together; see :class:`.judge.SetJudge`.

    Only objects count that the detector finds in the original: what it misses there, no
    protection hid.

    Args:
        detector: Finds regions.
        name: Of the figure.
    """

    detector: RegionSource
    name: str = "redetection"
    _hits: list[bool] = field(default_factory=list, repr=False)

    def add(self, guesses: Tensor, originals: Tensor, labels: Tensor) -> None:  # noqa: ARG002
        """Look for each original's regions in its guess, both ``(B, 3, H, W)`` in [0, 1]."""
        for guess, original in zip(_pixels(guesses), _pixels(originals), strict=True):
            wanted = self.detector.find(original, _NAME)
            if wanted:
                found = self.detector.find(guess, _NAME)
                self._hits.extend(is_found(region, found) for region in wanted)

    def figures(self) -> dict[str, Figure]:
        """Return the share of objects that are found again, with Wilson's interval."""
        if not self._hits:
            return {}
        n, right = len(self._hits), sum(self._hits)
        low, high = wilson_interval(right, n) or (math.nan, math.nan)
        return {self.name: Figure(right / n, low, high, n)}


@dataclass(frozen=True, eq=False)
class UltraLight:
    """The face detector Ultra-Light-Fast, RFB-320, from its published ONNX file.

    Args:
        network: The graph, with ``scores`` and decoded ``boxes``.
        threshold: Least score that counts; 0.7 is what its authors name.

    Source:
        Linzaer, Ultra-Light-Fast-Generic-Face-Detector-1MB, 2019.
    """

    network: OnnxNetwork
    threshold: float = 0.7

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:  # noqa: ARG002
        """Return the faces of an ``(H, W, 3)`` uint8 picture, the surest first."""
        import torch.nn.functional as F
        from torchvision.ops import nms

        size = self.network.input_size
        if size is None:
            raise ModelError(f"expected a graph of fixed input size, got {self.network.path}")
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
        inputs = F.interpolate(image, size[1:], mode="bilinear", align_corners=False)
        answers = self.network.outputs((inputs - 127) / 128)
        if {"scores", "boxes"} - answers.keys():
            raise ModelError(
                f"expected outputs scores and boxes of {self.network.path}, got {[*answers]}"
            )
        scores, boxes = answers["scores"][0, :, 1], answers["boxes"][0]
        sure = scores > self.threshold
        height, width = pixels.shape[:2]
        boxes = boxes[sure] * torch.tensor([width, height, width, height])
        regions = []
        for place in nms(boxes, scores[sure], 0.3).tolist():
            x0, y0, x1, y1 = (round(value) for value in boxes[place].tolist())
            box = clip_box((x0, y0, x1, y1), (width, height))
            if box is not None:
                regions.append(Region(box, label="face", score=float(scores[sure][place])))
        return regions


def open_detector(spec: str) -> RegionSource:
    """Return the detector of a name in the registry, or of ``onnx:FILE`` (RFB-320).

    Raises:
        UnknownNameError: No such name.
        ModelError: No such file.
    """
    from scotoma.images.detectors import detectors

    if not spec.startswith("onnx:"):
        # Grown boxes overlap more than what was found does.
        return detectors.get(spec)(DetectorSettings(grow=0.0))
    path = Path(spec.removeprefix("onnx:")).expanduser()
    if not path.is_file():
        raise ModelError(f"expected a detector at {path}, found no such file")
    return UltraLight(OnnxNetwork(path))


def open_detectors(specs: Sequence[str]) -> RegionSource:
    """Return the detectors of several names as one, which finds what any of them finds.

    Raises:
        UnknownNameError: No such name.
        ModelError: No such file.
    """
    return _Any(tuple(open_detector(spec) for spec in specs))


@dataclass(frozen=True)
class _Any:
    detectors: tuple[RegionSource, ...]

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:
        """Return every region once, whichever detector found it."""
        found: list[Region] = []
        for detector in self.detectors:
            found += [r for r in detector.find(pixels, relative) if not is_found(r, found)]
        return found


def is_found(wanted: Region, found: list[Region]) -> bool:
    """Whether a region overlaps one of ``found`` by half of what both cover."""
    return any(_overlap(wanted.box, region.box) >= _OVERLAP for region in found)


def _overlap(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    low = [max(one[side], other[side]) for side in (0, 1)]
    high = [min(one[side], other[side]) for side in (2, 3)]
    common = max(0, high[0] - low[0]) * max(0, high[1] - low[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def _pixels(images: Tensor) -> list[NDArray[np.uint8]]:
    whole = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return [picture.permute(1, 2, 0).contiguous().numpy() for picture in whole]
