"""Maps out of a key: the same bits everywhere, truly orthogonal, truly Haar."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scotoma.core.errors import SettingsError
from scotoma.core.keys import Key
from scotoma.ops import keyed_maps
from scotoma.ops.keyed_maps import (
    LARGEST_SIZE,
    derive_orthogonal,
    derive_permutation,
    derive_permutation_matrix,
)

KEY = Key.from_bytes(bytes(range(32)))
OTHER = Key.from_bytes(bytes(range(1, 33)))
Derive = Callable[..., torch.Tensor]
MAPS: list[Derive] = [derive_orthogonal, derive_permutation_matrix]


def digest(values: torch.Tensor) -> str:
    """Return the first half of the SHA-256 of a tensor's little-endian bytes."""
    array = values.numpy()
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()[:32]


def matrices(count: int, size: int, label: str = "haar") -> NDArray[np.float64]:
    return derive_orthogonal(KEY, label, size, count).numpy()


# -- the same bits everywhere -----------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [
        (1, 8, "050a702bdaedc1f3a9412dac247911ea"),
        (12, 1, "fba8db61ffbe546bbeccb6d284ef7d01"),
        (48, 3, "74eb6238867e504a6d92a08968e99499"),
        (192, 1, "6e3a0c379b8c9187433f7ed38ec9677c"),
        (768, 1, "f25afd274095b10bdfd15b1050142240"),
    ],
)
def test_orthogonal_matrices_never_change(size: int, count: int, expected: str) -> None:
    """Releases written anywhere are read everywhere, for ever: never edit these."""
    assert digest(derive_orthogonal(KEY, "golden", size, count)) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, "af5570f5a1810b7af78caf4bc70a660f"),
        (12, "20a9f7ae763e0704e02e1a8033781962"),
        (196, "8696d7e0de7c2f814f81b29d8deef297"),
        (768, "4b52ffb5275b14dcee17687e4fd9b265"),
    ],
)
def test_permutations_never_change(size: int, expected: str) -> None:
    assert digest(derive_permutation(KEY, "golden", size)) == expected


def test_a_permutation_is_what_its_stream_says() -> None:
    order = derive_permutation(KEY, "golden", 50).tolist()
    data = KEY.stream("permutation/50/0/golden", 400)
    words = [int.from_bytes(data[8 * n : 8 * n + 8], "little") for n in range(50)]
    assert order == sorted(range(50), key=words.__getitem__)


def slow_orthogonal(key: Key, label: str, size: int, index: int) -> list[list[int]]:
    """Stewart's construction in Python's unbounded integers: no float but the two that round."""
    rows: list[list[int]] = []
    for rank in range(1, size + 1):
        data = key.stream(f"orthogonal/{size}/{rank}/{index}/{label}", 128 * rank)
        x = []
        for start in range(0, len(data), 128):
            words = [
                int.from_bytes(data[start + 8 * n : start + 8 * n + 8], "little") for n in range(16)
            ]
            bits = [bin(word).count("1") for word in (*words[:15], words[15] % 2**63)]
            heavy = 32 * sum(bits[:11])
            light = sum(w * b for w, b in zip((16, 8, 4, 2, 1), bits[11:], strict=True))
            x.append(2 * (heavy + light) - (64 * 383 - 1))
        sign = 1 if x[0] > 0 else -1
        normal = [x[0] + sign * round(math.sqrt(sum(c * c for c in x))), *x[1:]]
        factor = 2.0 / float(sum(c * c for c in normal))
        rows = [[2**31] + [0] * (rank - 1), *([0, *row] for row in rows)]
        for row in rows:
            share = float(sum(q * v for q, v in zip(row, normal, strict=True))) * factor
            row[:] = [round(q - share * v) for q, v in zip(row, normal, strict=True)]
        rows[0] = [-sign * q for q in rows[0]]
    return rows


