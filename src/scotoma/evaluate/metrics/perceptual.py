"""A distance that was fitted to what people find alike."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scotoma.core.errors import MissingExtraError, ModelError, NotApplicableError

__all__ = ["BACKBONE", "load_lpips", "lpips"]

BACKBONE = "SCOTOMA_LPIPS_BACKBONE"
"""Environment variable: file of SqueezeNet 1.1's weights, under torchvision's names."""

_LEAST_SIDE = 32
_BATCH = 16


def lpips(guesses: Tensor, originals: Tensor, context: Mapping[str, Any]) -> Tensor:  # noqa: ARG001
    """Return per picture the learned perceptual distance, ``(B,)``; 0 for equal pictures.

    Raises:
        NotApplicableError: :data:`BACKBONE` names no file, or a side is under 32 pixels.
        ModelError: The file holds other weights.

    Differences from the paper:
        The network is SqueezeNet 1.1 from a local file; the library would download it. Its
        weights come with the library.

    Source:
        Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric,
        CVPR 2018.
    """
    if min(originals.shape[2:]) < _LEAST_SIDE:
        raise NotApplicableError(
            f"lpips: expected sides of at least {_LEAST_SIDE} pixels, "
            f"got {tuple(originals.shape[2:])}"
        )
    place = os.environ.get(BACKBONE)
    if not place:
        raise NotApplicableError(
            f"lpips: expected {BACKBONE} to name SqueezeNet 1.1's weights, a safetensors file "
            "under torchvision's names; got nothing"
        )
    network = load_lpips(Path(place))
    with torch.no_grad():
        pairs = zip(torch.split(guesses, _BATCH), torch.split(originals, _BATCH), strict=True)
        parts = [network(*pair, normalize=True).flatten() for pair in pairs]
    return torch.cat(parts).double()


@lru_cache(maxsize=1)
def load_lpips(path: Path) -> nn.Module:
    """Return the network of the distance; called with two batches in [0, 1] and ``normalize``.

    Raises:
        MissingExtraError: torchmetrics or torchvision is not installed.
        ModelError: The file holds other weights.
    """
    try:
        import torchvision  # noqa: F401
        from torchmetrics.functional.image.lpips import _LPIPS
    except ImportError as error:
        raise MissingExtraError("lpips", error.name or "torchmetrics", "attacks") from error
    from scotoma.models.weights import read_weights

    network = _LPIPS(net="squeeze", pnet_rand=True)
    features: nn.Module = network.net
    found = read_weights(path)
    try:
        # The library cuts the layers into slices but keeps their numbers: "slices.2.3.squeeze".
        backbone = {
            slot: found[f"features.{slot.split('.', 2)[2]}"] for slot in features.state_dict()
        }
        features.load_state_dict(backbone)
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"expected the weights of torchvision's squeezenet1_1 in {path}, got others: {error}"
        ) from error
    return network.eval()
