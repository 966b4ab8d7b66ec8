"""Arrays of small integers as few bytes: adaptive range coding with contexts from magnitudes.

A coder learns how often each value comes while it codes, so nothing but the codes is stored.
How large a value is likely to be is guessed from those above it (the same place in earlier
rows) and before it in its own row; each of twelve sizes of guess has counts of its own. All
guesses and counts are integers: the same array is the same bytes on every machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import CodingError, MissingExtraError
from scotoma.ops.integer_symbols import (
    GREATEST,
    SYMBOLS,
    ZERO,
    join,
    magnitude,
    split,
    width_of,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "GREATEST",
    "IntegerDecoder",
    "IntegerEncoder",
    "decode_integers",
    "encode_integers",
]

Integers = NDArray[np.int32]
Places = NDArray[np.intp]

_MOST = 1 << 28  # values of one array: a damaged shape must not ask for more memory than this
_WORD = 4  # bytes
_CHECK = 4  # bytes
_UNIT = 16  # guesses are in sixteenths
# Guesses between two of these share counts.
_LEVELS = np.array([2, 4, 8, 12, 18, 28, 48, 90, 180, 360, 720])
_STEP = 24  # what one value adds to its count
_FULL = 1 << 15  # counts are halved here, so that old rows are forgotten
_FIRST = 8  # least values of a row that are coded under one guess of its size


def encode_integers(values: ArrayLike, *, lowest: int, highest: int) -> bytes:
    """Return one array as bytes, with a checksum.

    Args:
        values: Integers of any shape; rows of the first axis that resemble each other in size
            from place to place are coded best.
        lowest: No value is less; at least ``-GREATEST``.
        highest: No value is more; at most ``GREATEST``. The decoder needs both.

    Raises:
        CodingError: Values that are no integers, or outside the bounds.
        MissingExtraError: constriction is not installed.
    """
    encoder = IntegerEncoder()
    encoder.put(values, lowest=lowest, highest=highest)
    data = encoder.data()
    return zlib.crc32(data).to_bytes(_CHECK, "big") + data


def decode_integers(data: bytes, shape: Sequence[int], *, lowest: int, highest: int) -> Integers:
    """Return the array that :func:`encode_integers` was given.

    Args:
        data: Its bytes.
        shape: Of the array.
        lowest: As it was encoded.
        highest: As it was encoded.

    Raises:
        CodingError: Damaged, truncated or extended bytes, or another shape or bounds than
            the array's.
        MissingExtraError: constriction is not installed.
    """
    check, rest = data[:_CHECK], data[_CHECK:]
    if zlib.crc32(rest).to_bytes(_CHECK, "big") != check:
        raise CodingError(
            f"expected {len(data)} coded bytes as they were written, got damaged ones (their "
            "checksum differs); fetch them again"
        )
    decoder = IntegerDecoder(rest)
    values = decoder.take(shape, lowest=lowest, highest=highest)
    decoder.close()
    return values


class IntegerEncoder:
    """Codes arrays one after the other; what it learns of one helps with the next.

    There is no checksum in :meth:`data`: whoever keeps it adds one.

    Raises:
        MissingExtraError: constriction is not installed.
    """

    def __init__(self) -> None:
        self._stream = _require_constriction().stream
        self._coder = self._stream.queue.RangeEncoder()
        self._contexts = _Contexts(self._stream.model)

    def put(self, values: ArrayLike, *, lowest: int, highest: int) -> None:
        """Append an array; arguments are those of :func:`encode_integers`.

        Raises:
            CodingError: Values that are no integers, or outside the bounds.
        """
        array = np.asarray(values)
        if array.size and array.dtype.kind not in "iu":
            raise CodingError(f"expected integers, got {array.dtype}; round them first")
        _check_bounds(lowest, highest)
        if array.size and not (lowest <= array.min() and array.max() <= highest):
            raise CodingError(
                f"expected values in [{lowest}, {highest}], got [{array.min()}, {array.max()}]"
            )
        rows = _as_rows(array.astype(np.int32))
        symbols, widths, rests = split(rows)

        def code(row: int, places: Places, model: Any, first: int) -> Places:
            chosen: Places = symbols[row, places]
            if model is not None:
                self._coder.encode((chosen - first).astype(np.int32), model)
            return chosen

        self._contexts.walk(rows.shape, lowest, highest, code)
        wide = widths > 0
        if wide.any():
            sizes = np.left_shift(1, widths[wide]).astype(np.int32)
            self._coder.encode(rests[wide].astype(np.int32), self._stream.model.Uniform(), sizes)

    def data(self) -> bytes:
        """Return the bytes of all arrays so far."""
        return bytes(self._coder.get_compressed().astype(">u4").tobytes())


class IntegerDecoder:
    """Reads arrays in the order in which an :class:`IntegerEncoder` was given them.

    Args:
        data: What the encoder returned.

    Raises:
        CodingError: Not a whole number of words.
        MissingExtraError: constriction is not installed.
    """

    def __init__(self, data: bytes) -> None:
        self._stream = _require_constriction().stream
        if len(data) % _WORD:
            raise CodingError(
                f"expected coded bytes by the {_WORD}, got {len(data)}; they are cut off"
            )
        words = np.frombuffer(data, ">u4").astype(np.uint32)
        self._coder = self._stream.queue.RangeDecoder(words)
        self._contexts = _Contexts(self._stream.model)

    def take(self, shape: Sequence[int], *, lowest: int, highest: int) -> Integers:
        """Return the next array.

        Shape and bounds are those that it was put with.

        Raises:
            CodingError: Damaged bytes, or another shape or bounds than the array's.
        """
        if not (all(side >= 0 for side in shape) and prod(shape) <= _MOST):
            raise CodingError(f"expected an array of at most {_MOST} values, got {tuple(shape)}")
        _check_bounds(lowest, highest)
        rows = _as_rows(np.zeros(shape, np.int32))
        symbols = np.full(rows.shape, ZERO)

        def code(row: int, places: Places, model: Any, first: int) -> Places:
            chosen = np.full(len(places), first, np.intp)
            if model is not None:
                chosen += self._read(model, len(places))
            symbols[row, places] = chosen
            return chosen

        self._contexts.walk(rows.shape, lowest, highest, code)
        widths = width_of(np.abs(symbols - ZERO))
        rests = np.zeros(rows.shape, np.int64)
        wide = widths > 0
        if wide.any():
            sizes = np.left_shift(1, widths[wide]).astype(np.int32)
            rests[wide] = self._read(self._stream.model.Uniform(), sizes)
        found = join(symbols, widths, rests)
        if found.size and not (lowest <= found.min() and found.max() <= highest):
            raise CodingError(
                f"expected values in [{lowest}, {highest}], got [{found.min()}, {found.max()}]: "
                "the bytes are damaged"
            )
        return found.astype(np.int32).reshape(shape)

    def close(self) -> None:
        """Raise where bytes are left over.

        Raises:
            CodingError: There are more bytes than arrays were taken.
        """
        if not self._coder.maybe_exhausted():
            raise CodingError("expected no bytes after the last array, got more; damaged")

    def _read(self, *model: Any) -> Integers:
        try:
            read: Integers = self._coder.decode(*model)
        except AssertionError as error:  # what constriction says of impossible bytes
            raise CodingError("expected bytes of this coder, got damaged ones") from error
        return read


class _Contexts:
    """Counts of symbols for each size of guess, and the order in which places are coded."""

    def __init__(self, models: Any) -> None:
        self._models = models
        self._counts = _prior().copy()

    def walk(
        self,
        shape: tuple[int, int],
        lowest: int,
        highest: int,
        code: Callable[[int, Places, Any, int], Places],
    ) -> None:
        """Visit every place of ``(rows, columns)`` with the model of its value.

        ``code`` gets a row, places in it, a model, and the symbol that the model calls 0; it
        writes or reads those places, and returns their symbols. Where there is but one symbol
        the model is None.
        """
        first, last = (int(split(np.array([[bound]]))[0][0, 0]) for bound in (lowest, highest))
        if first == last:  # a model of one symbol needs no bits, and constriction has none
            for row in range(shape[0]):
                code(row, np.arange(shape[1]), None, first)
            return
        above = np.zeros(shape[1], np.int64)
        total = count = 0
        for row in range(shape[0]):
            usual = _UNIT * total // count if count else _UNIT
            guesses = (_UNIT * above + 4 * usual) // (row + 4)
            sizes = np.zeros(shape[1], np.int64)
            for start, stop in _parts(shape[1]):
                # The row so far, against the usual, corrects what the places above say.
                own = (_UNIT * int(sizes[:start].sum()) + 8 * usual) // (start + 8)
                levels = np.searchsorted(
                    _LEVELS, guesses[start:stop] * own // max(usual, 1), side="right"
                )
                for level in np.unique(levels):
                    places = start + np.flatnonzero(levels == level)
                    counts = self._counts[level, first : last + 1]
                    model = self._models.Categorical(counts.astype(np.float64), perfect=False)
                    symbols = code(row, places, model, first)
                    sizes[places] = magnitude(symbols)
                    self._learn(level, symbols)
            above += sizes
            total, count = total + int(sizes.sum()), count + shape[1]

    def _learn(self, level: np.intp, symbols: Places) -> None:
        counts = self._counts[level]
        counts += _STEP * np.bincount(symbols, minlength=SYMBOLS)
        if counts.sum() > _FULL:
            counts[:] = (counts + 1) // 2


def _parts(columns: int) -> list[tuple[int, int]]:
    """Cut a row so that each part is twice as long as the one before."""
    parts, start, length = [], 0, max(_FIRST, columns // 8)
    while start < columns:
        parts.append((start, min(columns, start + length)))
        start, length = start + length, 2 * length
    return parts


@cache
def _prior() -> NDArray[np.int64]:
    """Return what the counts are before any value is seen: geometric in the magnitude."""
    distances = [abs(symbol - ZERO) for symbol in range(SYMBOLS)]
    middles = [1, *((_LEVELS[1:] + _LEVELS[:-1]) // 2).tolist(), 2 * int(_LEVELS[-1])]
    middles.insert(1, int(_LEVELS[0]))
    rows = []
    for middle in middles[: len(_LEVELS) + 1]:
        rows.append([max(1, 24 * middle**d // (middle + _UNIT) ** d) for d in distances])
    return np.array(rows, np.int64)


def _as_rows(values: Integers) -> Integers:
    rows = values.shape[0] if values.ndim > 1 else 1
    return values.reshape(rows, prod(values.shape[-max(values.ndim - 1, 1) :]))


def _check_bounds(lowest: int, highest: int) -> None:
    if not -GREATEST <= lowest <= highest <= GREATEST:
        raise CodingError(
            f"expected bounds with {-GREATEST} <= lowest <= highest <= {GREATEST}, "
            f"got {lowest} and {highest}"
        )


def _require_constriction() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise MissingExtraError("entropy coding", "constriction", "compress") from error
    return constriction