@pytest.mark.parametrize("size", [1, 2, 3, 12, 25])
def test_equals_a_slow_version_in_whole_numbers(size: int) -> None:
    made = derive_orthogonal(KEY, "slow", size, 2) * 2.0**31
    for index in range(2):
        assert made[index].to(torch.int64).tolist() == slow_orthogonal(KEY, "slow", size, index)


def test_neither_tiles_nor_company_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = matrices(5, 24)
    for tile in (1, 100, 10**9):
        monkeypatch.setattr(keyed_maps, "_TILE", tile)
        assert matrices(5, 24).tobytes() == expected.tobytes()
        assert matrices(2, 24).tobytes() == expected[:2].tobytes()


def test_the_order_of_summation_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another BLAS is another order: here backwards, and one by one."""
    expected = matrices(2, 24).tobytes()
    reflect = keyed_maps._reflect

    class Backwards(np.ndarray):
        def __matmul__(self, other: NDArray[np.float64]) -> NDArray[np.float64]:
            total = np.zeros((*self.shape[:2], 1))
            for column in reversed(range(self.shape[2])):
                total += np.asarray(self)[:, :, column, None] * other[:, column, None]
            return total

    monkeypatch.setattr(
        keyed_maps, "_reflect", lambda rows, x: reflect(rows.view(Backwards), x.copy())
    )
    assert matrices(2, 24).tobytes() == expected


def test_zeros_have_one_sign() -> None:
    for made in (matrices(2000, 2), matrices(1, 192)):
        assert not np.signbit(made[made == 0]).any()


# -- exactness --------------------------------------------------------------------------


def test_no_sum_reaches_2_to_53_whatever_the_key() -> None:
    """The largest sums that any stream could lead to, at the largest size."""
    largest = keyed_maps._LARGEST_COORDINATE
    assert largest == 64 * sum(keyed_maps._WEIGHTS) - 1
    longest = math.sqrt(LARGEST_SIZE) * largest
    normal = 2 * (longest + 1)
    # Each reflection rounds each entry by at most a half.
    row = keyed_maps._ONE + LARGEST_SIZE * math.sqrt(LARGEST_SIZE) / 2
    assert row * normal < 2**53
    assert normal**2 < 2**53


def test_measured_sums_stay_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0.0
    reflect = keyed_maps._reflect

    def watched(rows: NDArray[np.float64], x: NDArray[np.float64]) -> None:
        nonlocal largest
        assert (x % 2 == 1).all()  # odd: never zero
        largest = max(largest, float((abs(rows) @ abs(x)[:, :, None]).max()))
        reflect(rows, x)
        assert (rows == np.rint(rows)).all()

    monkeypatch.setattr(keyed_maps, "_reflect", watched)
    matrices(1, 192)
    assert 2**31 < 2 * largest < 2**53


@pytest.mark.parametrize("value", [0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0])
def test_bits_are_counted(value: int) -> None:
    words = np.array([value], np.uint64)
    assert keyed_maps._count_bits(words).tolist() == [bin(value).count("1")]


@pytest.mark.parametrize(("size", "count"), [(1, 3), (2, 50), (12, 5), (48, 2), (192, 1), (768, 1)])
def test_orthogonal_matrices_are_orthogonal(size: int, count: int) -> None:
    made = matrices(count, size)
    error = abs(made @ made.transpose(0, 2, 1) - np.eye(size)).max()
    assert error <= 1e-7
    assert (abs(abs(np.linalg.det(made)) - 1) < 1e-5).all()
    assert (made * 2**31 == np.rint(made * 2**31)).all()


# -- Haar -------------------------------------------------------------------------------


def distance(sample: NDArray[np.float64], cumulative: Callable[..., NDArray[np.float64]]) -> float:
    """Return Kolmogorov and Smirnov's distance times sqrt(n): above 1.95 once in 1000."""
    values = cumulative(np.sort(sample.ravel()))
    count = values.size
    steps = np.arange(count + 1) / count
    gap = max((steps[1:] - values).max(), (values - steps[:-1]).max())
    return float(gap * math.sqrt(count))


