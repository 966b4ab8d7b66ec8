"""Run lengths against a port of the encoder that COCO files are written with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from scotoma.core.errors import RegionError
from scotoma.images.rle import decode_counts, decode_rle, encode_rle

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20))


def compress(counts: list[int]) -> str:
    """Return the string that COCO's ``rleToString`` makes."""
    text = ""
    for index, count in enumerate(counts):
        value = count - (counts[index - 2] if index > 2 else 0)
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            text += chr((bits | 32 if more else bits) + 48)
    return text


def slow_counts(mask: np.ndarray) -> list[int]:
    counts, last = [0], False
    for column in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            if mask[row, column] != last:
                counts.append(0)
                last = not last
            counts[-1] += 1
    return counts


@given(masks)
def test_encoding_is_the_slow_and_obvious_one_and_decodes(mask: np.ndarray) -> None:
    counts = encode_rle(mask)
    assert counts == slow_counts(mask)
    assert all(type(count) is int for count in counts)
    assert np.array_equal(decode_rle(counts, *mask.shape), mask)


@given(st.lists(st.integers(0, 2**31), max_size=40))
def test_compressed_counts_decode(counts: list[int]) -> None:
    assert decode_counts(compress(counts)) == counts


@pytest.mark.parametrize(
    "counts", [[5], [3, 4], [7, -1], [2.0, 4.0], [True, 5], [2**70, 6 - 2**70], ["6"]]
)
def test_runs_that_do_not_make_the_picture_are_refused(counts: list[int]) -> None:
    with pytest.raises(RegionError, match="2x3 pixels"):
        decode_rle(counts, 3, 2)


@pytest.mark.parametrize("text", ["1 3", "~", "ä", "P", "1" + "o" * 30], ids=repr)
def test_strings_outside_the_code_are_refused(text: str) -> None:
    with pytest.raises(RegionError, match="compressed mask"):
        decode_counts(text)
