"""Random views of inputs: what survives them is content, not the quirk of one network.

Source:
    Xie et al., Improving Transferability of Adversarial Examples with Input Diversity,
    CVPR 2019 (random resizing and padding); Dong et al., Evading Defenses to Transferable
    Adversarial Examples by Translation-Invariant Attacks, CVPR 2019 (shifts).

Differences from the papers:
    One affine warp with reflected borders does resizing, shifting and mirroring at once;
    a random gain per channel and noise come on top. Each picture's view depends on its own
    seed alone, not on the batch it happens to run in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

__all__ = ["random_views"]

_SCALE, _SHIFT, _GAIN, _NOISE = 0.15, 0.08, 0.1, 0.05


def random_views(inputs: Tensor, seeds: Sequence[int], *, strength: float = 1.0) -> Tensor:
    """Return each input resized, shifted, perhaps mirrored, with other colours and noise.

    Args:
        inputs: ``(B, C, H, W)`` normalized float32; gradients pass through.
        seeds: One per input.
        strength: Scales every random amount; 0 only mirrors.

    Returns:
        ``(B, C, H, W)``.
    """
    warps, gains, noises = [], [], []
    for seed in seeds:
        generator = Generator().manual_seed(seed)
        scale, right, down, mirror = (torch.rand(4, generator=generator) * 2 - 1).tolist()
        size = 1 + strength * _SCALE * scale
        sign = -1.0 if mirror < 0 else 1.0
        warps.append(
            [
                [sign * size, 0.0, strength * _SHIFT * right],
                [0.0, size, strength * _SHIFT * down],
            ]
        )
        gains.append(
            1 + strength * _GAIN * (torch.rand(inputs.shape[1], generator=generator) * 2 - 1)
        )
        noises.append(torch.randn(inputs.shape[1:], generator=generator))
    # grid_sample's reflection handles whatever the warp pulls in from outside.
    grid = F.affine_grid(torch.tensor(warps), list(inputs.shape), align_corners=False)
    warped = F.grid_sample(inputs, grid.to(inputs), padding_mode="reflection", align_corners=False)
    gain = torch.stack(gains)[:, :, None, None].to(inputs)
    return warped * gain + strength * _NOISE * torch.stack(noises).to(inputs)
