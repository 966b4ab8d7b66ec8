"""Tensors of a compressed model, and their way into coded bytes and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import CodingError
from scotoma.ops.entropy_coding import GREATEST, IntegerDecoder, IntegerEncoder

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "STEPS_PER_OCTAVE",
    "CompressedTensor",
    "FractionalTensor",
    "GridTensor",
    "exponent_of",
    "read_tensors",
    "step_of",
    "write_tensors",
]

STEPS_PER_OCTAVE = 8
"""Steps are powers of two to whole eighths: fine enough, and stored as small integers."""

Integers = NDArray[np.int32]

_LEAST, _MOST = -512, 511  # exponents, in eighths: steps from 5e-20 to 2e19
_FACTORS = tuple(2 ** (eighth / STEPS_PER_OCTAVE) for eighth in range(STEPS_PER_OCTAVE))
_ATOMS = 64
_SHARED, _BY_ROW, _FRACTIONAL = range(3)


def step_of(exponent: int) -> float:
    """Return ``2 ** (exponent / 8)``."""
    whole, eighth = divmod(exponent, STEPS_PER_OCTAVE)
    return math.ldexp(_FACTORS[eighth], whole)


def exponent_of(step: float) -> int:
    """Return the exponent of the nearest step.

    Args:
        step: Above 0; what lies beyond the steps that a file can hold becomes the nearest.
    """
    return min(_MOST, max(_LEAST, round(STEPS_PER_OCTAVE * math.log2(step))))


class CompressedTensor(Protocol):
    """Something that a file holds in a tensor's place."""

    def values(self) -> Tensor:
        """Return the tensor, float32."""
        ...


@dataclass(frozen=True, eq=False)
class GridTensor:
    """Whole numbers times a step.

    Args:
        codes: Of the tensor's shape.
        exponents: ``()``, one step for all, or ``(rows,)``, one for each of the first axis;
            see :func:`step_of`.
    """

    codes: Integers
    exponents: Integers

    def values(self) -> Tensor:
        """Return the tensor, float32."""
        import torch

        steps = np.array([step_of(int(e)) for e in self.exponents.reshape(-1)])
        if self.exponents.ndim:
            steps = steps.reshape(-1, *[1] * (self.codes.ndim - 1))
        values = (self.codes * steps).astype(np.float32)
        return torch.from_numpy(values.reshape(self.codes.shape))


@dataclass(frozen=True, eq=False)
class FractionalTensor:
    """A convolution's weight, some of whose kernels are sums of fractional filters.

    Args:
        mask: ``(out, in)`` of 0 and 1: the fractional kernels.
        shapes: ``(out | 1, in | 1, M, 5)``: of each kernel, each output channel, or the layer.
        amplitudes: ``(out, in, M)``.
        plain: ``(out, in, height, width)``: the other kernels, and zeros.
    """

    mask: Integers
    shapes: GridTensor
    amplitudes: GridTensor
    plain: GridTensor

    def values(self) -> Tensor:
        """Return the weight, float32."""
        import torch

        from scotoma.ops.fractional_filters import fractional_shape

        size = (self.plain.codes.shape[2], self.plain.codes.shape[3])
        shapes = fractional_shape(self.shapes.values(), size)
        kernels = (self.amplitudes.values()[..., None, None] * shapes).sum(2)
        mask = torch.from_numpy(self.mask.astype(bool))[..., None, None]
        return torch.where(mask, kernels, self.plain.values())


def write_tensors(tensors: Mapping[str, CompressedTensor]) -> bytes:
    """Return tensors as one coded stream, without their names and shapes.

    Raises:
        CodingError: A tensor that no file can hold.
        MissingExtraError: constriction is not installed.
    """
    found = list(tensors.values())
    arrays = [array for tensor in found for array in _arrays(tensor)]
    bounds = [(int(a.min()), int(a.max())) if a.size else (0, 0) for a in arrays]
    layouts = [_layout(tensor) for tensor in found if isinstance(tensor, FractionalTensor)]
    encoder = IntegerEncoder()
    encoder.put([_kind(tensor) for tensor in found], lowest=_SHARED, highest=_FRACTIONAL)
    encoder.put(np.array(layouts, int).reshape(-1, 3), lowest=0, highest=_ATOMS)
    encoder.put(np.array(bounds, int).reshape(-1, 2), lowest=-GREATEST, highest=GREATEST)
    for array, (lowest, highest) in zip(arrays, bounds, strict=True):
        encoder.put(array, lowest=lowest, highest=highest)
    return encoder.data()


