"""Networks inside patches, and patches that look for their neighbours."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from scotoma.models.patch_networks import NeighbourMatching, PatchNetworkEmbed

ROWS, COLUMNS, SIDE = 3, 4, 8


def smooth_pictures(count: int, seed: int = 0) -> Tensor:
    """Pictures whose patches continue each other and are all different: sums of slow waves."""
    generator = Generator().manual_seed(seed)
    y = torch.linspace(0, 1, ROWS * SIDE)[:, None]
    x = torch.linspace(0, 1, COLUMNS * SIDE)[None, :]
    total = torch.zeros(count, 3, ROWS * SIDE, COLUMNS * SIDE)
    for _ in range(12):
        weight, down, across, phase = torch.randn(4, count, 3, 1, 1, generator=generator)
        total += weight * torch.sin(9 * (down * y + across * x) + 3 * phase)
    return total


def patches_of(images: Tensor) -> Tensor:
    cut = images.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)


def beliefs(patches: Tensor, sharpness: float = 2.0) -> tuple[Tensor, ...]:
    matching = NeighbourMatching(5, rounds=1).requires_grad_(False)
    matching.sharpness.fill_(sharpness)
    return matching._match(patches)


def test_neighbours_are_found_where_they_are() -> None:
    patches = patches_of(smooth_pictures(6))
    place = torch.arange(ROWS * COLUMNS).view(ROWS, COLUMNS)
    right, left, below, above = (belief[..., :-1].argmax(2) for belief in beliefs(patches))
    pairs = [
        (right[:, place[:, :-1]], place[:, 1:]),
        (left[:, place[:, 1:]], place[:, :-1]),
        (below[:, place[:-1]], place[1:]),
        (above[:, place[1:]], place[:-1]),
    ]
    for found, wanted in pairs:
        assert float((found == wanted).float().mean()) > 0.9


def test_what_is_noise_has_no_neighbours_to_find() -> None:
    noise = torch.randn(20, 3, ROWS * SIDE, COLUMNS * SIDE, generator=Generator().manual_seed(1))
    place = torch.arange(ROWS * COLUMNS).view(ROWS, COLUMNS)
    right = beliefs(patches_of(noise))[0][..., :-1].argmax(2)
    assert float((right[:, place[:, :-1]] == place[:, 1:]).float().mean()) < 0.25


def test_beliefs_are_shares_and_none_is_of_oneself() -> None:
    for belief in beliefs(patches_of(smooth_pictures(2))):
        assert belief.shape == (2, ROWS * COLUMNS, ROWS * COLUMNS + 1)
        torch.testing.assert_close(belief.sum(2), torch.ones(2, ROWS * COLUMNS))
        assert float(belief.diagonal(dim1=1, dim2=2).max()) < 1e-6


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_permuted_patches_give_permuted_tokens(rounds: int) -> None:
    torch.manual_seed(0)
    sides = (ROWS * SIDE, COLUMNS * SIDE)
    embed = PatchNetworkEmbed(sides, SIDE, 3, 10, width=6, rounds=rounds).eval()
    images = smooth_pictures(2)
    order = torch.randperm(ROWS * COLUMNS, generator=Generator().manual_seed(3))
    moved = patches_of(images)[:, order].unflatten(1, (ROWS, COLUMNS))
    moved = moved.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    with torch.no_grad():
        tokens, others = embed(images), embed(moved)
    assert not torch.allclose(tokens, others, atol=1e-3)
    torch.testing.assert_close(others, tokens[:, order], rtol=1e-4, atol=1e-5)


def test_a_patch_alone_decides_its_token() -> None:
    sides = (ROWS * SIDE, COLUMNS * SIDE)
    torch.manual_seed(0)
    embed = PatchNetworkEmbed(sides, SIDE, 3, 10, width=6).eval()
    images = smooth_pictures(1)
    changed = images.clone()
    changed[..., :SIDE, SIDE:] = 0
    with torch.no_grad():
        one, other = embed(images)[0], embed(changed)[0]
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1], atol=1e-3)


def test_flat_patches_give_finite_tokens() -> None:
    torch.manual_seed(0)
    embed = PatchNetworkEmbed((16, 16), 8, 3, 10, rounds=2)
    embed(torch.zeros(2, 3, 16, 16)).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in embed.parameters() if p.grad is not None)
