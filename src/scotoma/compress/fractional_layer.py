"""A convolution's weight with some kernels as fractional filters, the others as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scotoma.core.errors import SettingsError
from scotoma.ops.fractional_filters import SHAPE_NUMBERS, fractional_shape

__all__ = ["SHARING", "FractionalLayer"]

SHARING = ("kernel", "filter", "layer")
"""Whose shape one is: of each kernel (the paper), of all kernels of an output channel, of all."""


@dataclass(frozen=True, eq=False)
class FractionalLayer:
    """What stands for a convolution's weight; made by :func:`scotoma.compress.fitting.fit_layer`.

    A fractional kernel is the sum of M shapes, each with an amplitude of the kernel's own. The
    shapes belong to the kernel, to all kernels of one output channel, or to the whole layer::

        weight[o, i] = Σ_m amplitudes[o, i, m] · shape(shapes[o | 0, i | 0, m])    where mask[o, i]
                       plain[o, i]                                                 elsewhere

    With M = 1 and shapes of their own these are the paper's filters of six numbers.

    Args:
        shapes: ``(out | 1, in | 1, M, 5)`` float: ``x0, y0, sigma, a, b``.
        amplitudes: ``(out, in, M)`` float.
        mask: ``(out, in)`` bool: the fractional kernels.
        plain: ``(out, in, height, width)`` float: the other kernels; zero where ``mask`` holds.
    """

    shapes: Tensor
    amplitudes: Tensor
    mask: Tensor
    plain: Tensor

    def __post_init__(self) -> None:
        out, inputs = self.mask.shape
        atoms = self.amplitudes.shape[-1]
        wanted = [(out, inputs, atoms, SHAPE_NUMBERS), (out, 1, atoms, SHAPE_NUMBERS)]
        wanted.append((1, 1, atoms, SHAPE_NUMBERS))
        if tuple(self.shapes.shape) not in wanted:
            raise SettingsError(f"expected shapes as {wanted}, got {tuple(self.shapes.shape)}")
        if tuple(self.amplitudes.shape[:2]) != (out, inputs):
            raise SettingsError(
                f"expected amplitudes for {out} x {inputs} kernels, "
                f"got {tuple(self.amplitudes.shape)}"
            )
        if self.plain.ndim != 4 or tuple(self.plain.shape[:2]) != (out, inputs):
            raise SettingsError(
                f"expected plain weights of {out} x {inputs} kernels, got {tuple(self.plain.shape)}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the kernels."""
        return int(self.plain.shape[2]), int(self.plain.shape[3])

    @property
    def shapes_used(self) -> Tensor:
        """``(out | 1, in | 1)`` bool: shapes that a fractional kernel needs; store only these."""
        used = self.mask
        for axis in (0, 1):
            if self.shapes.shape[axis] == 1:
                used = used.any(axis, keepdim=True)
        return used

    @property
    def numbers(self) -> int:
        """Numbers to store: shapes in use, amplitudes of fractional kernels, plain weights."""
        fractional = int(self.mask.sum())
        height, width = self.size
        return (
            int(self.shapes_used.sum()) * self.shapes.shape[2] * SHAPE_NUMBERS
            + fractional * self.amplitudes.shape[2]
            + (self.mask.numel() - fractional) * height * width
        )

    def weight(self) -> Tensor:
        """Return the dense ``(out, in, height, width)`` weight.

        Differentiable in ``shapes``, ``amplitudes`` and ``plain``; what the mask leaves out gets
        a gradient of zero.
        """
        atoms = fractional_shape(self.shapes, self.size)
        # A shape that is shared enters a product once; it is not copied for each kernel.
        if self.shapes.shape[0] == 1 != self.mask.shape[0]:
            kernels = torch.einsum("oim,mhw->oihw", self.amplitudes, atoms[0, 0])
        elif self.shapes.shape[1] == 1:
            kernels = torch.einsum("oim,omhw->oihw", self.amplitudes, atoms[:, 0])
        else:
            kernels = (self.amplitudes[..., None, None] * atoms).sum(2)
        return torch.where(self.mask[..., None, None], kernels, self.plain)
