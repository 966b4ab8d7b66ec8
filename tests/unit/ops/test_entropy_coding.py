from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scotoma.core.errors import CodingError
from scotoma.ops.entropy_coding import (
    GREATEST,
    IntegerDecoder,
    IntegerEncoder,
    decode_integers,
    encode_integers,
)

SHAPE = (40, 30, 3, 3)


def weights(scale: float, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> NDArray[np.int32]:
    random = np.random.default_rng(seed)
    return np.rint(random.laplace(0, scale, shape)).astype(np.int32)


def entropy_bytes(values: NDArray[np.int32]) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / values.size)).sum() / 8)


def round_trip(values: NDArray[np.int32], lowest: int, highest: int) -> bytes:
    data = encode_integers(values, lowest=lowest, highest=highest)
    back = decode_integers(data, values.shape, lowest=lowest, highest=highest)
    assert back.shape == values.shape
    assert back.dtype == np.int32
    assert np.array_equal(back, values)
    return data


@given(
    shape=st.lists(st.integers(0, 9), max_size=4),
    bounds=st.tuples(st.integers(-GREATEST, GREATEST), st.integers(-GREATEST, GREATEST)).map(
        sorted
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_and_bounds(shape: list[int], bounds: list[int], seed: int) -> None:
    lowest, highest = bounds
    random = np.random.default_rng(seed)
    values = random.integers(lowest, highest, size=shape, endpoint=True).astype(np.int32)
    round_trip(np.asarray(values), lowest, highest)


def test_every_magnitude_around_each_octave() -> None:
    powers = 2 ** np.arange(24)
    sizes = np.unique(np.concatenate([powers - 1, powers, powers + 1, np.arange(70)]))
    sizes = sizes[sizes <= GREATEST]
    values = np.concatenate([sizes, -sizes]).astype(np.int32)
    round_trip(values, -GREATEST, GREATEST)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 30.0])
def test_takes_about_as_many_bytes_as_the_entropy(scale: float) -> None:
    values = weights(scale)
    size = len(round_trip(values, int(values.min()), int(values.max())))
    # The entropy's own table of counts would have to be stored, too; ours is learned.
    assert 0.99 * entropy_bytes(values) < size < 1.03 * entropy_bytes(values) + 16


def test_learns_which_rows_and_columns_are_small() -> None:
    random = np.random.default_rng(0)
    spread = np.exp(random.normal(0, 1, (64, 1))) * np.exp(random.normal(0, 1, (1, 400)))
    values = np.rint(random.normal(0, 1, (64, 400)) * spread).astype(np.int32)
    size = len(round_trip(values, int(values.min()), int(values.max())))
    assert size < 0.85 * entropy_bytes(values)


def test_a_second_array_gains_from_the_first() -> None:
    values = weights(1.0, shape=(10, 40))
    low, high = int(values.min()), int(values.max())
    encoder = IntegerEncoder()
    sizes = [0]
    for _ in range(8):
        encoder.put(values, lowest=low, highest=high)
        sizes.append(len(encoder.data()))
    assert sizes[8] - sizes[7] < 0.98 * sizes[1]


def test_same_bytes_in_another_process_and_forever() -> None:
    code = (
        "import hashlib, numpy as np; from scotoma.ops.entropy_coding import encode_integers;"
        "v = ((np.arange(5000) * 2654435761 % 97) - 48) // (1 + np.arange(5000) % 7);"
        "d = encode_integers(v.reshape(50, 100), lowest=-48, highest=48);"
        "print(hashlib.sha256(d).hexdigest()[:16])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    values = ((np.arange(5000) * 2654435761 % 97) - 48) // (1 + np.arange(5000) % 7)
    data = encode_integers(values.reshape(50, 100), lowest=-48, highest=48)
    assert found.stdout.strip() == hashlib.sha256(data).hexdigest()[:16]
    # Files that were written must stay readable: whoever changes these bytes changes a format.
    assert hashlib.sha256(data).hexdigest()[:16] == "0e039375b40b9406"


def test_streams_of_several_arrays() -> None:
    arrays = [weights(s, seed=n, shape=(5, 7, n + 1)) for n, s in enumerate((0.2, 3.0, 500.0))]
    encoder = IntegerEncoder()
    for values in arrays:
        encoder.put(values, lowest=int(values.min()), highest=int(values.max()))
    decoder = IntegerDecoder(encoder.data())
    for values in arrays:
        low, high = int(values.min()), int(values.max())
        assert np.array_equal(decoder.take(values.shape, lowest=low, highest=high), values)
    decoder.close()


def test_every_altered_or_cut_byte_is_noticed() -> None:
    values = weights(2.0, shape=(6, 20))
    low, high = int(values.min()), int(values.max())
    data = encode_integers(values, lowest=low, highest=high)
    for place in range(len(data)):
        for damaged in (
            data[:place],
            data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
            data + b"\0" * (place + 1),
        ):
            with pytest.raises(CodingError, match="damaged"):
                decode_integers(damaged, values.shape, lowest=low, highest=high)


def test_a_stream_without_checksum_never_hangs() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        words = random.integers(0, 256, size=4 * int(random.integers(0, 9)), dtype=np.uint8)
        decoder = IntegerDecoder(words.tobytes())
        try:
            found = decoder.take((8, 9), lowest=-40, highest=40)
        except CodingError:
            continue
        assert np.abs(found).max() <= 40
    with pytest.raises(CodingError, match="cut off"):
        IntegerDecoder(b"123")


def test_refuses_what_it_cannot_code() -> None:
    with pytest.raises(CodingError, match=r"expected values in \[-1, 1\], got \[0, 2\]"):
        encode_integers(np.array([0, 2]), lowest=-1, highest=1)
    with pytest.raises(CodingError, match="expected integers, got float64"):
        encode_integers(np.array([0.5]), lowest=-1, highest=1)
    with pytest.raises(CodingError, match="lowest <= highest"):
        encode_integers(np.array([0]), lowest=1, highest=-1)
    with pytest.raises(CodingError, match="lowest <= highest"):
        encode_integers(np.array([0]), lowest=0, highest=GREATEST + 1)
    data = encode_integers(np.arange(100), lowest=0, highest=99)
    with pytest.raises(CodingError, match="at most"):
        decode_integers(data, (1 << 20, 1 << 20), lowest=0, highest=99)
    with pytest.raises(CodingError, match="more; damaged"):
        decode_integers(data, (3,), lowest=0, highest=99)
