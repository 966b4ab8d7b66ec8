"""A split model sends bytes, answers from bytes alone, and survives its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scotoma.core.errors import ModelError, UnknownNameError
from scotoma.models.bottleneck import BottleneckSettings
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.models.split_model import (
    SplitModel,
    is_split,
    load_split,
    open_split,
    save_split,
)

_AT = "blocks.0"


@pytest.fixture(scope="module")
def classifier(tiny_files: tuple[Path, Path]) -> Classifier:
    return load_classifier(f"scotoma:{tiny_files[0]}")


def _images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def _network(classifier: Classifier) -> nn.Module:
    assert isinstance(classifier.network, nn.Module)
    return classifier.network


def _opened(classifier: Classifier, stride: int = 1) -> SplitModel:
    torch.manual_seed(0)
    bottleneck = BottleneckSettings(24, 5, 8, stride)
    model = open_split(classifier, _AT, bottleneck=bottleneck)
    model.fit_range([_images()])
    model.fit_coder([_images(32)])
    return model


def test_plain_features_as_bytes_decide_nearly_as_floats(classifier: Classifier) -> None:
    model = open_split(classifier, _AT)
    images = _images(64)
    model.fit_range([images])
    places = model.encode(images)
    assert places.dtype == torch.uint8
    assert places.shape == (64, *model.point.shape) == (64, *model.latent_shape)
    plain = classifier.logits(images)
    error = (model.answer(places) - plain).abs().max() / plain.abs().max()
    assert 0 < float(error) < 0.1


def test_the_server_reads_bytes_alone(classifier: Classifier) -> None:
    model = _opened(classifier)
    images = _images()
    places = model.encode(images)
    assert places.shape == (6, 5, 8, 8) == (6, *model.latent_shape)
    model.head = nn.Identity()  # the server has none
    assert torch.equal(model.answer(places), model.answer(places.clone()))
    assert model.answer(places).shape == (6, 5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_file_gives_back_the_same_bytes_and_answers(
    classifier: Classifier, tmp_path: Path, stride: int
) -> None:
    model = _opened(classifier, stride)
    path = tmp_path / "split.safetensors"
    save_split(path, model, _network(classifier))
    again = load_split(path)
    images = _images()
    assert is_split(path)
    assert again.description == model.description
    assert again.coder is not None
    assert model.coder is not None
    assert again.coder.digest == model.coder.digest
    assert torch.equal(again.encode(images), model.encode(images))
    places = model.encode(images)
    assert torch.equal(again.answer(places), model.answer(places))


def test_half_weights_keep_the_range_and_the_plain_network(
    classifier: Classifier, tmp_path: Path
) -> None:
    model = _opened(classifier)
    path, small = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    save_split(path, model, _network(classifier))
    save_split(small, model, _network(classifier), half=True)
    assert small.stat().st_size < path.stat().st_size
    again = load_split(small)
    assert torch.equal(again.quantizer.low, model.quantizer.low)
    images = _images()
    assert torch.equal(again.head(images), load_split(path).head(images))
    assert int((again.encode(images).int() - model.encode(images).int()).abs().max()) <= 2


def test_a_file_without_the_plain_network_takes_only_its_own(
    classifier: Classifier, tiny_files: tuple[Path, Path], tmp_path: Path
) -> None:
    nameless = replace(classifier, blueprint=None)
    model = _opened(nameless)
    path = tmp_path / "split.safetensors"
    save_split(path, model, _network(nameless))
    with pytest.raises(ModelError, match="--model"):
        load_split(path)
    other = load_classifier(f"scotoma:{tiny_files[1]}")
    with pytest.raises(ModelError, match="was trained for"):
        load_split(path, network=_network(other))
    again = load_split(path, network=_network(classifier))
    assert torch.equal(again.encode(_images()), model.encode(_images()))


def test_other_files_and_cuts_are_refused(
    classifier: Classifier, tiny_files: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="scotoma train split"):
        load_split(tiny_files[0])
    with pytest.raises(ModelError, match="expected"):
        load_split(tmp_path / "absent.safetensors")
    with pytest.raises(UnknownNameError, match="blocks"):
        open_split(classifier, "blocks.9")
    with pytest.raises(ModelError, match="24 channels"):
        open_split(classifier, _AT, bottleneck=BottleneckSettings(12, 3, 4))
    scores = replace(classifier, network=lambda images: images.mean((2, 3)))
    with pytest.raises(ModelError, match="network to cut"):
        open_split(scores, _AT)
