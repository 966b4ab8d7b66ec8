"""Layers of which the pictures tell little: channels never active, fewer samples than weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from scotoma.compress.compression import Pricing, put_tensors
from scotoma.compress.pictures import Pictures
from scotoma.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing((3, 12, 12), crop_pct=1.0)


def draw(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 3, 3, generator=generator)
    return (nn.functional.interpolate(coarse, 12, mode="bilinear") * 255).to(torch.uint8)


def moved(network: nn.Module, price: float) -> float:
    """Return how far answers to other pictures move, of the largest."""
    labels = torch.zeros(24, dtype=torch.int64)
    known = Pictures(draw(24, 1), labels, PREPROCESSING, are_labelled=False)
    rounded = copy.deepcopy(network)
    put_tensors(rounded, Pricing(network, known, seed=0).at(price))
    other = Pictures(draw(24, 2), labels, PREPROCESSING, are_labelled=False)
    with torch.no_grad():
        pairs = [(network(images), rounded(images)) for images, _ in other.batches()]
    before, after = (torch.cat(part) for part in zip(*pairs, strict=True))
    return float((before - after).abs().max() / before.abs().max())


def build(*layers: nn.Module) -> nn.Module:
    network = nn.Sequential(*layers).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return network


@pytest.mark.parametrize(("price", "most"), [(1e-8, 0.02), (1e-6, 0.2)])
def test_channels_that_are_never_active_do_not_ruin_the_others(price: float, most: float) -> None:
    network = build(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 64, 4),
    )
    network[0].bias[:3] = -100.0  # type: ignore[index, union-attr, operator]
    assert moved(network, price) < most


@pytest.mark.parametrize(("price", "most"), [(1e-8, 0.02), (1e-6, 0.2)])
def test_fewer_samples_than_weights_are_not_taken_at_their_word(price: float, most: float) -> None:
    network = build(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 100, 4))
    assert moved(network, price) < most