def normal_cumulative(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in values])


def test_coordinates_are_gaussian() -> None:
    drawn = keyed_maps._draw_gaussian(KEY, "test", "bell", 40_000, 1).ravel()
    deviation = math.sqrt(sum(64 * w * w for w in keyed_maps._WEIGHTS) - 1)
    scaled = drawn / deviation
    # Four standard errors each.
    assert abs(scaled.mean()) < 4 / math.sqrt(scaled.size)
    assert abs(scaled.var() - 1) < 4 * math.sqrt(2 / scaled.size)
    assert abs((scaled**4).mean() - 3) < 4 * math.sqrt(96 / scaled.size)
    assert distance(scaled, normal_cumulative) < 1.95
    assert len(np.unique(drawn)) > 2000


def test_moments_are_haars() -> None:
    count, size = 4000, 5
    made = matrices(count, size)
    error = 5 / math.sqrt(count)
    assert abs(made.mean(0)).max() < error * math.sqrt(1 / size)
    assert abs((made**2).mean(0) - 1 / size).max() < error * math.sqrt(2) / size
    assert abs((made**4).mean(0) - 3 / (size * (size + 2))).max() < error * 0.2
    # Second moments: E[Q_ij Q_kl] is 1/n for the same entry and 0 for any two others.
    flat = made.reshape(count, -1)
    assert abs(flat.T @ flat / count - np.eye(size**2) / size).max() < error / size * 1.5
    # E[Q_11² Q_22²] = (n + 1) / ((n - 1) n (n + 2)), and with the same row 1 / (n (n + 2)).
    square = made**2
    crossed = (square[:, 0, 0] * square[:, 1, 1]).mean()
    assert abs(crossed - (size + 1) / ((size - 1) * size * (size + 2))) < error * 0.1
    shared = (square[:, 2, 0] * square[:, 2, 3]).mean()
    assert abs(shared - 1 / (size * (size + 2))) < error * 0.1


@pytest.mark.parametrize("place", [*itertools.product(range(3), range(3))])
def test_entries_of_a_rotation_of_space_are_uniform(place: tuple[int, int]) -> None:
    """Archimedes: a point of the sphere has uniform coordinates."""
    entries = matrices(4000, 3)[:, place[0], place[1]]
    assert distance(entries, lambda z: (z + 1) / 2) < 1.95


def test_planes_turn_by_uniform_angles() -> None:
    made = matrices(4000, 2)
    angles = np.arctan2(made[:, 0, 1], made[:, 0, 0])
    assert distance(angles, lambda angle: (angle + math.pi) / (2 * math.pi)) < 1.95


def test_reflections_and_rotations_are_as_frequent() -> None:
    for size in (1, 2, 3, 6):
        share = (np.linalg.det(matrices(4000, size)) > 0).mean()
        assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(4000), size


def test_eigenvalue_angles_are_haars() -> None:
    """A rotation of space turns by an angle of density (1 - cos) / pi."""
    made = matrices(4000, 3)
    rotations = made * np.linalg.det(made).round()[:, None, None]
    traces = np.trace(rotations, axis1=1, axis2=2)
    angles = np.arccos(np.clip((traces - 1) / 2, -1, 1))
    assert distance(angles, lambda angle: (angle - np.sin(angle)) / math.pi) < 1.95


def test_traces_of_powers_are_haars() -> None:
    """Diaconis and Shahshahani: of Q, Q² and Q³ means 0, 1, 0 and variances 1, 2, 3."""
    made = matrices(3000, 12)
    power = made
    for exponent, mean in ((1, 0.0), (2, 1.0), (3, 0.0)):
        traces = np.trace(power, axis1=1, axis2=2)
        assert abs(traces.mean() - mean) < 4 * math.sqrt(exponent / 3000), exponent
        assert abs(traces.var() / exponent - 1) < 4 * math.sqrt(2 / 3000), exponent
        normal = (traces - mean) / math.sqrt(exponent)
        assert distance(normal, normal_cumulative) < 1.95, exponent
        power = power @ made


