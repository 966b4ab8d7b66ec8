"""YOLOv5, the one-stage detector, in the sizes n, s and m.

Layers have the published names (``model.0`` to ``model.24``), so that published weights fit::

    model.0-9     backbone: convolutions that halve the picture, C3 blocks, pooling (SPPF)
    model.10-17   up:       1×1, twice as large, beside model.6 and then model.4, C3
    model.18-23   down:     halved, beside model.14 and then model.10, C3
    model.24      a 1×1 convolution on each of model.17, 20 and 23 (strides 8, 16, 32)

Source:
    Jocher et al., YOLOv5 v6, Zenodo 2022 (layer table); code by ourselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.core.errors import ModelError, SettingsError
from scotoma.models.weights import fit_weights, read_weights

__all__ = ["STRIDES", "YOLOv5", "YOLOv5Config", "load_yolov5"]

STRIDES = (8, 16, 32)
_ANCHORS = 3  # of each cell
_SCALES = {"n": (1 / 3, 0.25), "s": (1 / 3, 0.5), "m": (2 / 3, 0.75)}
# Which layers each layer reads, where that is not the one before.
_READS = {12: (11, 6), 16: (15, 4), 19: (18, 14), 22: (21, 10), 24: (17, 20, 23)}
# Of COCO at 640 pixels, in pixels; a checkpoint brings its own.
_COCO_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


@dataclass(frozen=True)
class YOLOv5Config:
    """What decides the architecture.

    Args:
        size: ``n``, ``s`` or ``m``.
        classes: Number of classes.
    """

    size: str = "n"
    classes: int = 80

    def __post_init__(self) -> None:
        if self.size not in _SCALES:
            raise SettingsError(f"expected size n, s or m of YOLOv5, got {self.size!r}")
        if not self.classes >= 1:
            raise SettingsError(f"expected at least one class, got {self.classes}")

    def width(self, full: int) -> int:
        """Return the channels of a layer that has ``full`` in the widest network."""
        return math.ceil(full * _SCALES[self.size][1] / 8) * 8

    def depth(self, full: int) -> int:
        """Return the blocks of a layer that has ``full`` in the deepest network."""
        return max(1, round(full * _SCALES[self.size][0]))


class YOLOv5(nn.Module):
    """Pictures to three maps of what each cell's anchors found.

    Args:
        config: The architecture.
    """

    def __init__(self, config: YOLOv5Config) -> None:
        super().__init__()
        self.config = config
        self.model = nn.ModuleList(_layers(config))

    @property
    def anchors(self) -> Tensor:
        """``(3, 3, 2)``: of each map, widths and heights in units of its stride."""
        detect = self.model[-1]
        return detect.anchors  # type: ignore[return-value]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps ``(B, 3, H / stride, W / stride, 5 + classes)`` before their sigmoid.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1], sides multiples of 32.
        """
        made: list[Tensor] = []
        value: Tensor | tuple[Tensor, ...] = images
        for number, layer in enumerate(self.model):
            sources = _READS.get(number)
            value = layer(value) if sources is None else layer([made[n] for n in sources])
            made.append(value)  # type: ignore[arg-type]
        return value  # type: ignore[return-value]


def load_yolov5(path: Path, *, device: str = "cpu") -> YOLOv5:
    """Return the network whose weights a file holds, in evaluation mode and frozen.

    Size and number of classes follow from the weights.

    Args:
        path: Weights by their published names.
        device: Where the network is put.

    Raises:
        ModelError: Missing, damaged, or not weights of YOLOv5 n, s or m.
    """
    weights = read_weights(path)
    network = YOLOv5(_config_of(weights, path))
    fit_weights(network, weights, path, f"yolov5{network.config.size}")
    return network.to(device).eval().requires_grad_(False)


