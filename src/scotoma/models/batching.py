"""Batches of any size for networks that were frozen at one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["in_batches"]


def in_batches(network: Callable[[Tensor], Tensor], images: Tensor, size: int | None) -> Tensor:
    """Return the network's answer to all ``images``, asked ``size`` at a time.

    Args:
        network: ``(size, C, H, W)`` to ``(size, K)``.
        images: ``(B, C, H, W)``; the last batch is filled up with its last picture.
        size: The one batch size that the network takes; None where it takes any.

    Returns:
        ``(B, K)``; gradients flow where they flow through ``network``.
    """
    import torch

    if size is None or len(images) == size:
        return network(images)
    answers = []
    for part in torch.split(images, size):
        filled = torch.cat([part, part[-1:].expand(size - len(part), *part.shape[1:])])
        answers.append(network(filled)[: len(part)])
    return torch.cat(answers)
