"""Mixup and CutMix of a whole batch, from a generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

__all__ = ["mix_batch", "smooth_targets"]


def smooth_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return ``(B, classes)`` probabilities: ``smoothing`` spread evenly, the rest on the label."""
    hot = F.one_hot(labels, classes).float()
    return hot * (1 - smoothing) + smoothing / classes


def mix_batch(
    images: Tensor, targets: Tensor, *, mixup: float, cutmix: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Mix every picture with its counterpart from the other end of the batch.

    One of the two is drawn per batch, evenly, where both are wanted.

    Args:
        images: ``(B, C, H, W)`` float32.
        targets: ``(B, K)`` probabilities.
        mixup: Parameter of mixup's Beta distribution; 0 turns it off.
        cutmix: Parameter of CutMix's; 0 turns it off.
        generator: Source of all randomness.

    Returns:
        New pictures and targets, or the same where both are off.

    Source:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
        Yun et al., CutMix, ICCV 2019.
        Touvron et al., Training data-efficient image transformers, ICML 2021, whose timm code
        flips the batch and draws once per batch.
    """
    if not (mixup > 0 or cutmix > 0):
        return images, targets
    coin = float(torch.rand(1, generator=generator))
    cuts = cutmix > 0 and (not mixup > 0 or coin < 0.5)
    share = _beta(cutmix if cuts else mixup, generator)
    if cuts:
        images, share = _paste(images, share, generator)
    else:
        images = share * images + (1 - share) * images.flip(0)
    return images, share * targets + (1 - share) * targets.flip(0)


def _beta(parameter: float, generator: Generator) -> float:
    """Draw from Beta(a, a) as a ratio of two Gamma(a) draws."""
    shape = torch.full((2,), parameter)
    one, two = torch._standard_gamma(shape, generator=generator).double().tolist()
    # Both underflow to 0 only where a is far below any sensible choice.
    return one / (one + two) if one + two > 0 else 0.5


def _paste(images: Tensor, share: float, generator: Generator) -> tuple[Tensor, float]:
    """Paste a rectangle of about ``1 - share`` of the area; return the share that truly stayed."""
    height, width = images.shape[-2:]
    side = (1 - share) ** 0.5
    rows = _interval(height, side, generator)
    columns = _interval(width, side, generator)
    mixed = images.clone()
    mixed[..., rows, columns] = images.flip(0)[..., rows, columns]
    pasted = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1 - pasted / (height * width)


def _interval(size: int, fraction: float, generator: Generator) -> slice:
    """An interval around a random centre, clipped at the borders."""
    length = int(size * fraction)
    centre = int(torch.randint(size, (1,), generator=generator))
    return slice(max(0, centre - length // 2), min(size, centre + length // 2))
