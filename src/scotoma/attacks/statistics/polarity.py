"""Whether a map of brightness is a picture or its negative: what second moments cannot tell."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["with_polarities"]

# Logistic regression on 450 photographs of ImageNet's validation set, in groups of ten. As it is
# here, on block means (blocks of 4, 8 and 16 pixels) of 200 others, it is right for 62 to 67 % of
# single ones, 74 to 77 % of pairs and 96 to 98 % of tens drawn from them.
_TAILS, _TOP, _SPOTS, _DARK = 2.2, -7.3, -1.5, 9.4


def with_polarities(thumbnails: Tensor) -> Tensor:
    """Return ``(2, B, h, w)``: brightness maps both ways round, the likelier first.

    Light comes from above, saturates later than darkness ends, and small spots are dark; a
    look at the pictures settles the rest.

    Args:
        thumbnails: ``(B, h, w)``, all from one map and so all of one sign.
    """
    signed = thumbnails if _odds(thumbnails) >= 0 else -thumbnails
    return torch.stack([signed, -signed])


def _odds(thumbnails: Tensor) -> float:
    maps = thumbnails - thumbnails.mean()
    maps = maps / maps.std(correction=0).clamp(min=1e-12)
    low, high = torch.quantile(
        maps.flatten()[:: 1 + maps.numel() // 10**6], maps.new_tensor([0.02, 0.98])
    )
    rows = torch.linspace(-1, 1, maps.shape[1], dtype=maps.dtype)[:, None]
    spots = F.avg_pool2d(maps[:, None], 3, 1, 1)[:, 0] - maps
    lumps = spots.pow(3).mean() / spots.std(correction=0).clamp(min=1e-12).pow(3)
    edges = F.pad((maps[:, :, 1:] - maps[:, :, :-1]).abs(), (1, 0))
    flat = ((edges - edges.mean()) / edges.std(correction=0).clamp(min=1e-12)).clamp(max=0)
    dark = (maps * flat.square()).mean()
    return float(
        _TAILS * (low + high) + _TOP * (maps * rows).mean() + _SPOTS * lumps + _DARK * dark
    )
