"""Latents as few bytes: each value predicted from those coded before it, in integers alone.

A value's neighbours are the six nearest ones before it in its own channel, and three of each of
a few channels before it: at the same place, to the left, above. A :class:`LatentModel` holds the
weights with which they predict the value, and those with which the errors made at these places
predict the size of the next one. The value is then range coded under a bell curve of this centre
and width.

What is computed is integers in fixed point, so encoder and decoder agree on every machine, and
both walk the same way: step ``t`` codes all values with ``x + 2y + channel = t`` at once, whose
neighbours all lie in earlier steps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import CodingError
from scotoma.ops.latent_curves import BOUNDS, PARTS, curves_for, require_constriction

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BITS",
    "OTHER",
    "OWN",
    "PRIOR",
    "LatentModel",
    "decode_values",
    "encode_values",
    "generic_model",
]

Integers = NDArray[np.int64]

BITS = 12
"""Binary places of weights."""
OWN = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
"""Neighbours in the channel, as (down, across)."""
OTHER = ((0, 0), (0, -1), (-1, 0))
"""Neighbours in another channel."""
PRIOR = 8
"""A channel's average error counts as much as so many values at the start."""
_PLACES = 4  # corner, first row, first column, elsewhere: neighbours are missing in the others
_TOP, _SIDE = 2, 2  # rows and columns that are put around a channel
_LEVELS = 256
# Weights of a place's own neighbours that did well on features of several networks.
_GENERIC = ((0,) * 6, (3400, 0, 0, 0, 0, 0), (0, 3000, 0, 500, 0, 0), (2500, 2100, -900, 300, 0, 0))


