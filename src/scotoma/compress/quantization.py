"""Weights as whole numbers times steps, at a price for every bit.

Each tensor's step and each weight's number are chosen together: what they cost the answers
(importance times squared error) plus what they cost in the file (bits times a price). One
price for the whole network gives every layer the bits that are worth it, and most of the
weights that matter little become zeros, which cost next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scotoma.core.errors import SettingsError
from scotoma.models.compressed_tensors import GridTensor, exponent_of, step_of

__all__ = ["bits_of", "price_tensor", "price_tensors", "round_tensor"]

_STRIDE = 4  # eighths of an octave between the steps that are tried
_FINEST = 10  # octaves below the largest magnitude
_ROUNDS = 2
_MOST_CODE = 1 << 15


def round_tensor(
    weight: Tensor, *, bits: int, by_row: bool = False, search: bool = False
) -> GridTensor:
    """Return the weight as integers of so many bits, the largest magnitude being the largest.

    Args:
        weight: Float, any shape.
        bits: Of an integer with its sign, 2 to 16.
        by_row: A step for each of the first axis.
        search: Take the step of the least squared error instead; what is beyond the largest
            integer is clipped. At few bits that is much the better one.

    Raises:
        SettingsError: Bits out of range.
    """
    if not 2 <= bits <= 16:
        raise SettingsError(f"expected 2 to 16 bits, got {bits}")
    top = 2 ** (bits - 1) - 1
    values = weight.detach().double().cpu()
    rows = values.reshape(len(values), -1) if by_row and values.ndim else values.reshape(1, -1)
    exponents = []
    for row in rows:
        largest = float(row.abs().max()) if row.numel() else 0.0
        # The next greater step, so that nothing is clipped.
        exponent = math.ceil(8 * math.log2(largest / top)) if largest > 0 else 0
        if search and largest > 0:
            exponent = min(
                range(exponent - 24, exponent + 1), key=lambda e: _clipped_error(row, e, top)
            )
        exponents.append(exponent)
    steps = torch.tensor([step_of(e) for e in exponents], dtype=torch.float64)[:, None]
    codes = (rows / steps).round().clamp(-top, top).to(torch.int32).reshape(values.shape)
    shape = (len(exponents),) if by_row and values.ndim else ()
    return GridTensor(codes.numpy(), np.array(exponents, np.int32).reshape(shape))


def _clipped_error(row: Tensor, exponent: int, top: int) -> float:
    step = step_of(exponent)
    return float(((row / step).round().clamp(-top, top) * step - row).square().sum())


def price_tensors(
    weights: Mapping[str, Tensor], importance: Mapping[str, Tensor], price: float
) -> dict[str, GridTensor]:
    """Return every tensor at one price; see :func:`price_tensor`."""
    return {n: price_tensor(w, importance[n], price) for n, w in weights.items()}


def price_tensor(
    weight: Tensor, importance: Tensor, price: float, *, exponent: int | None = None
) -> GridTensor:
    """Return the weight at the step, and rounded to the integers, that cost least.

    Args:
        weight: Float, any shape.
        importance: Of its shape: what a squared error of 1 costs.
        price: What a bit costs, above 0.
        exponent: Of the step, where it is given.

    Source:
        Wiedemann et al., DeepCABAC: A Universal Compression Algorithm for Deep Neural Networks,
        IEEE JSTSP 2020 (a step for each tensor, weighted error plus rate).

    Differences from the paper:
        Bits are those of a tensor's own histogram, not of a running context model, so that all
        weights are rounded at once; the coder's contexts then save some more.
    """
    if not price > 0:
        raise SettingsError(f"expected a price above 0, got {price}")
    values = weight.detach().float().cpu().reshape(-1)
    costs = importance.detach().float().cpu().reshape(-1)
    largest = float(values.abs().max()) if len(values) else 0.0
    if largest == 0:
        return GridTensor(np.zeros(weight.shape, np.int32), np.zeros((), np.int32))
    if exponent is None:
        top = exponent_of(largest)
        tried = range(top, top - 8 * _FINEST, -_STRIDE)
        exponent = min(tried, key=lambda each: _rounded(values, costs, price, each)[0])
    _, codes = _rounded(values, costs, price, exponent)
    shape = tuple(weight.shape)
    return GridTensor(codes.to(torch.int32).reshape(shape).numpy(), np.array(exponent, np.int32))


def _rounded(values: Tensor, costs: Tensor, price: float, exponent: int) -> tuple[float, Tensor]:
    """Return total cost and integers at one step."""
    step = step_of(exponent)
    scaled = values / step
    near = scaled.round().clamp(-_MOST_CODE, _MOST_CODE)
    toward = near - near.sign()
    codes = near
    total = math.inf
    for _ in range(_ROUNDS):
        bits, middle = bits_of(codes)
        choices = torch.stack([near, toward, torch.zeros_like(near)])
        places = (choices.to(torch.int64) + middle).clamp(0, len(bits) - 1)
        each = costs * (step * (choices - scaled)).square() + price * bits[places]
        least, which = each.min(0)
        codes = choices.gather(0, which[None])[0]
        total = float(least.double().sum())
    return total, codes


def bits_of(codes: Tensor) -> tuple[Tensor, int]:
    """Return what each integer costs in this tensor, and the place of 0 among them."""
    middle = int(codes.abs().max()) + 1
    counts = torch.bincount((codes.to(torch.int64) + middle), minlength=2 * middle + 1).double()
    # A share of the count for neighbours: an adaptive coder has seen them nearly as often.
    spread = counts + 0.25
    return (-(spread / spread.sum()).log2()).float(), middle
