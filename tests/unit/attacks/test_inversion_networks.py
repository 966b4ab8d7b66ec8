"""What inverting networks read and rebuild: geometry from public settings, scale, invariants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.natural_pictures import make_natural
from torch import Generator, Tensor

from scotoma.attacks.inversion.geometry import Geometry
from scotoma.attacks.inversion.networks import (
    ARCHITECTURES,
    build_inverter,
    choose_width,
    invariant_facts,
)
from scotoma.core.errors import NotApplicableError, SettingsError, UnknownNameError
from scotoma.core.protocols import Release
from scotoma.ops.blocks import from_blocks, to_blocks


def release(shape: tuple[int, ...], size: list[int], **settings: Any) -> Release:
    return Release(torch.zeros(1, *shape), {"settings": settings, "input_size": size})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # One map for all blocks, the picture padded to whole ones.
        (
            release((3, 20, 24), [3, 18, 22], block=4),
            Geometry(3, 4, 4, 5, 6, 18, 22),
        ),
        # Mixing halves the sides, so a block of 8 pixels is 4 values across.
        (
            release((3, 16, 16), [3, 32, 32], block=8, sub_patches=4),
            Geometry(3, 4, 8, 4, 4, 32, 32),
        ),
        # More planes than a picture, maps that repeat every 2×3 blocks.
        (
            release((5, 16, 24), [3, 16, 24], block=4, period=[2, 3]),
            Geometry(5, 4, 4, 4, 6, 16, 24, (2, 3)),
        ),
        # A map for every position.
        (
            release((3, 16, 24), [3, 16, 24], block=4, period=None),
            Geometry(3, 4, 4, 4, 6, 16, 24, (4, 6)),
        ),
        # No blocks at all.
        (release((3, 18, 22), [3, 18, 22], fill="blur"), Geometry(3, 4, 4, 5, 6, 18, 22)),
    ],
)
def test_geometry_is_read_from_public_settings(given: Release, expected: Geometry) -> None:
    assert Geometry.of_release(given) == expected


def test_features_are_read_position_by_position() -> None:
    assert Geometry.of_features((64, 8, 8), (64, 60)) == Geometry(64, 1, 8, 8, 8, 64, 60)


@pytest.mark.parametrize(
    "given",
    [
        release((3, 20, 24), [3, 64, 22], block=4),
        release((3, 8, 16), [3, 32, 32]),
        release((3, 64, 64), [3, 32, 32]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(given: Release) -> None:
    with pytest.raises(NotApplicableError, match="expected"):
        Geometry.of_release(given)


def test_cells_must_cover_the_picture() -> None:
    with pytest.raises(SettingsError, match="cover"):
        Geometry(3, 4, 4, 2, 2, 9, 8)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("other_key", [False, True])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(3, 4, 4, 5, 6, 18, 22),
        Geometry(3, 4, 8, 4, 4, 32, 32),
        Geometry(5, 2, 2, 4, 7, 8, 14, (2, 3)),
        Geometry(64, 1, 8, 4, 4, 32, 30),
        Geometry(3, 4, 4, 3, 3, 12, 12, moved=True),
    ],
)
def test_before_training_the_guess_is_the_mean_picture(
    architecture: str, other_key: bool, geometry: Geometry
) -> None:
    shape = (geometry.channels, geometry.rows * geometry.side, geometry.columns * geometry.side)
    data = torch.randn(6, *shape, generator=Generator().manual_seed(0))
    base = torch.rand(3, geometry.height, geometry.width)
    network = build_inverter(
        architecture, geometry, data, base, width=32, depth=1, other_key=other_key
    )
    assert torch.equal(network(data), base.expand(6, -1, -1, -1))
    # It is not stuck there: the first step reaches what makes the guess.
    network(data).sum().backward()
    assert network.head.weight.grad is not None
    assert float(network.head.weight.grad.abs().max()) > 0


def test_without_a_mean_picture_the_guess_starts_from_the_input() -> None:
    geometry = Geometry(4, 4, 4, 2, 2, 8, 8)
    data = torch.rand(3, 4, 8, 8)
    network = build_inverter("conv", geometry, data, None, width=32, depth=1)
    assert torch.equal(network(data), data[:, :3])


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'conv'"):
        build_inverter("convs", Geometry(3, 4, 4, 2, 2, 8, 8), torch.rand(1, 3, 8, 8), None)


def test_width_grows_with_blocks_within_bounds() -> None:
    widths = [choose_width(Geometry(3, side, side, 2, 2, side, side)) for side in (2, 4, 8, 16)]
    assert widths == sorted(widths)
    assert widths[0] >= 64
    assert widths[-1] == 384
    assert all(width % 32 == 0 for width in widths)


def rotated(cells: Tensor) -> Tensor:
    rotation = torch.linalg.qr(torch.randn(48, 48, generator=Generator().manual_seed(1))).Q
    return torch.einsum("oi,bihw->bohw", rotation, cells)


def permuted(cells: Tensor) -> Tensor:
    return cells[:, torch.randperm(48, generator=Generator().manual_seed(1))]


def test_what_keys_leave_alone_is_left_alone() -> None:
    cells = to_blocks(make_natural(4, 16, seed=5), 4)
    facts = invariant_facts(cells)
    assert torch.allclose(invariant_facts(permuted(cells)), facts, atol=1e-5)
    turned = invariant_facts(rotated(cells))
    kept = [0, 1, *range(facts.shape[1] - 8, facts.shape[1])]  # length, products, angles
    assert torch.allclose(turned[:, kept], facts[:, kept], atol=1e-4)
    assert not torch.allclose(turned, facts, atol=1e-2)  # a rotation moves the quantiles


def test_neighbours_are_where_they_should_be() -> None:
    """One bright cell has an inner product with the cells next to it, and no others."""
    cells = torch.zeros(1, 4, 5, 5)
    cells[..., 2, 2] = 1
    cells[..., 2, 3] = 2
    products = invariant_facts(cells)[0, -8:-4]
    assert float(products[0, 2, 2]) == 2  # the cell to the right
    assert float(products[0].sum()) == 2
    assert float(products[1].sum()) == 0  # nothing below


def test_whitening_makes_all_directions_count_alike() -> None:
    pictures = make_natural(64, 16, seed=6)
    data = from_blocks(rotated(to_blocks(pictures, 4)), 4)
    geometry = Geometry(3, 4, 4, 4, 4, 16, 16)
    network = build_inverter("conv", geometry, data, pictures.mean(0), width=32, depth=1)
    vectors = network.reader(data).transpose(0, 1).flatten(1).double()
    covariance = torch.cov(vectors)
    off = covariance - covariance.diagonal().diag()
    assert float(off.abs().max()) < 0.05
    assert float(covariance.diagonal().median()) > 0.3


def test_few_pictures_do_not_blow_up_unseen_directions() -> None:
    pictures = make_natural(40, 16, seed=7)
    geometry = Geometry(3, 8, 8, 2, 2, 16, 16)
    network = build_inverter("conv", geometry, pictures[:2], pictures.mean(0), width=32, depth=1)
    assert float(network.reader(pictures).abs().max()) < 100
