"""Blocks: torch's own order, slow oracles, and inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.encryption import slow_blocks, slow_mixed, slow_moved
from torch import Generator, Tensor

from scotoma.ops.blocks import (
    count_blocks,
    draw_orders,
    from_blocks,
    gather_entries,
    invert_index,
    map_blocks,
    map_vectors,
    mix_patches,
    move_blocks,
    pad_to_blocks,
    picture_index,
    to_blocks,
)

sides = st.integers(1, 4)


def _images(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, height, width, generator=Generator().manual_seed(seed))


def _permutations(size: int, *shape: int, seed: int = 0) -> Tensor:
    generator = Generator().manual_seed(seed)
    keys = torch.rand(*shape, size, generator=generator)
    return keys.argsort(-1)


@given(channels=st.integers(1, 4), block=sides, rows=sides, columns=sides)
def test_block_order_is_pixel_unshuffle(channels: int, block: int, rows: int, columns: int) -> None:
    images = _images(2, channels, rows * block, columns * block)
    blocks = to_blocks(images, block)
    assert torch.equal(blocks, F.pixel_unshuffle(images, block))
    assert torch.equal(from_blocks(blocks, block), images)
    for i, row in enumerate(slow_blocks(images[1].double().numpy(), block)):
        for j, vector in enumerate(row):
            assert np.array_equal(blocks[1, :, i, j].double().numpy(), vector)


def test_block_order_is_that_of_a_convolution() -> None:
    images, weight = _images(2, 3, 8, 12), torch.randn(5, 3, 4, 4)
    expected = F.conv2d(images, weight, stride=4)
    found = torch.einsum("dk,bkij->bdij", weight.flatten(1), to_blocks(images, 4))
    torch.testing.assert_close(found, expected)


@given(height=st.integers(1, 20), width=st.integers(1, 20), block=st.integers(1, 7))
def test_padding_is_zero_below_and_right(height: int, width: int, block: int) -> None:
    images = _images(1, 2, height, width)
    whole = pad_to_blocks(images, block)
    rows, columns = count_blocks(height, width, block)
    assert whole.shape == (1, 2, rows * block, columns * block)
    assert whole.shape[2] - height < block
    assert whole.shape[3] - width < block
    assert torch.equal(whole[..., :height, :width], images)
    assert whole[..., height:, :].count_nonzero() + whole[..., width:].count_nonzero() == 0


@given(
    down=sides,
    across=sides,
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    count=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_position_meets_its_own_map(
    down: int, across: int, rows: int, columns: int, count: int
) -> None:
    vectors = _images(count, 5, rows, columns).double()
    maps = torch.randn(down, across, 7, 5, dtype=torch.float64)
    found = map_vectors(vectors, maps)
    assert found.shape == (count, 7, rows, columns)
    for b in range(count):
        for i in range(rows):
            for j in range(columns):
                expected = maps[i % down, j % across] @ vectors[b, :, i, j]
                torch.testing.assert_close(found[b, :, i, j], expected)


def test_maps_may_add_planes() -> None:
    images, maps = _images(2, 3, 8, 8), torch.randn(1, 1, 5 * 16, 3 * 16)
    found = map_blocks(images, maps, 4)
    assert found.shape == (2, 5, 8, 8)
    expected = torch.einsum("ok,bkij->boij", maps[0, 0], F.pixel_unshuffle(images, 4))
    torch.testing.assert_close(F.pixel_unshuffle(found, 4), expected)


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("period", [(1, 1), (2, 3), (3, 4), (5, 5)])
def test_index_is_the_same_as_permutation_matrices(period: tuple[int, int], moves: bool) -> None:
    grid, block = (3, 4), 2
    sources = _permutations(12, *period)
    order = _permutations(12, seed=1) if moves else None
    images = _images(2, 3, 6, 8)
    moved = images if order is None else move_blocks(images, order, block)
    maps = F.one_hot(sources, 12).float()
    index = picture_index(sources, grid, block, order)
    found = gather_entries(images, index)
    assert torch.equal(found, map_blocks(moved, maps, block))
    assert torch.equal(gather_entries(found, invert_index(index)), images)


@given(block=sides, rows=sides, columns=sides, count=st.integers(1, 3), own=st.booleans())
@settings(deadline=None)
def test_blocks_move_whole(block: int, rows: int, columns: int, count: int, own: bool) -> None:
    images = _images(count, 3, rows * block, columns * block)
    orders = _permutations(rows * columns, count) if own else _permutations(rows * columns)
    moved = move_blocks(images, orders, block)
    for number in range(count):
        order = orders[number] if own else orders
        expected = slow_moved(images[number].double().numpy(), order.tolist(), block)
        assert np.array_equal(moved[number].double().numpy(), expected)
    back = orders.argsort(-1)
    assert torch.equal(move_blocks(moved, back, block), images)


def test_orders_are_drawn_picture_by_picture() -> None:
    generator, again = Generator().manual_seed(3), Generator().manual_seed(3)
    whole = draw_orders(5, 30, generator)
    split = torch.cat([draw_orders(2, 30, again), draw_orders(3, 30, again)])
    assert torch.equal(whole, split)
    assert (whole.sort(1).values == torch.arange(30)).all()
    assert len({tuple(order.tolist()) for order in whole}) == 5


@pytest.mark.parametrize("side", [2, 4])
def test_mixing_is_the_mean_of_parts(side: int) -> None:
    images = _images(2, 3, 16, 24)
    mixed = mix_patches(images, 8, side)
    for image, found in zip(images, mixed, strict=True):
        expected = slow_mixed(image.double().numpy(), 8, side)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_memory_layout_does_not_matter() -> None:
    images = _images(2, 3, 8, 8)
    strange = images.to(memory_format=torch.channels_last)
    maps, order = torch.randn(1, 1, 48, 48), _permutations(4)
    assert torch.equal(map_blocks(images, maps, 4), map_blocks(strange, maps, 4))
    assert torch.equal(move_blocks(images, order, 4), move_blocks(strange, order, 4))
    index = picture_index(_permutations(48, 1, 1), (2, 2), 4)
    assert torch.equal(gather_entries(images, index), gather_entries(strange, index))
