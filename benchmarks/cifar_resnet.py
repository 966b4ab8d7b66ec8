"""The CIFAR-10 ResNets whose weights lie beside the checkout, as a classifier.

Source:
    He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, Sec. 4.2
    (depth 6n + 2, shortcuts of option A).
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pictures import MODELS
from scotoma.models.classifier import Classifier
from scotoma.models.preprocessing import Preprocessing

__all__ = ["load_cifar_resnet", "untrained_cifar_resnet"]

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_WIDTHS = (16, 16, 32, 64)


class _Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.extra = stride, (width - width_in) // 2

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(features)))
        shortcut = features[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, self.extra, self.extra))
        return F.relu(self.bn2(self.conv2(hidden)) + shortcut)


class _ResNet(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for number, (width_in, width) in enumerate(pairwise(_WIDTHS), 1):
            first = _Block(width_in, width, 1 if number == 1 else 2)
            rest = [_Block(width, width, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{number}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = F.relu(self.bn1(self.conv1(images)))
        for number in (1, 2, 3):
            features = getattr(self, f"layer{number}")(features)
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def load_cifar_resnet(name: str) -> Classifier:
    """Return ``cifar10_resnet20``, ``32`` or ``56``."""
    from safetensors.torch import load_file

    network = untrained_cifar_resnet(name)
    network.load_state_dict(load_file(MODELS / f"{name}.safetensors"))
    return Classifier(
        spec=name,
        name=name,
        network=network.eval().requires_grad_(False),
        preprocessing=Preprocessing((3, 32, 32), interpolation="bilinear", crop_pct=1.0),
        classes=CLASSES,
        differentiable=True,
    )


def untrained_cifar_resnet(name: str) -> nn.Module:
    """Return the architecture of ``cifar10_resnet20``, ``32`` or ``56``, its weights random."""
    return _ResNet(int(name.removeprefix("cifar10_resnet")))
