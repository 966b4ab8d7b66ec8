"""Values spread over a picture: against a slow version, back again, and not to be read."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from scotoma.core.errors import SecretError, SettingsError
from scotoma.ops.diffusion import (
    LARGEST_GROUP,
    Diffusion,
    gather_values,
    group_size,
    spread_values,
)

SHAPE = (4, 6, 8)
SIZE = 4 * 6 * 8


def _random(group: int = 12, *, rounds: int = 2) -> Diffusion:
    generator = Generator().manual_seed(3)
    orders = torch.stack([torch.randperm(SIZE, generator=generator) for _ in range(rounds)])
    gauss = torch.randn(rounds, group, group, generator=generator, dtype=torch.float64)
    return Diffusion(orders, torch.linalg.qr(gauss).Q)


def _images(count: int) -> Tensor:
    return torch.randn(count, *SHAPE, generator=Generator().manual_seed(4), dtype=torch.float64)


def test_rounds_move_then_rotate_runs() -> None:
    diffusion, images = _random(), _images(3)
    expected = images.flatten(1).numpy()
    for order, matrix in zip(diffusion.orders.numpy(), diffusion.matrices.numpy(), strict=True):
        moved = np.stack([[row[source] for source in order] for row in expected])
        runs = [moved[:, start : start + 12] @ matrix.T for start in range(0, SIZE, 12)]
        expected = np.concatenate(runs, 1)
    spread = spread_values(images, diffusion.orders, diffusion.matrices)
    np.testing.assert_allclose(spread.flatten(1).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("group", [1, 12, SIZE])
def test_gathering_undoes_spreading(group: int) -> None:
    diffusion, images = _random(group), _images(3)
    spread = spread_values(images, diffusion.orders, diffusion.matrices)
    back = gather_values(spread, diffusion.inverse_orders, diffusion.matrices)
    torch.testing.assert_close(back, images, atol=1e-12, rtol=0)
    assert not torch.allclose(spread, images)


def test_two_rounds_reach_everywhere() -> None:
    diffusion = _random(16)
    image = torch.zeros(1, *SHAPE, dtype=torch.float64)
    image[0, 0, 0, 0] = 1
    spread = spread_values(image, diffusion.orders, diffusion.matrices)
    assert (spread != 0).float().mean() > 0.7
    assert spread.abs().max() < 0.6


def test_bits_do_not_depend_on_the_batch() -> None:
    diffusion, images = _random(), _images(5).float()
    orders, matrices = diffusion.orders, diffusion.matrices.float()
    whole = spread_values(images, orders, matrices)
    parts = [spread_values(part, orders, matrices) for part in images.split([1, 4])]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("size", "side"), [(200704, 256), (4096, 256), (64, 64), (262, 131)])
def test_groups_are_as_large_as_fits(size: int, side: int) -> None:
    assert group_size(size) == side <= LARGEST_GROUP


def test_secrets_stay() -> None:
    diffusion = _random()
    assert repr(diffusion) == "Diffusion(orders=(2, 192), group=12)"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(SecretError, match="derive it again"):
            leak(diffusion)


def test_what_would_lose_values_is_refused() -> None:
    whole = _random()
    for orders, matrices, message in (
        (whole.orders[:, :-1], whole.matrices, "divisor"),
        (whole.orders[:1], whole.matrices, "divisor"),
        (whole.orders.int(), whole.matrices, "int64"),
        (whole.orders, whole.matrices.float(), "float64"),
        (whole.orders.clamp(max=SIZE - 2), whole.matrices, "permutation"),
        (whole.orders, 1.01 * whole.matrices, "orthogonal"),
    ):
        with pytest.raises(SettingsError, match=message):
            Diffusion(orders, matrices)
