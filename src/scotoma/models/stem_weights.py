"""The weights of a stem that reads encrypted blocks: pure functions.

A block map sends the block ``b`` of ``C*M*M`` pixels to ``A b``. A stem is linear, so what it
computes from one block is a matrix product ``W b = (W A_inv) (A b)``: we only need to know the
stem's answer to one block. For a patch embedding that is its weight. For a stem whose kernel
reaches over block borders it is the picture of everything that the block's pixels reach, a few
rows and columns wider than the block's own share of the output; the answers of neighbours
overlap and add up. That sum over blocks is a transposed convolution with the blocks as its
pixels, the block's share of the output as its stride, and ``W A_inv`` as its weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["answer_range", "block_weight", "dense_weight", "patch_weight"]


def dense_weight(weight: Tensor, groups: int) -> Tensor:
    """Return a grouped weight as one over all channels, zeros between the groups.

    Args:
        weight: ``(D, C/groups, kh, kw)``.
        groups: Divides ``D``.

    Returns:
        ``(D, C, kh, kw)``.
    """
    if groups == 1:
        return weight
    features, depth = weight.shape[:2]
    dense = weight.new_zeros(features, groups, *weight.shape[1:])
    each = torch.arange(features, device=weight.device)
    dense[each, each // (features // groups)] = weight
    return dense.view(features, groups * depth, *weight.shape[2:])


def patch_weight(weight: Tensor, inverse: Tensor, block: int) -> Tensor:
    """Return the weight of a patch embedding that reads encrypted blocks.

    Args:
        weight: ``(D, C, ph, pw)``, float64.
        inverse: ``(C*M*M, C'*M*M)``, float64.
        block: ``M``; divides ``ph`` and ``pw``.

    Returns:
        ``(D, C', ph, pw)``.
    """
    features, channels, height, width = weight.shape
    rows, columns = height // block, width // block
    cells = weight.view(features, channels, rows, block, columns, block)
    cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(features, rows, columns, len(inverse))
    mixed = (cells @ inverse).view(features, rows, columns, -1, block, block)
    return mixed.permute(0, 3, 1, 4, 2, 5).reshape(features, -1, height, width)


def answer_range(
    block: int, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[int, int]:
    """Return the first and last output row that the rows of block 0 reach.

    Output row ``o`` reads the rows ``o * stride - padding + a * dilation`` for each row ``a`` of
    the kernel; ``padding`` is that before the picture.
    """
    first = -((dilation * (kernel - 1) - padding) // stride)
    last = (block - 1 + padding) // stride
    return first, last


def block_weight(
    weight: Tensor,
    inverse: Tensor,
    block: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    ranges: tuple[tuple[int, int], tuple[int, int]],
) -> Tensor:
    """Return the stem's answer to each place of an encrypted block.

    Column ``n`` of ``inverse`` is the plain block that has the value 1 in place ``n`` of its
    encrypted form and 0 elsewhere, so the stem is run on the columns as on pictures.

    Args:
        weight: ``(D, C, kh, kw)``, float64.
        inverse: ``(C*M*M, C'*M*M)``, float64.
        block: ``M``; a multiple of both strides.
        stride: Of rows and columns.
        padding: Before the first row and column.
        dilation: Of rows and columns.
        ranges: First and last output row and column to return, see :func:`answer_range`.

    Returns:
        ``(C'*M*M, D, rows, columns)``, the weight of a transposed convolution.
    """
    channels = weight.shape[1]
    pictures = inverse.T.reshape(-1, channels, block, block)
    sides: list[int] = []
    for axis in (1, 0):  # F.pad begins with the last axis
        first, last = ranges[axis]
        before = padding[axis] - first * stride[axis]
        span = (last - first) * stride[axis] + (weight.shape[2 + axis] - 1) * dilation[axis] + 1
        sides += [before, span - block - before]
    return F.conv2d(F.pad(pictures, sides), weight, stride=stride, dilation=dilation)
