"""Fractional filters fitted to what a layer says, not to its weights.

What a wrong weight does depends on what the layer reads. With ``C`` the covariance of the patches
that a convolution reads, an output channel whose weights are off by ``d`` is off by ``dᵀ C d`` on
average, squared, once its bias has taken what is off always. So a fit by outputs is a fit by
weights in another metric; it needs pictures once, to find ``C``, and no labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scotoma.compress.fractional_layer import FractionalLayer
from scotoma.core.errors import SettingsError
from scotoma.ops.fractional_filters import fractional_shape, shape_bounds

__all__ = ["OutputFitSettings", "bias_shift", "fit_outputs", "output_error"]

_DAMPING = 1e-4  # of the mean of a moment's diagonal, as where channels are never on
_ROUNDING = 1e-6  # of the mean of the uncentred diagonal
_SILENT = 1e-12
_PORTION = 1 << 24  # numbers of normal equations held at once


@dataclass(frozen=True)
class OutputFitSettings:
    """How a layer is fitted to its outputs.

    Args:
        steps: Of the gradient on shapes; amplitudes are solved for in each.
        rate: Of learning, in widths of the bounds; falls to zero linearly.

    Raises:
        SettingsError: A number out of range.
    """

    steps: int = 60
    rate: float = 0.02

    def __post_init__(self) -> None:
        if not self.steps >= 0:
            raise SettingsError(f"expected steps of at least 0, got {self.steps}")
        if not self.rate > 0:
            raise SettingsError(f"expected a positive rate, got {self.rate}")


def output_error(weight: Tensor, layer: FractionalLayer, moment: Tensor) -> Tensor:
    """Return the share of each output channel's variance that a layer gets wrong.

    Args:
        weight: ``(out, in, height, width)``, what the layer stands for.
        layer: Fitted to it.
        moment: ``(groups, K + 1, K + 1)`` of what the convolution reads, as
            :func:`~scotoma.compress.moments.find_moments` returns it.

    Returns:
        ``(out,)``, with :func:`bias_shift` added to the bias; 0 for channels that never move.
    """
    covariance = _covariance(moment).to(weight)
    wrong = _power(weight - layer.weight(), covariance)
    total = _power(weight, covariance)
    return torch.where(total > 0, wrong / total.clamp(min=torch.finfo(weight.dtype).tiny), 0.0)


def bias_shift(weight: Tensor, layer: FractionalLayer, moment: Tensor) -> Tensor:
    """Return ``(out,)``: what the bias must grow by for the outputs' means to stay.

    Args:
        weight: ``(out, in, height, width)``, what the layer stands for.
        layer: Fitted to it.
        moment: ``(groups, K + 1, K + 1)`` of what the convolution reads.
    """
    mean = moment[:, :-1, -1:].to(weight)
    difference = (weight - layer.weight()).detach()
    return (difference.reshape(len(mean), -1, mean.shape[1]) @ mean).flatten()


def fit_outputs(
    weight: Tensor,
    layer: FractionalLayer,
    moment: Tensor,
    settings: OutputFitSettings | None = None,
) -> FractionalLayer:
    """Return a layer whose outputs are nearest to those of the weight.

    Args:
        weight: ``(out, in, height, width)``, what the layer stands for.
        layer: Where to start; its mask and plain kernels stay.
        moment: ``(groups, K + 1, K + 1)`` of what the convolution reads.
        settings: How.

    Returns:
        A layer of the same form, never worse on ``moment`` than ``layer``; its convolution's
        bias wants :func:`bias_shift`.

    Raises:
        SettingsError: A moment of another convolution.
    """
    settings = settings or OutputFitSettings()
    weight = weight.detach()
    size = weight[0].numel() + 1
    if moment.ndim != 3 or tuple(moment.shape[1:]) != (size, size) or len(weight) % len(moment):
        raise SettingsError(
            f"expected moments (groups, {size}, {size}) of what the convolution reads, "
            f"got {tuple(moment.shape)}"
        )
    target = torch.where(layer.mask[..., None, None], weight, 0)
    covariance = _covariance(moment).to(weight)
    damping = _DAMPING * _mean_diagonal(covariance)
    # A channel that never moves has no variance, and rounding makes that less than none.
    damping = damping + _ROUNDING * _mean_diagonal(moment[:, :-1, :-1]).to(weight) + _SILENT
    covariance = covariance + damping[:, None, None] * torch.eye(size - 1).to(weight)
    lower, upper = (torch.tensor(side).to(weight) for side in shape_bounds(layer.size))
    start = (layer.shapes.detach() - lower) / (upper - lower)
    places = start.clamp(0, 1).requires_grad_()
    optimizer = torch.optim.Adam([places], lr=settings.rate)
    scale = _power(target, covariance).clamp(min=torch.finfo(weight.dtype).tiny)
    best, least = layer, float((_power(weight - layer.weight(), covariance) / scale).detach().sum())
    for step in range(settings.steps + 1):
        shapes = lower + (upper - lower) * places
        amplitudes = _solve(target, shapes.detach(), layer.mask, covariance)
        # With the best amplitudes held, the gradient on shapes is that of the error at its best.
        moved = FractionalLayer(shapes, amplitudes, layer.mask, layer.plain)
        loss = (_power(weight - moved.weight(), covariance) / scale).sum()
        if float(loss.detach()) < least:
            best = FractionalLayer(shapes.detach().clone(), amplitudes, layer.mask, layer.plain)
            least = float(loss.detach())
        if step == settings.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * (1 - step / settings.steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            places.clamp_(0, 1)
    return best


def _power(difference: Tensor, covariance: Tensor) -> Tensor:
    """Return ``(out,)``: ``dᵀ C d`` of each output channel."""
    grouped = difference.reshape(len(covariance), -1, covariance.shape[-1])
    return ((grouped @ covariance) * grouped).sum(-1).flatten()


def _covariance(moment: Tensor) -> Tensor:
    """Return ``(groups, K, K)`` about the mean, which the bias takes."""
    moment = moment.double()  # two large numbers may differ by a small one
    mean = moment[:, :-1, -1:]
    return moment[:, :-1, :-1] - mean @ mean.mT


def _mean_diagonal(moment: Tensor) -> Tensor:
    return moment.diagonal(dim1=1, dim2=2).mean(1).clamp(min=0)


def _solve(target: Tensor, shapes: Tensor, mask: Tensor, covariance: Tensor) -> Tensor:
    """Return ``(out, in, M)`` amplitudes with the least error of outputs, for fixed shapes."""
    out, inputs = mask.shape
    size = (target.shape[2], target.shape[3])
    basis = fractional_shape(shapes, size).flatten(3)
    basis = torch.where(mask[..., None, None], basis, 0)  # (out, in, M, K / in)
    pulled = target.reshape(len(covariance), -1, covariance.shape[1]) @ covariance
    right = torch.einsum("oimk,oik->oim", basis, pulled.reshape(out, inputs, -1)).flatten(1)
    blocks = covariance.reshape(len(covariance), inputs, -1, inputs, basis.shape[-1])
    # What is not asked for solves 1 · A = 0.
    unused = (~mask)[..., None].expand(basis.shape[:3]).flatten(1).to(target)
    numbers = torch.arange(out)
    group = numbers // (out // len(covariance))
    portion = max(1, _PORTION // right.shape[1] ** 2)
    solved = []
    for part in torch.split(numbers, portion):
        near = basis[part]
        if len(covariance) == 1:
            normal = torch.einsum("oimk,ikjl,ojnl->oimjn", near, blocks[0], near)
        else:
            normal = torch.einsum("oimk,oikjl,ojnl->oimjn", near, blocks[group[part]], near)
        normal = normal.reshape(len(part), right.shape[1], -1)
        # Two atoms that became one must not divide by zero.
        damping = 1e-6 * normal.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
        damping = damping + unused[part] + torch.finfo(target.dtype).tiny
        factor = torch.linalg.cholesky(normal + torch.diag_embed(damping))
        solved.append(torch.cholesky_solve(right[part, :, None], factor))
    return torch.cat(solved).reshape(basis.shape[:3])