@dataclass(frozen=True, eq=False)
class LatentModel:
    """How latents of one network are predicted; public, and the same at both ends.

    With ``C`` channels and ``R`` references there are ``F = 6 + 3R`` neighbours. Weights are in
    4096ths.

    Args:
        means: ``(C,)`` values that stand for what lies outside; 0 to 255.
        references: ``(C, R)`` channels that a channel is also predicted from, each before it;
            -1 for none.
        weights: ``(C, 4, F)``, for the corner, first row, first column, and elsewhere.
        sizes: ``(C, 4, 8 + R)``: what the errors at the six neighbours, at the same place in the
            references, and in the channel so far tell of the next one's size; last a constant,
            in eighths of a value.
        errors: ``(C,)`` size of an error at the start, in eighths of a value.

    Raises:
        CodingError: Parts that do not fit each other, or out of range.
    """

    means: Integers
    references: Integers
    weights: Integers
    sizes: Integers
    errors: Integers

    def __post_init__(self) -> None:
        for field in fields(self):
            value = np.asarray(getattr(self, field.name))
            if value.dtype.kind not in "iu":
                raise CodingError(f"expected integers as {field.name}, got {value.dtype}")
            object.__setattr__(self, field.name, value.astype(np.int64))
        channels = len(self.means)
        count = self.references.shape[-1] if self.references.ndim == 2 else -1
        shapes = {
            "means": (channels,),
            "references": (channels, count),
            "weights": (channels, _PLACES, len(OWN) + len(OTHER) * count),
            "sizes": (channels, _PLACES, len(OWN) + count + 2),
            "errors": (channels,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape or count < 0:
                raise CodingError(f"expected {name} {shape}, got {getattr(self, name).shape}")
        before = np.arange(channels)[:, None]
        bounds = {
            "means": (0, _LEVELS - 1),
            "weights": (-(2**15), 2**15 - 1),
            "sizes": (-(2**15), 2**15 - 1),
            "errors": (0, 2**15 - 1),
        }
        right = [
            low <= getattr(self, name).min(initial=low)
            and getattr(self, name).max(initial=low) <= high
            for name, (low, high) in bounds.items()
        ]
        if not (all(right) and ((self.references >= -1) & (self.references < before)).all()):
            raise CodingError("expected a model in range, each reference before its channel")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that change with any number of the model."""
        digest = hashlib.sha256()
        for name, array in self.to_arrays().items():
            digest.update(f"{name} {array.shape} ".encode() + array.astype("<i2").tobytes())
        return digest.hexdigest()[:16]

    def to_arrays(self) -> dict[str, NDArray[np.int16]]:
        """Return the parts as arrays of 16 bits, to be stored."""
        return {field.name: getattr(self, field.name).astype(np.int16) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LatentModel:
        """Read what :meth:`to_arrays` returned.

        Raises:
            CodingError: A part is missing or does not fit the others.
        """
        names = {field.name for field in fields(cls)}
        if arrays.keys() != names:
            raise CodingError(f"expected the arrays {sorted(names)}, got {sorted(arrays)}")
        return cls(**{name: np.asarray(array) for name, array in arrays.items()})


def generic_model(channels: int) -> LatentModel:
    """Return a model that knows nothing of the network but its number of channels."""
    weights = np.broadcast_to(np.array(_GENERIC), (channels, _PLACES, len(OWN)))
    near = np.array([700, 700, 350, 350, 150, 150, 1700, 0])
    sizes = np.broadcast_to(near, (channels, _PLACES, len(near)))
    return LatentModel(
        means=np.full(channels, _LEVELS // 2),
        references=np.zeros((channels, 0), np.int64),
        weights=weights,
        sizes=sizes,
        errors=np.full(channels, 8 * PARTS),
    )


def encode_values(values: NDArray[np.uint8], model: LatentModel, *, step: int = 1) -> bytes:
    """Return ``(C, H, W)`` levels as bytes.

    Args:
        values: From 0 to ``255 // step``.
        model: Of as many channels.
        step: How many of the latents' values one level stands for.

    Raises:
        CodingError: Values beyond the greatest level.
        MissingExtraError: constriction is not installed.
    """
    levels = _levels_of(step)
    if values.max(initial=0) >= levels:
        raise CodingError(f"expected values below {levels}, got {values.max()}")
    stream = require_constriction().stream
    coder = stream.queue.RangeEncoder()
    curves = curves_for(levels)
    flat = values.reshape(-1).astype(np.int64)

    def put(places: Integers, nearest: Integers, rows: Integers) -> Integers:
        found = flat[places]
        for symbol, row in zip(((found - nearest) % levels).tolist(), rows.tolist(), strict=True):
            coder.encode(symbol, curves[row])
        return found

    _walk(model, values.shape, step, put)
    words: NDArray[np.uint32] = coder.get_compressed()
    return words.astype("<u4").tobytes()


def decode_values(
    data: bytes, shape: Sequence[int], model: LatentModel, *, step: int = 1
) -> NDArray[np.uint8]:
    """Return the levels that :func:`encode_values` was given.

    Args:
        data: Its bytes.
        shape: ``(C, H, W)``.
        model: As it was encoded.
        step: As it was encoded.

    Raises:
        CodingError: Too few or too many bytes; others decode to something.
        MissingExtraError: constriction is not installed.
    """
    if len(data) % 4:
        raise CodingError(f"expected whole words of 4 bytes, got {len(data)} bytes")
    stream = require_constriction().stream
    coder = stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))
    levels = _levels_of(step)
    curves = curves_for(levels)
    values = np.zeros(math.prod(shape), np.uint8)

    def take(places: Integers, nearest: Integers, rows: Integers) -> Integers:
        symbols = [coder.decode(curves[row]) for row in rows.tolist()]
        found: Integers = (np.array(symbols, np.int64) + nearest) % levels
        values[places] = found
        return found

    _walk(model, tuple(shape), step, take)
    if not coder.maybe_exhausted():
        raise CodingError("expected all bytes to be used, got more than the values need")
    return values.reshape(shape)


def _walk(
    model: LatentModel,
    shape: tuple[int, ...],
    step: int,
    exchange: Callable[[Integers, Integers, Integers], Integers],
) -> None:
    """Visit all values in the order of coding, those of a step at once.

    ``exchange`` takes their places, the levels nearest to their curves' centres, and the curves;
    it codes the values and says what they are.
    """
    channels, height, width = shape
    if len(model.means) != channels:
        raise CodingError(f"expected {len(model.means)} channels, as the model has, got {channels}")
    plane = (height + _TOP) * (width + 2 * _SIDE)
    means = model.means // step
    starts = np.maximum(model.errors // step, 1)
    known = np.zeros(channels * plane, np.int64)  # less their channel's mean, which is 0
    errors = np.repeat(starts, plane)
    sums, counts = starts * PRIOR, np.full(channels, PRIOR)
    near, seen = _offsets(model, width, plane)
    levels = _levels_of(step)
    for channel, place, inner, outer in _steps(channels, height, width):
        weights = model.weights[channel, place]
        moved = (weights * known[outer[:, None] + near[channel]]).sum(1)
        centres = means[channel] * PARTS + (moved * PARTS >> BITS)
        centres = np.clip(centres, 0, (levels - 1) * PARTS)
        sizes = model.sizes[channel, place]
        guess = (sizes[:, :-2] * errors[outer[:, None] + seen[channel]]).sum(1)
        guess += sizes[:, -2] * (sums[channel] // counts[channel])
        guess = (guess >> BITS) + sizes[:, -1] // step
        nearest = centres + PARTS // 2 >> 3
        part = centres - nearest * PARTS + PARTS // 2
        rows = np.searchsorted(BOUNDS, guess) * PARTS + part
        found = exchange(inner, nearest, rows)
        known[outer] = found - means[channel]
        missed = np.abs(found * PARTS - centres)
        errors[outer] = missed
        sums += np.bincount(channel, missed, channels).astype(np.int64)
        counts += np.bincount(channel, minlength=channels)


def _offsets(model: LatentModel, width: int, plane: int) -> tuple[Integers, Integers]:
    """Return where each channel's neighbours lie, from a value, and where errors are looked at."""
    row = width + 2 * _SIDE
    own = np.array([down * row + across for down, across in OWN])
    other = np.array([down * row + across for down, across in OTHER])
    channels = len(model.means)
    # Without a reference the value itself is looked at, which is 0 until it is known: fitting
    # gives it no weight, and whatever weight it has, both ends look before it is known.
    there = model.references >= 0
    back = np.where(there, model.references - np.arange(channels)[:, None], 0) * plane
    others = np.where(there[..., None], back[..., None] + other, 0).reshape(channels, -1)
    alike = np.broadcast_to(own, (channels, len(own)))
    return np.concatenate([alike, others], 1), np.concatenate([alike, back], 1)


@lru_cache(maxsize=4)
def _order(channels: int, height: int, width: int) -> tuple[tuple[Integers, ...], ...]:
    channel, down, across = np.indices((channels, height, width)).reshape(3, -1)
    time = across + 2 * down + channel
    order = np.argsort(time, kind="stable")
    cuts = np.flatnonzero(np.diff(time[order])) + 1
    place = 2 * (down > 0) + (across > 0)
    place = np.array([0, 1, 2, 3])[place]
    row = width + 2 * _SIDE
    outer = (channel * (height + _TOP) + down + _TOP) * row + across + _SIDE
    inner = np.arange(channels * height * width)
    parts = [np.split(array[order], cuts) for array in (channel, place, inner, outer)]
    return tuple(zip(*parts, strict=True))


def _steps(channels: int, height: int, width: int) -> Iterator[tuple[Integers, ...]]:
    return iter(_order(channels, height, width))


def _levels_of(step: int) -> int:
    return (_LEVELS - 1) // step + 1
