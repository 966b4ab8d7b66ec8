"""Tensors of a compressed model, and their way into coded bytes and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    arrays = [_arrays(tensor) for tensor in found]
    kinds = np.array([_kind(tensor) for tensor in found])
    bounds = [(int(a.min()), int(a.max())) if a.size else (0, 0) for part in arrays for a in part]
    atoms = [_layout(tensor) for tensor in found if isinstance(tensor, FractionalTensor)]
    encoder = IntegerEncoder()
    encoder.put(kinds, lowest=_SHARED, highest=_FRACTIONAL)
    encoder.put(np.array(atoms).reshape(-1, 3), lowest=0, highest=_ATOMS)
    encoder.put(np.array(bounds).reshape(-1, 2), lowest=-GREATEST, highest=GREATEST)
    places = iter(bounds)
    for part in arrays:
        for array in part:
            lowest, highest = next(places)
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
    count = kinds.count(_FRACTIONAL)
    layouts = iter(decoder.take((count, 3), lowest=0, highest=_ATOMS).tolist())
    arrays = [
        _array_shapes(kind, shape, next(layouts) if kind == _FRACTIONAL else None)
        for kind, shape in zip(kinds, shapes.values(), strict=True)
    ]
    total = sum(map(len, arrays))
    bounds = iter(decoder.take((total, 2), lowest=-GREATEST, highest=GREATEST).tolist())
    found = {}
    for name, kind, part in zip(shapes, kinds, arrays, strict=True):
        taken = []
        for shape in part:
            lowest, highest = next(bounds)
            taken.append(decoder.take(shape, lowest=lowest, highest=highest))
        found[name] = _assembled(kind, taken)
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
    if isinstance(tensor, GridTensor):
        return [tensor.exponents, tensor.codes]
    if not isinstance(tensor, FractionalTensor):
        raise CodingError(f"expected a GridTensor or FractionalTensor, got {type(tensor).__name__}")
    parts = (tensor.shapes, tensor.amplitudes, tensor.plain)
    return [tensor.mask, *(array for part in parts for array in _arrays(part))]


def _array_shapes(
    kind: int, shape: tuple[int, ...], layout: tuple[int, int, int] | None
) -> list[tuple[int, ...]]:
    if layout is None:
        if kind == _BY_ROW and not shape:
            raise CodingError("expected rows in a tensor with a step for each, got a number")
        return [(shape[0],) if kind == _BY_ROW else (), shape]
    if len(shape) != 4:
        raise CodingError(f"expected a convolution's weight of fractional filters, got {shape}")
    atoms, by_output, by_input = layout
    out, inputs = shape[:2]
    owners = (out if by_output else 1, inputs if by_input else 1)
    return [(out, inputs), (), (*owners, atoms, 5), (), (out, inputs, atoms), (), shape]


def _assembled(kind: int, arrays: list[Integers]) -> GridTensor | FractionalTensor:
    if kind != _FRACTIONAL:
        return _grid(arrays[0], arrays[1])
    mask, *parts = arrays
    pairs = [_grid(parts[i], parts[i + 1]) for i in (0, 2, 4)]
    return FractionalTensor(mask, *pairs)


def _grid(exponents: Integers, codes: Integers) -> GridTensor:
    if exponents.size and not (exponents.min() >= _LEAST and exponents.max() <= _MOST):
        raise CodingError(f"expected steps' exponents in [{_LEAST}, {_MOST}], got others")
    return GridTensor(codes, exponents)