def read_tensors(
    data: bytes, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, GridTensor | FractionalTensor]:
    """Return what :func:`write_tensors` was given.

    Args:
        data: The stream.
        shapes: Of each tensor, by name, in the order in which they were written.

    Raises:
        CodingError: Damaged, or tensors of other shapes.
    """
    decoder = IntegerDecoder(data)
    kinds = decoder.take((len(shapes),), lowest=_SHARED, highest=_FRACTIONAL).tolist()
    layouts = iter(decoder.take((kinds.count(_FRACTIONAL), 3), lowest=0, highest=_ATOMS).tolist())
    total = sum(7 if kind == _FRACTIONAL else 2 for kind in kinds)
    bounds = iter(decoder.take((total, 2), lowest=-GREATEST, highest=GREATEST).tolist())

    def take(shape: tuple[int, ...]) -> Integers:
        lowest, highest = next(bounds)
        return decoder.take(shape, lowest=lowest, highest=highest)

    found: dict[str, GridTensor | FractionalTensor] = {}
    for kind, (name, shape) in zip(kinds, shapes.items(), strict=True):
        if kind == _FRACTIONAL:
            found[name] = _take_fractional(take, shape, next(layouts))
        else:
            found[name] = _take_grid(take, shape, by_row=kind == _BY_ROW)
    decoder.close()
    return found


def _kind(tensor: CompressedTensor) -> int:
    if isinstance(tensor, FractionalTensor):
        return _FRACTIONAL
    if not isinstance(tensor, GridTensor):
        raise CodingError(f"expected a GridTensor or FractionalTensor, got {type(tensor).__name__}")
    return _BY_ROW if tensor.exponents.ndim else _SHARED


def _layout(tensor: FractionalTensor) -> tuple[int, int, int]:
    """Number of shapes that add up to a kernel, and whether each output and input has its own."""
    out, inputs, atoms, _ = tensor.shapes.codes.shape
    return atoms, int(out > 1), int(inputs > 1)


def _arrays(tensor: CompressedTensor) -> list[Integers]:
    """Return what is coded of a tensor: 2 arrays, or 7 of a fractional one."""
    if isinstance(tensor, GridTensor):
        return [tensor.exponents, tensor.codes]
    if not isinstance(tensor, FractionalTensor):
        raise CodingError(f"expected a GridTensor or FractionalTensor, got {type(tensor).__name__}")
    mask = tensor.mask.astype(bool)
    used = _used(mask, tensor.shapes.codes.shape)
    return [
        tensor.mask,
        *(tensor.shapes.exponents, tensor.shapes.codes[used]),
        *(tensor.amplitudes.exponents, tensor.amplitudes.codes[mask]),
        *(tensor.plain.exponents, tensor.plain.codes[~mask]),
    ]


def _used(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which shapes, ``(out | 1, in | 1)``, belong to a fractional kernel."""
    for axis in (0, 1):
        if shape[axis] == 1:
            mask = np.logical_or.reduce(mask, axis, keepdims=True)
    return mask


def _take_grid(
    take: Callable[[tuple[int, ...]], Integers], shape: tuple[int, ...], *, by_row: bool
) -> GridTensor:
    if by_row and not shape:
        raise CodingError("expected rows in a tensor with a step for each, got a number")
    exponents = _checked(take((shape[0],) if by_row else ()))
    return GridTensor(take(shape), exponents)


def _take_fractional(
    take: Callable[[tuple[int, ...]], Integers], shape: tuple[int, ...], layout: list[int]
) -> FractionalTensor:
    atoms, by_output, by_input = layout
    if len(shape) != 4 or not atoms:
        raise CodingError(f"expected a convolution's weight of fractional filters, got {shape}")
    out, inputs = shape[:2]
    mask = take((out, inputs))
    chosen = mask.astype(bool)
    owners = (out if by_output else 1, inputs if by_input else 1)

    def scatter(places: NDArray[np.bool_], rest: tuple[int, ...]) -> GridTensor:
        exponents = _checked(take(()))
        codes = np.zeros((*places.shape, *rest), np.int32)
        codes[places] = take((int(places.sum()), *rest))
        return GridTensor(codes, exponents)

    shapes = scatter(_used(chosen, owners), (atoms, 5))
    amplitudes = scatter(chosen, (atoms,))
    return FractionalTensor(mask, shapes, amplitudes, scatter(~chosen, shape[2:]))


def _checked(exponents: Integers) -> Integers:
    if exponents.size and not (exponents.min() >= _LEAST and exponents.max() <= _MOST):
        raise CodingError(f"expected steps' exponents in [{_LEAST}, {_MOST}], got others")
    return exponents
