"""What a private bottleneck is trained for: the task, few bits, and pictures that stay away.

Source:
    Azizian, Bajić, Privacy-Preserving Feature Coding for Machines, PCS 2022; IEEE TIP 2024.
    Ballé, Laparra, Simoncelli, End-to-End Optimized Image Compression, ICLR 2017 (the rate).
    Alemi et al., Deep Variational Information Bottleneck, ICLR 2017 (why the rate protects).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.core.errors import ModelError

__all__ = ["TASKS", "Prior", "answer_loss", "compressibility", "label_loss", "rounded", "task_loss"]

TASKS = ("labels", "answers")
"""What a bottleneck may learn its task from: labels, or what the plain network answers."""

_LEAST_CHANCE = 2.0**-24


def task_loss(task: str, outputs: Any, plain: Any, labels: Tensor) -> Tensor:
    """Return how far the split network's outputs are from what they should be.

    Args:
        task: One of :data:`TASKS`.
        outputs: Of the tail behind the bottleneck.
        plain: Of the plain network, without gradients; read by ``answers`` alone.
        labels: ``(B,)``; read by ``labels`` alone.
    """
    return label_loss(outputs, labels) if task == "labels" else answer_loss(outputs, plain)


def label_loss(outputs: Any, labels: Tensor) -> Tensor:
    """Return the cross-entropy of ``(B, K)`` logits.

    Raises:
        ModelError: The network answers something else than logits.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        raise ModelError(
            "expected logits (B, K) to learn labels from, got a network that answers otherwise; "
            "train with task = answers"
        )
    return F.cross_entropy(outputs.float(), labels)


def answer_loss(outputs: Any, plain: Any) -> Tensor:
    """Return how unlike the plain network's the answers are.

    Of ``(B, K)`` logits the Kullback–Leibler divergence; of other tensors the mean squared
    error, relative to each one's variance, so that a detector's maps of all sizes count alike.

    Differences from the paper:
        It trains on the detector's own loss, which needs boxes. Imitation needs pictures alone.
    """
    pairs = list(zip(_tensors(outputs), _tensors(plain), strict=True))
    if len(pairs) == 1 and pairs[0][0].ndim == 2:
        found, wanted = (logits.float().log_softmax(1) for logits in pairs[0])
        return F.kl_div(found, wanted, log_target=True, reduction="batchmean")
    terms = [
        (found.float() - wanted.float()).square().mean() / wanted.float().var().clamp(min=1e-8)
        for found, wanted in pairs
    ]
    return torch.stack(terms).mean()


def compressibility(latent: Tensor) -> Tensor:
    """Return ``mean|DCT2(½(∂x z + ∂y z))|`` over whole channels.

    Args:
        latent: ``(B, c, h, w)``.

    Differences from the paper:
        Derivatives are differences of neighbours; it does not say of what form its are.
    """
    across = latent.diff(dim=3)[:, :, :-1]
    down = latent.diff(dim=2)[:, :, :, :-1]
    slopes = 0.5 * (across + down)
    rows, columns = (_cosines(slopes.shape[axis], slopes) for axis in (2, 3))
    return (rows @ slopes @ columns.T).abs().mean()


def rounded(latent: Tensor, step: float) -> Tensor:
    """Return the latent as the quantizer rounds it, with the gradient of the identity.

    Args:
        latent: Any shape.
        step: Of the rounding; 0 leaves the latent as it is.
    """
    if step == 0:
        return latent
    return latent + ((latent / step).round() * step - latent).detach()


class Prior(nn.Module):
    """How likely latents are: a logistic distribution for each channel, learned beside them.

    The bits that it needs bound from above what the latent tells of the picture: no attacker
    gets more information than was sent.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def bits(self, latent: Tensor, step: float, noise: Tensor) -> Tensor:
        """Return the bits of each latent, ``(B,)``.

        Args:
            latent: ``(B, c, h, w)``.
            step: Of the rounding, above 0.
            noise: As ``latent``, uniform in [-½, ½): stands for the rounding.
        """
        places = latent / step + noise
        scale = self.log_scale.exp() + 1e-3
        upper = (places + 0.5 - self.mean) / scale
        lower = (places - 0.5 - self.mean) / scale
        # Both tails mirrored to the left, where a difference of sigmoids keeps its digits.
        sign = torch.where(upper + lower > 0, -1.0, 1.0)
        chance = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        return -chance.clamp(min=_LEAST_CHANCE).log2().flatten(1).sum(1)


def _cosines(size: int, like: Tensor) -> Tensor:
    """Return the orthonormal DCT-II matrix ``(size, size)``."""
    place = torch.arange(size, dtype=like.dtype, device=like.device)
    angles = math.pi / size * (place + 0.5) * place[:, None]
    matrix = angles.cos() * math.sqrt(2 / size)
    return torch.cat([matrix[:1] / math.sqrt(2), matrix[1:]])


def _tensors(outputs: Any) -> list[Tensor]:
    """Return the floating tensors of an answer of any form, in order."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, Sequence) and not isinstance(outputs, str):
        return [tensor for part in outputs for tensor in _tensors(part)]
    return []
