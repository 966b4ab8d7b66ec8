from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scotoma.compress.compensation import price_layer
from scotoma.compress.importance import find_importance, smooth_importance
from scotoma.compress.moments import find_moments
from scotoma.compress.pruning import prune_smallest
from scotoma.compress.quantization import price_tensor, round_tensor
from scotoma.compress.settings import CompressSettings
from scotoma.core.errors import SettingsError
from scotoma.models.compressed_tensors import GridTensor
from scotoma.ops.entropy_coding import encode_integers


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coded(tensor: GridTensor) -> int:
    codes = tensor.codes
    return len(encode_integers(codes, lowest=int(codes.min()), highest=int(codes.max())))


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        ).eval()


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_stays_within_half_a_step(bits: int, by_row: bool) -> None:
    weight = draw(6, 5, 3, 3) * torch.arange(1, 7).reshape(-1, 1, 1, 1)
    tensor = round_tensor(weight, bits=bits, by_row=by_row)
    top = 2 ** (bits - 1) - 1
    assert round(0.9 * top) <= np.abs(tensor.codes).max() <= top
    largest = weight.abs().amax((1, 2, 3), keepdim=True) if by_row else weight.abs().max()
    # Steps are powers of two to the eighth: up to a ninth larger than the finest that fits.
    assert bool(((tensor.values() - weight).abs() <= 0.5 * 1.091 * largest / top + 1e-6).all())
    assert tensor.exponents.shape == ((6,) if by_row else ())


def test_clipping_is_better_than_not_at_few_bits() -> None:
    weight = draw(64, 64)
    plain, searched = (round_tensor(weight, bits=3, search=search) for search in (False, True))
    error = [float((t.values() - weight).square().sum()) for t in (plain, searched)]
    assert error[1] < 0.7 * error[0]


def test_zeros_and_numbers_are_kept() -> None:
    for tensor in (torch.zeros(3, 4), torch.zeros(()), torch.zeros(0, 3)):
        assert torch.equal(round_tensor(tensor, bits=4).values(), tensor)
        assert torch.equal(price_tensor(tensor, tensor, 1.0).values(), tensor)


def test_a_dearer_bit_makes_fewer_of_them() -> None:
    weight, importance = draw(50, 60), torch.ones(50, 60)
    sizes, errors = [], []
    for price in (1e-4, 1e-3, 1e-2, 1e-1):
        tensor = price_tensor(weight, importance, price)
        sizes.append(coded(tensor))
        errors.append(float((tensor.values() - weight).square().mean()))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert sizes[-1] < sizes[0] / 3


def test_a_price_beats_equal_bits_where_importance_differs() -> None:
    weight = draw(60, 60)
    importance = torch.logspace(-3, 1, 60)[:, None].expand(60, 60)
    priced = price_tensor(weight, importance, 0.02)
    cost = float((importance * (priced.values() - weight).square()).sum())
    for bits in (2, 3, 4, 5):
        plain = round_tensor(weight, bits=bits, search=True)
        worse = float((importance * (plain.values() - weight).square()).sum())
        assert worse > cost or coded(plain) > coded(priced)


def test_rounding_later_weights_makes_up_for_earlier_ones() -> None:
    common = draw(4000, 1, seed=1)
    read = (common + 0.3 * draw(4000, 20, seed=2)).relu()
    weight, bias = draw(8, 20, seed=3), draw(8, seed=4)
    ones = torch.cat([read, torch.ones(4000, 1)], 1)
    moment = (ones.T @ ones / 4000)[None]
    made = price_layer(weight, bias, moment, torch.ones(8), 1e-3)
    assert made.bias is not None
    got = read @ made.weight.values().T + made.bias.values()
    expected = read @ weight.T + bias
    error = float((got - expected).square().mean())
    # The same steps without compensation, and the bias as it was.
    exponent = int(made.weight.exponents)
    alone = price_tensor(weight, moment[0].diagonal()[:-1].expand(8, 20), 1e-3, exponent=exponent)
    naive = float((read @ alone.values().T + bias - expected).square().mean())
    assert error < 0.5 * naive
    assert coded(made.weight) < 1.15 * coded(alone)