def _config_of(weights: dict[str, Tensor], path: Path) -> YOLOv5Config:
    first, last = weights.get("model.0.conv.weight"), weights.get("model.24.m.0.bias")
    sizes = {YOLOv5Config(size).width(64): size for size in _SCALES}
    if first is None or last is None or len(first) not in sizes or len(last) % _ANCHORS:
        raise ModelError(
            f"expected weights of YOLOv5 n, s or m in {path} (model.0.conv.weight of "
            f"{', '.join(map(str, sizes))} channels, model.24.m.0.bias); name another file"
        )
    return YOLOv5Config(sizes[len(first)], len(last) // _ANCHORS - 5)


class _Conv(nn.Module):
    """Convolution, batch norm, SiLU."""

    def __init__(
        self, width_in: int, width: int, kernel: int, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(width_in, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, features: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(features)))


class _Bottleneck(nn.Module):
    def __init__(self, width: int, *, adds: bool) -> None:
        super().__init__()
        self.cv1 = _Conv(width, width, 1)
        self.cv2 = _Conv(width, width, 3)
        self.adds = adds

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.cv2(self.cv1(features))
        return features + made if self.adds else made


class _C3(nn.Module):
    """Two halves of the channels, one of them through bottlenecks."""

    def __init__(self, width_in: int, width: int, depth: int, *, adds: bool = True) -> None:
        super().__init__()
        half = width // 2
        self.cv1 = _Conv(width_in, half, 1)
        self.cv2 = _Conv(width_in, half, 1)
        self.cv3 = _Conv(2 * half, width, 1)
        self.m = nn.Sequential(*(_Bottleneck(half, adds=adds) for _ in range(depth)))

    def forward(self, features: Tensor) -> Tensor:
        joined: Tensor = self.cv3(torch.cat([self.m(self.cv1(features)), self.cv2(features)], 1))
        return joined


class _SPPF(nn.Module):
    """Maxima over ever larger neighbourhoods, side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1 = _Conv(width, width // 2, 1)
        self.cv2 = _Conv(width // 2 * 4, width, 1)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, features: Tensor) -> Tensor:
        pooled = [self.cv1(features)]
        for _ in range(3):
            pooled.append(self.m(pooled[-1]))
        joined: Tensor = self.cv2(torch.cat(pooled, 1))
        return joined


class _Join(nn.Module):
    """Channels of several maps side by side."""

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), 1)


class _Detect(nn.Module):
    anchors: Tensor

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.values = 5 + classes
        strides = torch.tensor(STRIDES, dtype=torch.float32).view(3, 1, 1)
        self.register_buffer("anchors", torch.tensor(_COCO_ANCHORS, dtype=torch.float32) / strides)
        self.m = nn.ModuleList(nn.Conv2d(width, _ANCHORS * self.values, 1) for width in widths)

    def forward(self, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = (convolve(part) for convolve, part in zip(self.m, parts, strict=True))
        return tuple(self._cells(made) for made in maps)

    def _cells(self, made: Tensor) -> Tensor:
        count, _, height, width = made.shape
        return made.view(count, _ANCHORS, self.values, height, width).permute(0, 1, 3, 4, 2)


def _layers(config: YOLOv5Config) -> list[nn.Module]:
    w64, w128, w256, w512, w1024 = (config.width(full) for full in (64, 128, 256, 512, 1024))
    three, six, nine = (config.depth(full) for full in (3, 6, 9))
    return [
        _Conv(3, w64, 6, 2, 2),
        _Conv(w64, w128, 3, 2),
        _C3(w128, w128, three),
        _Conv(w128, w256, 3, 2),
        _C3(w256, w256, six),
        _Conv(w256, w512, 3, 2),
        _C3(w512, w512, nine),
        _Conv(w512, w1024, 3, 2),
        _C3(w1024, w1024, three),
        _SPPF(w1024),
        _Conv(w1024, w512, 1),
        nn.Upsample(scale_factor=2, mode="nearest"),
        _Join(),
        _C3(2 * w512, w512, three, adds=False),
        _Conv(w512, w256, 1),
        nn.Upsample(scale_factor=2, mode="nearest"),
        _Join(),
        _C3(2 * w256, w256, three, adds=False),
        _Conv(w256, w256, 3, 2),
        _Join(),
        _C3(2 * w256, w512, three, adds=False),
        _Conv(w512, w512, 3, 2),
        _Join(),
        _C3(2 * w512, w1024, three, adds=False),
        _Detect((w256, w512, w1024), config.classes),
    ]
