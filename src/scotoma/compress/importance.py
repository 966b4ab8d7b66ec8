"""How much a network's answers hang on each of its weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["find_importance", "smooth_importance"]


def find_importance(
    network: nn.Module, batches: Iterable[Tensor], *, generator: Generator
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of each parameter.

    To second order, moving weights by ``d`` moves the answers by ``Σ importance · d²``: half of
    it is the divergence, in nats a picture, of the answers after from those before.

    Args:
        network: ``(B, 3, H, W)`` to logits, in evaluation mode; not changed.
        batches: Inputs; the smaller the batches the less noise, for gradients are squared a
            batch at a time.
        generator: Draws the labels, from the network's own answers.

    Returns:
        By parameter name, of the parameter's shape, 0 or more.

    Source:
        Kunstner, Balles, Hennig, Limitations of the empirical Fisher approximation, NeurIPS
        2019, Sec. 2: labels are drawn from the model, not taken from the data.
    """
    frozen = {name: p.requires_grad for name, p in network.named_parameters()}
    parameters = dict(network.named_parameters())
    found = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = 0
    network.requires_grad_(True)
    try:
        with torch.enable_grad():
            for inputs in batches:
                logits = network(inputs)
                chances = logits.detach().float().softmax(1)
                labels = torch.multinomial(chances.cpu(), 1, generator=generator)[:, 0]
                # The sum over a batch: drawn labels make its pictures' gradients independent,
                # so that the square of the sum has the sum of the squares as its mean.
                loss = nn.functional.cross_entropy(
                    logits.float(), labels.to(logits.device), reduction="sum"
                )
                gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                for name, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        found[name] += gradient.square()
                count += len(inputs)
    finally:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(frozen[name])
    return {name: value / max(count, 1) for name, value in found.items()}


def smooth_importance(importance: Mapping[str, Tensor], *, share: float) -> dict[str, Tensor]:
    """Return each value mixed with the mean of its row, and that of its tensor.

    A few pictures leave the importance of single weights noisy, and a weight that no picture
    used yet is not worthless.

    Args:
        importance: As :func:`find_importance` returns it.
        share: Of the means, in [0, 1]; half each.
    """
    found = {}
    for name, value in importance.items():
        rows = value.reshape(len(value), -1).mean(1) if value.ndim else value
        row = rows.reshape(-1, *[1] * (value.ndim - 1)) if value.ndim else rows
        found[name] = (1 - share) * value + share * (row + value.mean()) / 2
    return found
