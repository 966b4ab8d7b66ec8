"""Kernels that become fractional filters, and which of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scotoma.compress.fitting import FitSettings, fit_kernels
from scotoma.models.compressed_tensors import FractionalTensor, GridTensor, step_of
from scotoma.ops.fractional_filters import fractional_shape

__all__ = ["SHAPE_EXPONENT", "FractionalFits", "fractional_tensor"]

SHAPE_EXPONENT = -24
"""Shapes (centres, sigma, orders) are stored in eighths."""

_QUICK = FitSettings(starts=2, steps=40)  # ten thousands of kernels at once

_LEAST_SIDE = 3  # a filter of six numbers stands for no smaller kernel


class FractionalFits:
    """Fractional filters for a network's kernels, found once; then a choice of so many.

    Args:
        weights: Convolutions' weights by name.
        importance: Of their shapes: what a squared error of 1 costs.
        settings: How filters are fitted, each to one kernel.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        importance: Mapping[str, Tensor],
        settings: FitSettings | None = None,
    ) -> None:
        self.shapes: dict[str, Tensor] = {}
        self._losses: dict[str, Tensor] = {}
        for name, weight in weights.items():
            if weight.ndim != 4 or min(weight.shape[2:]) < _LEAST_SIDE:
                continue
            found = fit_kernels(weight.flatten(0, 1), settings or _QUICK)
            codes = (found[:, 1:] / step_of(SHAPE_EXPONENT)).round()
            # Of sigma, half an eighth would become none.
            codes[:, 2].clamp_(min=1)
            self.shapes[name] = codes.reshape(*weight.shape[:2], 5)
            kernels = _projected(weight, self.shapes[name])
            self._losses[name] = (importance[name] * (weight - kernels).square()).sum((2, 3))

    def choose(self, share: float) -> dict[str, Tensor]:
        """Return ``(out, in)`` masks by name: the share of all kernels that lose least.

        Args:
            share: Of the kernels that could be fractional, in [0, 1].
        """
        if not self._losses:
            return {}
        every = torch.cat([loss.reshape(-1) for loss in self._losses.values()])
        count = round(share * len(every))
        if count == 0:
            return {name: torch.zeros_like(loss).bool() for name, loss in self._losses.items()}
        limit = every.kthvalue(count).values
        return {name: loss <= limit for name, loss in self._losses.items()}


def fractional_tensor(
    weight: Tensor, shapes: Tensor, mask: Tensor, exponent: int
) -> FractionalTensor:
    """Return a weight whose masked kernels are fractional and whose others are still zero.

    Args:
        weight: ``(out, in, height, width)``.
        shapes: ``(out, in, 5)`` in eighths, whole numbers.
        mask: ``(out, in)`` bool.
        exponent: Of the amplitudes' step.
    """
    amplitudes = (_amplitudes(weight, shapes) / step_of(exponent)).round() * mask
    codes = (shapes * mask[..., None])[:, :, None].to(torch.int32)
    return FractionalTensor(
        mask=mask.to(torch.int32).numpy(),
        shapes=GridTensor(codes.numpy(), np.array(SHAPE_EXPONENT, np.int32)),
        amplitudes=GridTensor(
            amplitudes[..., None].to(torch.int32).numpy(), np.array(exponent, np.int32)
        ),
        plain=GridTensor(np.zeros(tuple(weight.shape), np.int32), np.array(exponent, np.int32)),
    )


def _unit_kernels(shapes: Tensor, size: tuple[int, int]) -> Tensor:
    return fractional_shape(shapes * step_of(SHAPE_EXPONENT), size)


def _amplitudes(weight: Tensor, shapes: Tensor) -> Tensor:
    """Return the best amplitude of each kernel: shapes are of unit norm."""
    height, width = weight.shape[2:]
    return (weight * _unit_kernels(shapes, (height, width))).sum((2, 3))


def _projected(weight: Tensor, shapes: Tensor) -> Tensor:
    height, width = weight.shape[2:]
    unit = _unit_kernels(shapes, (height, width))
    return _amplitudes(weight, shapes)[..., None, None] * unit
