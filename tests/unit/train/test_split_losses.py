"""The losses against slow, independent versions of themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from scotoma.core.errors import ModelError
from scotoma.train.split_losses import Prior, answer_loss, compressibility, label_loss, rounded


def test_compressibility_is_the_mean_cosine_of_slopes() -> None:
    latent = torch.randn(2, 3, 9, 6, dtype=torch.float64)
    values = latent.numpy()
    slopes = 0.5 * (np.diff(values, axis=3)[:, :, :-1] + np.diff(values, axis=2)[..., :-1])
    wanted = np.abs(dctn(slopes, axes=(2, 3), norm="ortho")).mean()
    assert float(compressibility(latent)) == pytest.approx(wanted)
    assert float(compressibility(torch.full((1, 2, 5, 5), 3.0))) == 0


def test_bits_are_those_of_a_logistic_distribution() -> None:
    prior = Prior(2)
    with torch.no_grad():
        prior.mean.copy_(torch.tensor([0.7, -3.0])[:, None, None])
        prior.log_scale.copy_(torch.tensor([0.5, -1.0])[:, None, None])
    places = torch.tensor([[[[-3.0, 0.0]], [[-2.0, 1.0]]]])
    found = float(prior.bits(places * 0.5, 0.5, torch.zeros_like(places)).detach())
    wanted = 0.0
    for channel, (mean, scale) in enumerate([(0.7, 0.5), (-3.0, -1.0)]):
        for place in places[0, channel, 0].tolist():
            spread = math.exp(scale) + 1e-3
            low, high = ((place + half - mean) / spread for half in (-0.5, 0.5))
            wanted -= math.log2(1 / (1 + math.exp(-high)) - 1 / (1 + math.exp(-low)))
    assert found == pytest.approx(wanted, rel=1e-4)


def test_chances_of_all_places_add_up_to_one() -> None:
    prior = Prior(1)
    places = torch.arange(-60.0, 61.0)[:, None, None, None]
    chances = 2 ** -prior.bits(places, 1.0, torch.zeros_like(places)).detach().double()
    assert float(chances[places.flatten().abs() < 15].sum()) == pytest.approx(1, abs=1e-4)


def test_bits_of_the_unlikeliest_are_finite_and_pull_back() -> None:
    prior = Prior(1)
    far = torch.tensor([[[[1e4]]], [[[-1e4]]]], requires_grad=True)
    bits = prior.bits(far, 1.0, torch.zeros_like(far))
    assert bool(bits.detach().isfinite().all())
    near = torch.tensor([[[[8.0]]], [[[-8.0]]]], requires_grad=True)
    prior.bits(near, 1.0, torch.zeros_like(near)).sum().backward()
    assert near.grad is not None
    assert near.grad.flatten()[0] > 0 > near.grad.flatten()[1]


def test_rounding_lets_gradients_through() -> None:
    latent = torch.tensor([0.3, 1.26, -0.9], requires_grad=True)
    sent = rounded(latent, 0.5)
    assert torch.allclose(sent, torch.tensor([0.5, 1.5, -1.0]))
    sent.sum().backward()
    assert latent.grad is not None
    assert torch.equal(latent.grad, torch.ones(3))
    assert rounded(latent, 0) is latent


def test_imitation_is_perfect_only_for_the_same_answers() -> None:
    logits = torch.randn(4, 10)
    assert float(answer_loss(logits, logits)) == pytest.approx(0, abs=1e-6)
    assert float(answer_loss(logits + 5, logits)) == pytest.approx(0, abs=1e-5)  # softmax's own
    assert float(answer_loss(logits * 2, logits)) > 1e-2
    maps = [torch.randn(2, 5, 8, 8), {"boxes": torch.randn(2, 7)}]
    worse = [maps[0] + 0.1, maps[1]]
    assert float(answer_loss(maps, maps)) == 0
    assert float(answer_loss(worse, maps)) > 0


def test_labels_need_logits() -> None:
    with pytest.raises(ModelError, match="answers"):
        label_loss([torch.zeros(2, 3)], torch.tensor([0, 1]))
