"""What a network's convolutions and linear layers read: second moments of their inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Generator, Tensor, nn

__all__ = ["find_moments", "is_layer"]

_PLACES = 16  # positions of a picture that are looked at


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is a convolution or a linear layer, its weights used as they are."""
    from timm.layers.conv2d_same import Conv2dSame

    return type(module) in (nn.Conv2d, Conv2dSame, nn.Linear)


def find_moments(
    network: nn.Module, batches: Iterable[Tensor], *, generator: Generator
) -> dict[str, Tensor]:
    """Return the mean of ``x xᵀ`` over what each layer's outputs read, a 1 for the bias included.

    Args:
        network: ``(B, 3, H, W)`` to logits, in evaluation mode; not changed.
        batches: Inputs.
        generator: Draws the positions of each feature map that are looked at.

    Returns:
        By layer name, ``(groups, K + 1, K + 1)``: ``K`` weights of an output, then the bias.
        Less correlated than sampled, where samples are few.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            read = _columns(module, inputs[0].detach(), generator)
            ones = torch.ones_like(read[:, :1])
            read = torch.cat([read, ones], 1)
            moment = torch.bmm(read, read.transpose(1, 2))
            sums[name] = sums[name] + moment if name in sums else moment
            counts[name] = counts.get(name, 0) + read.shape[2]

        return note

    handles = [
        module.register_forward_pre_hook(watch(name))
        for name, module in network.named_modules()
        if is_layer(module)
    ]
    try:
        with torch.no_grad():
            for inputs in batches:
                network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _shrunk(total.cpu() / counts[name], counts[name]) for name, total in sums.items()}


def _shrunk(moment: Tensor, samples: int) -> Tensor:
    """Move a sampled covariance towards its diagonal, the more the fewer samples it rests on.

    With fewer samples than weights, some directions were never read; taken at their word, errors
    would be made up for along them without limit. Means, which the bias meets, stay.
    """
    share = moment.shape[1] / (moment.shape[1] + samples)
    mean = moment[:, :, -1]
    around = torch.einsum("gi,gj->gij", mean, mean)
    covariance = moment - around
    diagonal = torch.diag_embed(torch.diagonal(covariance, dim1=1, dim2=2))
    return around + (1 - share) * covariance + share * diagonal


def _columns(module: nn.Module, inputs: Tensor, generator: Generator) -> Tensor:
    """Return ``(groups, K, samples)`` of what an output position reads."""
    if not isinstance(module, nn.Conv2d):
        return inputs.reshape(1, -1, inputs.shape[-1]).transpose(1, 2)
    # timm's own padding shifts the grid of strided layers by a pixel: the moments stay the same.
    sides = zip(module.dilation, module.kernel_size, strict=True)
    padding = tuple(d * (k - 1) // 2 for d, k in sides)
    if module.kernel_size == (1, 1):
        read = inputs[:, :, :: module.stride[0], :: module.stride[1]].flatten(2)
    else:
        read = nn.functional.unfold(
            inputs, module.kernel_size, module.dilation, padding, module.stride
        )
    count = min(_PLACES, read.shape[2])
    chosen = torch.randperm(read.shape[2], generator=generator)[:count].to(read.device)
    count = len(chosen)
    read = read[:, :, chosen].reshape(len(inputs), module.groups, -1, count)
    return read.permute(1, 2, 0, 3).flatten(2)
