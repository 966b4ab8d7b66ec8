"""Neighbours found again: no reward for tricks, no punishment for twins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scotoma.core.errors import NotApplicableError
from scotoma.evaluate.metrics.jigsaw import neighbour_accuracy
from scotoma.ops.blocks import move_blocks

BLOCK = 8


def picture(rows: int = 4, columns: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((1, 3, rows * BLOCK, columns * BLOCK), generator=generator)


def score(guess: Tensor, original: Tensor) -> float:
    return float(neighbour_accuracy(guess, original, {"block": BLOCK}))


def moved(original: Tensor, order: list[int]) -> Tensor:
    return move_blocks(original, torch.tensor([order]), BLOCK)


def test_right_is_one_even_if_noisy() -> None:
    original = picture()
    noise = 0.1 * torch.randn(original.shape, generator=torch.Generator().manual_seed(1))
    assert score(original, original) == 1.0
    assert score((original + noise).clamp(0, 1), original) == 1.0


def test_a_row_moved_down_breaks_only_the_pairs_across_it() -> None:
    # 4 × 5: 16 pairs side by side, 15 one above the other. Rows 0 1 2 3 become 1 2 3 0.
    original = picture()
    rows = [range(5 * row, 5 * row + 5) for row in (1, 2, 3, 0)]
    shifted = moved(original, [place for row in rows for place in row])
    assert score(shifted, original) == pytest.approx((16 + 10) / 31)


def test_two_patches_swapped_lose_exactly_their_pairs() -> None:
    # 1 × 5: 0 1 2 3 4 becomes 0 3 2 1 4, which has no pair of the original.
    original = picture(1, 5)
    assert score(moved(original, [0, 3, 2, 1, 4]), original) == 0.0
    # 0 1 2 4 3 keeps two of four.
    assert score(moved(original, [0, 1, 2, 4, 3]), original) == 0.5


def test_mirrored_neighbours_are_not_neighbours() -> None:
    original = picture(1, 5)
    assert score(moved(original, [4, 3, 2, 1, 0]), original) == 0.0


def test_shuffled_patches_are_at_chance() -> None:
    generator = torch.Generator().manual_seed(2)
    found = [
        score(moved(original, torch.randperm(100, generator=generator).tolist()), original)
        for original in (picture(10, 10, seed) for seed in range(30))
    ]
    # Each pair is there with probability about 1/100.
    assert 0.005 < sum(found) / 30 < 0.02


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_guess_that_is_no_arrangement_gets_nothing(value: float) -> None:
    assert score(torch.full((1, 3, 32, 40), value), picture()) == 0.0


def test_one_pair_repeated_counts_once() -> None:
    original = picture(1, 6)
    repeated = torch.cat([original[..., : 2 * BLOCK]] * 3, dim=3)
    assert score(repeated, original) == pytest.approx(1 / 5)


def test_twins_stand_for_each_other() -> None:
    original = picture(2, 3)
    twin = original[..., :BLOCK, :BLOCK]
    original[..., BLOCK:, 2 * BLOCK :] = twin  # places 0 and 5
    assert score(moved(original, [5, 1, 2, 3, 4, 0]), original) == 1.0


def test_an_empty_sky_is_no_success() -> None:
    """Three quarters are one flat colour: only pairs with something in them count."""
    original = picture(8, 8)
    original[..., : 6 * BLOCK, :] = 0.7
    generator = torch.Generator().manual_seed(3)
    found = [
        score(moved(original, torch.randperm(64, generator=generator).tolist()), original)
        for _ in range(20)
    ]
    assert sum(found) / 20 < 0.3
    assert score(original, original) == 1.0
    flat = torch.full_like(original, 0.7)
    assert score(flat, flat) == 0.0
    assert score(flat, original) == 0.0


def test_releases_without_patches_are_refused() -> None:
    for context in ({}, {"block": None}, {"block": 64}):
        with pytest.raises(NotApplicableError, match="at least two patches"):
            neighbour_accuracy(picture(), picture(), context)
