"""Permutations and orthogonal matrices out of a key: the same bits on every platform.

A cipher whose maps differ in the last bit between two machines is a cipher that one of them
cannot read exactly. LAPACK's QR does differ, by its version, its blocking and its threads. So
the orthogonal matrices are made in arithmetic that leaves no choice: sums of integers below
2^53, which are exact in any order, and single IEEE 754 operations on float64, which round in
one way only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from scotoma.core.keys import Key

__all__ = [
    "LARGEST_SIZE",
    "derive_orthogonal",
    "derive_permutation",
    "derive_permutation_matrix",
]

LARGEST_SIZE = 4096
"""Largest orthogonal matrix: up to here no sum can reach 2^53, whatever the key."""

Floats = NDArray[np.float64]

# Matrix entries are kept as multiples of 2^-31.
_ONE = 2.0**31
# A coordinate is a weighted sum of the bits of 16 words. Eleven words of equal weight make the
# bell; the five light ones fill the gaps between its steps.
_WEIGHTS = np.array([32.0] * 11 + [16.0, 8.0, 4.0, 2.0, 1.0])
_WORD_BITS = 64
_BYTES_PER_COORDINATE = 8 * len(_WEIGHTS)
# One bit of weight 1 is left out, so that the sum is odd: never zero, and even-handed.
_LARGEST_COORDINATE = _WORD_BITS * float(_WEIGHTS.sum()) - 1.0
_DROP_ONE_BIT = np.uint64(2**63 - 1)
# Rows are reflected in tiles of this many numbers, which fit the cache of a core.
_TILE = 2**15


def derive_permutation(key: Key, label: str, size: int) -> Tensor:
    """Return a uniformly random order that only this key and label give.

    Args:
        key: The secret.
        label: What the order is for.
        size: Number of things.

    Returns:
        ``(size,)`` int64; ``things[order]`` are the things in that order.

    Raises:
        SettingsError: A size below 1.

    Security:
        Equal words would leave two things in their order; among 4096 that is as likely as
        2^-41, so the order is uniform as far as anyone can tell.
    """
    import torch

    return torch.from_numpy(_draw_order(key, label, size, 0))


def derive_permutation_matrix(key: Key, label: str, size: int, count: int = 1) -> Tensor:
    """Return permutations as matrices, to take the place of :func:`derive_orthogonal`'s.

    Args:
        key: The secret.
        label: What the matrices are for.
        size: Side of each.
        count: Number of independent matrices; the first ones are the same for any count.

    Returns:
        ``(count, size, size)`` float64; ``matrix @ things == things[order]`` for the order of
        :func:`derive_permutation`, which is that of the first matrix.

    Raises:
        SettingsError: A size or count below 1.
    """
    import torch

    _check_positive(size=size, count=count)
    orders = np.stack([_draw_order(key, label, size, index) for index in range(count)])
    return torch.from_numpy(np.eye(size)[orders])


def derive_orthogonal(key: Key, label: str, size: int, count: int = 1) -> Tensor:
    """Return Haar-distributed orthogonal matrices that only this key and label give.

    Matrices grow from side 1 to ``size``: a smaller one, bordered by 1, is reflected so that
    the border's row becomes the direction of a Gaussian vector.

    Args:
        key: The secret.
        label: What the matrices are for.
        size: Side of each, at most 4096.
        count: Number of independent matrices; the first ones are the same for any count.

    Returns:
        ``(count, size, size)`` float64, bit for bit the same on every platform and version.
        Entries are multiples of 2^-31; ``Q @ Q.T`` is the identity within 1e-7.

    Raises:
        SettingsError: A size outside 1 to 4096, or a count below 1.

    Security:
        The coordinates' excess kurtosis is -0.0027, not 0, and they lie 1/431 of their
        standard deviation apart: directions are uniform to that, which no attack on pictures
        could notice, and which is no proof.

    Differences from the paper:
        Gaussians are sums of 1023 weighted bits; entries are rounded after each reflection;
        a row's sign is set so that its direction is the vector's own.

    Source:
        Stewart, The Efficient Generation of Random Orthogonal Matrices with an Application to
        Condition Estimators, SIAM Journal on Numerical Analysis 17(3), 1980, Sec. 3.
    """
    import torch

    _check_positive(size=size, count=count)
    if not size <= LARGEST_SIZE:
        raise SettingsError(
            f"expected orthogonal matrices of side 1 to {LARGEST_SIZE}, got {size}; "
            "take smaller blocks"
        )
    matrices = np.zeros((count, size, size))
    for rank in range(1, size + 1):
        corner = matrices[:, size - rank :, size - rank :]
        corner[:, 0, 0] = _ONE
        _reflect(corner, _draw_gaussian(key, f"{size}/{rank}", label, rank, count))
    matrices /= _ONE
    # Sums of zeros may come out as -0.0 or 0.0, depending on their order.
    matrices += 0.0
    return torch.from_numpy(matrices)


def _reflect(matrices: Floats, directions: Floats) -> None:
    """Multiply by the reflection that turns the first axis into a direction, in place.

    Args:
        matrices: ``(count, rank, rank)`` integers of size up to 2^31, first row ``2^31 e_1``,
            which becomes ``2^31 x / |x|``.
        directions: ``(count, rank)``, each ``x`` of odd integers.
    """
    signs = np.copysign(1.0, directions[:, 0])
    normals = directions.copy()
    # Exact: integers below 2^42. The square root rounds in one way only.
    normals[:, 0] += signs * np.rint(np.sqrt(np.sum(directions * directions, axis=1)))
    factors = 2.0 / np.sum(normals * normals, axis=1)
    count, rank = directions.shape
    step = max(1, _TILE // (count * rank))
    for start in range(0, rank, step):
        rows = matrices[:, start : start + step]
        # Exact: by Cauchy and Schwarz no partial sum exceeds 2^31 * |normal| < 2^53.
        shares = rows @ normals[:, :, None]
        shares *= factors[:, None, None]
        # Not fused: multiplied, rounded, subtracted, rounded, on every platform.
        change = shares * normals[:, None, :]
        np.subtract(rows, change, out=change)
        np.rint(change, out=rows)
    matrices[:, 0] *= -signs[:, None]


def _draw_gaussian(key: Key, prefix: str, label: str, size: int, count: int) -> Floats:
    """Return ``(count, size)`` odd integers, Gaussian to the excess kurtosis -0.0027."""
    streams = [
        key.stream(f"orthogonal/{prefix}/{index}/{label}", size * _BYTES_PER_COORDINATE)
        for index in range(count)
    ]
    words = np.frombuffer(b"".join(streams), "<u8").astype(np.uint64).reshape(-1, len(_WEIGHTS))
    words[:, -1] &= _DROP_ONE_BIT
    sums = _count_bits(words).astype(np.float64) @ _WEIGHTS
    coordinates: Floats = (2.0 * sums - _LARGEST_COORDINATE).reshape(count, size)
    return coordinates


def _count_bits(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the number of ones in each word (NumPy below 2 has no function for it)."""
    pairs, fours, eights = (
        np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F)
    )
    words = words - ((words >> np.uint64(1)) & pairs)
    words = (words & fours) + ((words >> np.uint64(2)) & fours)
    words = (words + (words >> np.uint64(4))) & eights
    return (words * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _draw_order(key: Key, label: str, size: int, index: int) -> NDArray[np.int64]:
    _check_positive(size=size)
    words = np.frombuffer(key.stream(f"permutation/{size}/{index}/{label}", 8 * size), "<u8")
    return np.argsort(words, kind="stable").astype(np.int64)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if not value >= 1:
            raise SettingsError(f"expected {name} of at least 1, got {value}; ask for some")
