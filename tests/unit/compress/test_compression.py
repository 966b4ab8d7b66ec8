from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from scotoma.compress.compression import Pricing, put_tensors, round_network
from scotoma.compress.pictures import Pictures, count_right
from scotoma.core.errors import SettingsError
from scotoma.models.compressed_tensors import FractionalTensor, GridTensor, write_tensors
from scotoma.models.preprocessing import Preprocessing
from scotoma.train.compressed import TuneSettings, fine_tune, fine_tune_float

PREPROCESSING = Preprocessing((3, 12, 12), crop_pct=1.0)


def pictures(count: int, seed: int, *, wrong: float = 0.0) -> Pictures:
    """Return pictures of two classes: stripes along, or across, under grain; some labels wrong.

    What learned from right labels alone is so sure that no weight seems to matter.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    stripes = 45 * (torch.arange(12) % 3 == 0).float()
    across = stripes.expand(count, 3, 12, 12)
    images = torch.where(labels[:, None, None, None] == 0, across, across.transpose(2, 3))
    images = images + 200 * torch.rand(count, 3, 12, 12, generator=generator)
    flipped = torch.rand(count, generator=generator) < wrong
    labels = torch.where(flipped, 1 - labels, labels)
    return Pictures(images.to(torch.uint8), labels, PREPROCESSING, are_labelled=True)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 2),
        ).eval()
    settings = TuneSettings(epochs=6, batch_size=32, float_rate=1e-2, shift=0)
    network.load_state_dict(fine_tune_float(network, pictures(600, 1, wrong=0.15), settings))
    assert count_right(network, pictures(300, 2)) > 240
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def pricing(trained: nn.Module) -> Pricing:
    return Pricing(trained, pictures(200, 3), seed=0)


def right(network: nn.Module, tensors: object) -> int:
    changed = copy.deepcopy(network)
    put_tensors(changed, tensors)  # type: ignore[arg-type]
    return count_right(changed, pictures(300, 2))


def test_the_price_decides_size_and_loss(trained: nn.Module, pricing: Pricing) -> None:
    cheap, dear = pricing.at(1e-7), pricing.at(1e-5)
    assert len(write_tensors(dear)) < 0.6 * len(write_tensors(cheap))
    assert right(trained, cheap) >= count_right(trained, pictures(300, 2)) - 3
    # Everything a network holds is there, and the network itself is as it was.
    assert cheap.keys() == trained.state_dict().keys()
    assert trained[0].weight.requires_grad is False


def test_is_smaller_than_equal_bits_at_no_more_loss(trained: nn.Module, pricing: Pricing) -> None:
    plain = round_network(trained, bits=8)
    priced = pricing.at(1e-6)
    assert len(write_tensors(priced)) < 0.6 * len(write_tensors(plain))
    assert right(trained, priced) >= right(trained, plain) - 3


def test_as_many_kernels_as_asked_become_fractional(trained: nn.Module, pricing: Pricing) -> None:
    tensors = pricing.at(1e-6, fractional=0.5)
    found = [t for t in tensors.values() if isinstance(t, FractionalTensor)]
    kernels = 8 * 3 + 8 * 8
    assert sum(int(t.mask.sum()) for t in found) == kernels // 2
    for tensor in found:
        assert not tensor.plain.codes[tensor.mask.astype(bool)].any()
    # The plain kernels make up for the fractional ones: without that far more is lost.
    assert right(trained, tensors) >= 240


def test_fine_tuning_moves_whole_numbers_until_the_network_answers(trained: nn.Module) -> None:
    wrong = dict(round_network(trained, bits=4))
    former = wrong["2.weight"]
    shuffled = np.random.default_rng(0).permutation(former.codes.reshape(-1))
    wrong["2.weight"] = replace(former, codes=shuffled.reshape(former.codes.shape))
    lost = right(trained, wrong)
    assert lost < 200
    settings = TuneSettings(epochs=4, batch_size=32, rate=0.1, shift=0)
    lesson = pictures(600, 1, wrong=0.15)
    tuned = fine_tune(trained, wrong, lesson, 1e-6, settings)
    assert right(trained, tuned) > 270
    for name, tensor in wrong.items():
        found = tuned[name]
        assert isinstance(found, GridTensor)
        assert (found.exponents == tensor.exponents).all()
    assert write_tensors(fine_tune(trained, wrong, lesson, 1e-6, settings)) == write_tensors(tuned)


def test_pruned_weights_stay_zero_and_filters_stay_filters(
    trained: nn.Module, pricing: Pricing
) -> None:
    settings = TuneSettings(epochs=1, batch_size=32, rate=0.5, shift=0)
    pruned = round_network(trained, bits=8, prune=0.5)
    tuned = fine_tune(trained, pruned, pictures(200, 1), 0.0, settings)
    before, after = pruned["2.weight"], tuned["2.weight"]
    assert isinstance(after, GridTensor)
    assert not after.codes[before.codes == 0].any()
    assert (after.codes != before.codes).any()
    tensors = pricing.at(1e-6, fractional=0.5)
    found = fine_tune(trained, tensors, pictures(200, 1), 1e-6, settings)["2.weight"]
    former = tensors["2.weight"]
    assert isinstance(found, FractionalTensor)
    assert isinstance(former, FractionalTensor)
    assert (found.mask == former.mask).all()
    assert not found.plain.codes[found.mask.astype(bool)].any()
    assert (found.plain.codes != former.plain.codes).any()


@pytest.mark.parametrize("bits", [4, 8])
def test_fine_and_coarse_steps_learn_alike(trained: nn.Module, bits: int) -> None:
    wrong = dict(round_network(trained, bits=bits))
    codes = np.random.default_rng(0).permutation(wrong["2.weight"].codes.reshape(-1))
    wrong["2.weight"] = replace(
        wrong["2.weight"], codes=codes.reshape(wrong["2.weight"].codes.shape)
    )
    settings = TuneSettings(epochs=4, batch_size=32, float_rate=1e-2, shift=0)
    lesson = pictures(600, 1, wrong=0.15)
    assert right(trained, wrong) < 200
    assert right(trained, fine_tune(trained, wrong, lesson, 0.0, settings)) > 270
    hardly = replace(settings, float_rate=1e-9)
    assert right(trained, fine_tune(trained, wrong, lesson, 0.0, hardly)) < 250


def test_a_stopped_lesson_goes_on(trained: nn.Module, pricing: Pricing, tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "state"
    tensors, lesson = pricing.at(1e-6), pictures(200, 1)
    settings = TuneSettings(epochs=3, batch_size=32)
    whole = fine_tune(trained, tensors, lesson, 1e-5, settings)

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(trained, tensors, lesson, 1e-5, settings, checkpoint=path, on_step=stop)
    steps: list[int] = []
    went_on = fine_tune(
        trained,
        tensors,
        lesson,
        1e-5,
        settings,
        checkpoint=path,
        on_step=lambda done, _: steps.append(done),
    )
    assert steps[0] == 7
    assert write_tensors(went_on) == write_tensors(whole)
    with pytest.raises(SettingsError, match="another recipe"):
        fine_tune(trained, tensors, lesson, 1e-4, settings, checkpoint=path)


@pytest.mark.parametrize(
    "changes", [{"epochs": 0}, {"rate": 0.0}, {"float_rate": float("nan")}, {"shift": -1}]
)
def test_refuses_lessons(changes: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        TuneSettings(**changes)