def test_a_fixed_turn_leaves_the_distribution() -> None:
    """Haar measure's definition, from both sides."""
    made = matrices(3000, 6)
    turn = matrices(1, 6, "turn")[0]
    for turned in (turn @ made, made @ turn):
        traces = np.trace(turned, axis1=1, axis2=2)
        assert abs(traces.mean()) < 4 / math.sqrt(3000)
        assert abs(traces.var() - 1) < 4 * math.sqrt(2 / 3000)


def test_large_matrices_have_gaussian_entries() -> None:
    made = matrices(1, 192)[0] * math.sqrt(192)
    assert distance(made, normal_cumulative) < 1.95
    for part in (made[0], made[-1], made[:, 0], made[:, -1], made[-1, -8:]):
        assert distance(part, normal_cumulative) < 1.95


def test_permutations_are_uniform() -> None:
    orders = derive_permutation_matrix(KEY, "uniform", 4, 4800).argmax(2).tolist()
    counts = [orders.count(list(order)) for order in itertools.permutations(range(4))]
    assert sum(counts) == 4800
    chi_squared = sum((count - 200) ** 2 / 200 for count in counts)
    assert chi_squared < 49.7  # 23 degrees of freedom, once in 1000


# -- what depends on what ---------------------------------------------------------------


@given(st.integers(1, 60), st.text(max_size=5))
@settings(max_examples=30, deadline=None)
def test_permutations_are_permutations(size: int, label: str) -> None:
    order = derive_permutation(KEY, label, size)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(size))
    matrix = derive_permutation_matrix(KEY, label, size)
    things = torch.arange(size, dtype=torch.float64) + 5
    assert torch.equal(matrix[0] @ things, things[order])


@pytest.mark.parametrize("derive", MAPS)
def test_the_same_key_and_label_give_the_same_map(derive: Derive) -> None:
    first = derive(KEY, "a", 12, 3)
    assert (first.shape, first.dtype) == ((3, 12, 12), torch.float64)
    assert torch.equal(first, derive(Key.from_bytes(bytes(range(32))), "a", 12, 3))
    assert torch.equal(first[:1], derive(KEY, "a", 12))


@pytest.mark.parametrize("derive", MAPS)
def test_keys_labels_and_places_in_a_row_give_unlike_maps(derive: Derive) -> None:
    labels = ["", "a", "a/0", "0/a", "1/a", "/a", "ab"]
    made = [
        *(one for label in labels for one in derive(KEY, label, 16, 3)),
        *derive(OTHER, "a", 16, 3),
        *derive(KEY.subkey("ab"), "c", 16),
        *derive(KEY.subkey("a"), "bc", 16),
    ]
    for first, second in itertools.combinations(made, 2):
        # Independent matrices overlap by about 1: the trace of A B^T.
        assert abs(float((first * second).sum())) < 8


def test_sizes_share_nothing() -> None:
    small, large = matrices(1, 8)[0], matrices(1, 9)[0]
    assert abs((small * large[1:, 1:]).sum()) < 5
    assert (
        derive_permutation(KEY, "a", 30)[:29].tolist() != derive_permutation(KEY, "a", 29).tolist()
    )


@pytest.mark.parametrize("size", [0, -1, float("nan")])
def test_sizes_that_are_none_are_refused(size: int) -> None:
    for derive in (*MAPS, derive_permutation):
        with pytest.raises(SettingsError, match="expected size of at least 1, got"):
            derive(KEY, "a", size)
    with pytest.raises(SettingsError, match="expected count of at least 1, got"):
        derive_orthogonal(KEY, "a", 4, size)


def test_a_size_without_the_bound_is_refused() -> None:
    with pytest.raises(SettingsError, match="side 1 to 4096, got 4097; take smaller blocks"):
        derive_orthogonal(KEY, "a", LARGEST_SIZE + 1)