def test_groups_are_compensated_each_for_itself() -> None:
    layer = network()[2]
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    moments = find_moments(
        nn.Sequential(layer), [draw(6, 8, 9, 9).relu()], generator=torch.Generator().manual_seed(0)
    )
    moment = moments["0"]
    assert moment.shape == (4, 19, 19)
    fine = price_layer(layer.weight, layer.bias, moment, torch.ones(8), 1e-9)
    assert torch.allclose(fine.weight.values(), layer.weight, atol=1e-3)


def test_moments_are_those_of_what_outputs_read() -> None:
    linear = nn.Sequential(nn.Linear(5, 2)).eval()
    inputs = draw(40, 5)
    found = find_moments(linear, inputs.split(10), generator=torch.Generator())["0"]
    ones = torch.cat([inputs, torch.ones(40, 1)], 1)
    sampled = ones.T @ ones / 40
    # Second moments and means are the samples'; what goes together is believed as far as 40
    # samples of 6 numbers can be.
    assert torch.allclose(found[0].diagonal(), sampled.diagonal(), atol=1e-5)
    assert torch.allclose(found[0][-1], sampled[-1], atol=1e-5)
    together = torch.outer(sampled[-1], sampled[-1])
    apart = ~torch.eye(6, dtype=torch.bool)
    ratio = ((found[0] - together) / (sampled - together))[:-1, :-1][apart[:-1, :-1]]
    assert torch.allclose(ratio, torch.full_like(ratio, 40 / 46), rtol=1e-3)
    # Of a convolution whose picture is one window, every weight reads one pixel.
    convolution = nn.Sequential(nn.Conv2d(2, 3, 3)).eval()
    pictures = draw(7, 2, 3, 3)
    net = nn.Sequential(nn.ZeroPad2d(0), *convolution).eval()
    found = find_moments(net, [pictures], generator=torch.Generator().manual_seed(0))["1"]
    assert found.shape == (1, 19, 19)
    assert torch.allclose(found, found.transpose(1, 2))


def test_importance_foretells_what_a_moved_weight_does() -> None:
    net = network()
    inputs = 2 * draw(512, 3, 8, 8)
    importance = find_importance(net, inputs.split(4), generator=torch.Generator().manual_seed(0))
    assert not any(parameter.grad is not None for parameter in net.parameters())
    with torch.no_grad():
        before = net(inputs).log_softmax(1)
        name, index = "6.weight", (2, 3)
        net.get_parameter(name)[index] += 0.3
        after = net(inputs).log_softmax(1)
    divergence = float((before.exp() * (before - after)).sum(1).mean())
    foretold = 0.5 * float(importance[name][index]) * 0.3**2
    assert foretold == pytest.approx(divergence, rel=0.5)
    mean = smooth_importance(importance, share=1.0)[name]
    assert bool((mean.std(1) < 1e-7).all())


def test_pruning_removes_the_smallest_and_no_bias() -> None:
    weights = {"a": draw(40, 50), "b": 100 * draw(30, 20, seed=1), "c": draw(40)}
    found = prune_smallest(weights, 0.7)
    kernels = torch.cat([found[n].reshape(-1) for n in "ab"])
    assert float((kernels == 0).float().mean()) == pytest.approx(0.7, abs=0.01)
    assert torch.equal(found["c"], weights["c"])
    for name in "ab":
        gone, left = weights[name][found[name] == 0], weights[name][found[name] != 0]
        assert float(gone.abs().max()) <= float(left.abs().min())
        assert 0.6 < len(gone) / weights[name].numel() < 0.8
    assert torch.equal(prune_smallest(weights, 0.0)["a"], weights["a"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "expected one of budget, price and bits, got none"),
        ({"budget": 1.0, "bits": 8}, "got budget, bits"),
        ({"budget": 0.0}, "for no loss that could be measured"),
        ({"budget": float("nan")}, "budget"),
        ({"price": -1.0}, "price"),
        ({"bits": 1}, "2 to 16 bits"),
        ({"bits": 8, "prune": 1.0}, "prune"),
        ({"budget": 1.0, "prune": 0.5}, "expected bits beside prune"),
        ({"bits": 8, "held_out": 0}, "held_out"),
    ],
)
def test_refuses_settings(changes: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        CompressSettings(**changes)
