"""Rounding a layer's weights one after the other, the rest making up for each one's error.

What a layer reads is correlated, so the error of one weight can mostly be taken back by those
that are not rounded yet; the bias comes last and takes back what is left on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scotoma.compress.quantization import bits_of, price_tensor
from scotoma.models.compressed_tensors import GridTensor, exponent_of, step_of

__all__ = ["PricedLayer", "price_layer"]

_DAMPING = 0.01  # of the mean moment: for inputs that are never there
_MOST_CODE = 1 << 15
_TRIED = (0, 4, 8, -4)  # eighths of an octave beside the step that theory says


@dataclass(frozen=True, eq=False)
class PricedLayer:
    """A layer as a file holds it.

    Args:
        weight: Its weight.
        bias: Its bias, where it has one.
        cost: What both cost: the error's importance plus the bits' price.
    """

    weight: GridTensor
    bias: GridTensor | None
    cost: float


def price_layer(
    weight: Tensor,
    bias: Tensor | None,
    moment: Tensor,
    importance: Tensor,
    price: float,
    *,
    fixed: tuple[Tensor, Tensor] | None = None,
) -> PricedLayer:
    """Return the layer at the step, and rounded to the integers, that cost least.

    Args:
        weight: ``(out, ...)`` float, of a convolution or linear layer.
        bias: ``(out,)``, or None.
        moment: ``(groups, K + 1, K + 1)`` of what it reads, as
            :func:`~scotoma.compress.moments.find_moments` returns it.
        importance: ``(out,)``: what a squared error of 1 of an output costs.
        price: What a bit costs, above 0.
        fixed: ``(mask, values)`` of the weight's shape: weights that are something else in the
            file, whose integers are 0 and whose errors the others make up for.

    Source:
        Frantar, Ashkboos, Hoefler, Alistarh, GPTQ: Accurate Post-Training Quantization for
        Generative Pre-trained Transformers, ICLR 2023 (rounding with compensation).

    Differences from the paper:
        Each weight takes the integer of least error plus price of its bits; the bias takes part.
    """
    groups, size = moment.shape[0], moment.shape[1]
    rows = weight.detach().double().reshape(groups, -1, size - 1)
    first = torch.zeros_like(rows[..., :1])
    if bias is not None:
        first = bias.detach().double().reshape(groups, -1, 1)
    rows = torch.cat([rows, first], 2)
    if fixed is not None:
        mask, values = fixed
        fixed = mask.reshape(rows[..., :-1].shape), values.double().reshape(rows[..., :-1].shape)
    factor = _factor(moment.double())
    strength = importance.double().reshape(groups, -1)
    free = torch.diagonal(factor, dim1=1, dim2=2)[:, :-1].square().reciprocal()
    middle = _theoretical(float((strength[..., None] * free[:, None]).mean()), price)
    # However much hangs on a layer, its largest weight must fit into an integer.
    finest = exponent_of(max(float(rows[..., :-1].abs().max()), 1e-30) / (_MOST_CODE // 2))
    middle = max(middle, finest - min(_TRIED))
    tried = (
        (*_compensated(rows, factor, strength, price, middle + offset, fixed), middle + offset)
        for offset in _TRIED
    )
    total, codes, left, exponent = min(tried, key=lambda each: each[0])
    coded = codes.to(torch.int32).reshape(weight.shape).numpy()
    grid = GridTensor(coded, np.array(exponent, np.int32))
    if bias is None:
        return PricedLayer(grid, None, total)
    worth = (strength / factor[:, -1:, -1].square()).reshape(-1)
    return PricedLayer(grid, price_tensor(left.reshape(-1), worth, price), total)


def _factor(moment: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of each group's damped moment."""
    size = moment.shape[1]
    mean = torch.diagonal(moment, dim1=1, dim2=2).mean(1)
    damped = moment + (_DAMPING * mean + 1e-12)[:, None, None] * torch.eye(size).double()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _theoretical(worth: float, price: float) -> int:
    """Return the exponent of the step at which one more bit saves as much error as it costs.

    Errors of a step ``s`` are ``s² / 12`` on average, and halving it takes one bit.
    """
    return exponent_of(math.sqrt(6 * price / (math.log(2) * max(worth, 1e-30))))


def _compensated(
    rows: Tensor,
    factor: Tensor,
    strength: Tensor,
    price: float,
    exponent: int,
    fixed: tuple[Tensor, Tensor] | None,
) -> tuple[float, Tensor, Tensor]:
    """Return total cost, integers, and what is left for the bias."""
    step = step_of(exponent)
    rows = rows / step
    count = rows.shape[2] - 1
    # What rounding without compensation would make of it tells what integers will cost.
    coded = rows[..., :-1]
    bits, middle = bits_of(_shrunk(coded if fixed is None else coded[~fixed[0]]))
    bits = price * bits.double()
    codes = torch.empty_like(rows[..., :-1])
    error = torch.zeros((), dtype=torch.float64)
    for column in range(count):
        now = rows[..., column]
        pivot = factor[:, column, column][:, None]
        near = now.round().clamp(1 - middle, middle - 1)
        choices = torch.stack([near, near - near.sign(), torch.zeros_like(near)])
        worth = strength * (step / pivot).square()
        each = worth * (choices - now).square() + bits[choices.to(torch.int64) + middle]
        least, which = each.min(0)
        chosen = choices.gather(0, which[None])[0]
        codes[..., column] = chosen
        if fixed is not None:
            mask, values = fixed[0][..., column], fixed[1][..., column] / step
            codes[..., column] = torch.where(mask, 0, chosen)
            least = torch.where(mask, worth * (values - now).square(), least)
            chosen = torch.where(mask, values, chosen)
        error += least.sum()
        wrong = (now - chosen) / pivot
        rest = factor[:, None, column, column + 1 :]
        rows[..., column + 1 :] -= wrong[..., None] * rest
    return float(error), codes, rows[..., -1] * step


def _shrunk(scaled: Tensor) -> Tensor:
    codes = scaled.sign() * (scaled.abs() - 0.1).round().clamp(0, _MOST_CODE)
    return codes.reshape(-1) if codes.numel() else torch.zeros(1).double()
