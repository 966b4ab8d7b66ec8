"""Networks behind their normalization, so that they read pictures in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scotoma.core.errors import CipherKeyError

if TYPE_CHECKING:
    from scotoma.core.keys import Key
    from scotoma.models.preprocessing import Preprocessing

__all__ = ["normalize", "normalized", "refuse_key"]


def normalize(images: Tensor, preprocessing: Preprocessing | None) -> Tensor:
    """Return ``(B, 3, H, W)`` pictures in [0, 1] as the network reads them.

    Args:
        images: Pictures of the network's size.
        preprocessing: Of the network; None leaves them as they are.
    """
    if preprocessing is None:
        return images
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1).to(images)
    std = torch.tensor(preprocessing.std).view(3, 1, 1).to(images)
    return (images - mean) / std


def normalized(network: nn.Module, preprocessing: Preprocessing | None) -> nn.Module:
    """Return the network with its normalization before it."""
    return _Normalized(network, preprocessing).eval()


def refuse_key(key: Key | None, name: str) -> None:
    """Refuse a key where none is used: it would protect nothing.

    Raises:
        CipherKeyError: There is one.
    """
    if key is not None:
        raise CipherKeyError(f"expected no key for {name!r}, which has none, got one; leave it out")


class _Normalized(nn.Module):
    def __init__(self, network: nn.Module, preprocessing: Preprocessing | None) -> None:
        super().__init__()
        self.network = network
        self._preprocessing = preprocessing

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(normalize(images, self._preprocessing))
        return logits
