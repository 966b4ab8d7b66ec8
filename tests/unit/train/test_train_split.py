"""Training a private bottleneck: what it changes, what it leaves alone, and that it resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.natural_pictures import make_natural
from support.tiny_models import CLASSES, make_picture
from torch import Tensor, nn

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.models.split_model import SplitModel, load_split
from scotoma.train.data import LabelledPictures
from scotoma.train.hardware import Share
from scotoma.train.recipe_files import load_recipe, recipe_names
from scotoma.train.sources import MemorySource
from scotoma.train.split import Recipe, logits_of, train

_AT = "blocks.0"
_SMALL = Recipe(
    channels=4,
    hidden=8,
    epochs=2,
    batch_size=16,
    learning_rate=5e-3,
    task="answers",
    calibration=32,
)
_CONTESTED = replace(
    _SMALL, adversaries=("recnet", "dense"), reconstruction=3.0, restart_epochs=1, adversary_width=8
)


@pytest.fixture(scope="module")
def classifier(tiny_files: tuple[Path, Path]) -> Classifier:
    return load_classifier(f"scotoma:{tiny_files[0]}")


@pytest.fixture(scope="module")
def source(classifier: Classifier) -> MemorySource:
    images = torch.stack(
        [torch.from_numpy(make_picture(seed, 32, 32)).permute(2, 0, 1) for seed in range(64)]
    )
    labels = torch.arange(64) % len(CLASSES)
    return MemorySource(LabelledPictures(images, labels, CLASSES), classifier.preprocessing)


def _all(source: MemorySource) -> Tensor:
    return torch.cat([images for images, _ in source.evaluation(Share())])


def _trained(
    classifier: Classifier, source: MemorySource, folder: Path, recipe: Recipe
) -> SplitModel:
    path = folder / "split.safetensors"
    train(classifier, _AT, source, path, recipe)
    return load_split(path)


def _explained(model: SplitModel, source: MemorySource) -> float:
    """Return what share of the cells' mean colours a linear map of the latent gives."""
    images = _all(source).double()
    latents = model.encode(images.float()).double()
    cells = torch.nn.functional.avg_pool2d(images, images.shape[-1] // latents.shape[-1])
    known = latents.permute(0, 2, 3, 1).flatten(0, 2)
    known = torch.cat([known, torch.ones(len(known), 1)], 1)
    wanted = cells.permute(0, 2, 3, 1).flatten(0, 2)
    guess = known @ torch.linalg.lstsq(known, wanted).solution
    return 1 - float((wanted - guess).square().mean() / wanted.var(0).mean())


def _entropy(model: SplitModel, source: MemorySource) -> float:
    shares = torch.bincount(model.encode(_all(source)).flatten().long()).double()
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * shares.log2()).sum())


def test_a_stopped_training_ends_in_the_same_weights(
    classifier: Classifier, source: MemorySource, tmp_path: Path
) -> None:
    recipe = replace(_CONTESTED, alone_epochs=1, epochs=3, rate=0.1, step=1.0)
    whole, halved = tmp_path / "whole.safetensors", tmp_path / "halved.safetensors"
    checkpoint = tmp_path / "checkpoint"
    history = train(classifier, _AT, source, whole, recipe, test=source)

    class StopError(Exception):
        pass

    def stop(epoch: object) -> None:
        if getattr(epoch, "number", 0) == 2:
            raise StopError

    with pytest.raises(StopError):
        train(classifier, _AT, source, halved, recipe, checkpoint=checkpoint, on_epoch=stop)
    assert checkpoint.exists()
    train(classifier, _AT, source, halved, recipe, checkpoint=checkpoint)
    assert not checkpoint.exists()
    assert whole.read_bytes() == halved.read_bytes()
    assert [epoch.number for epoch in history] == [1, 2, 3, 4]
    assert all(epoch.score is not None and 0 <= epoch.score <= 1 for epoch in history)


def test_a_checkpoint_of_another_recipe_is_refused(
    classifier: Classifier, source: MemorySource, tmp_path: Path
) -> None:
    path, checkpoint = tmp_path / "split.safetensors", tmp_path / "checkpoint"

    def stop(epoch: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(classifier, _AT, source, path, _SMALL, checkpoint=checkpoint, on_epoch=stop)
    with pytest.raises(SettingsError, match="another recipe"):
        train(classifier, _AT, source, path, replace(_SMALL, seed=1), checkpoint=checkpoint)
    with pytest.raises(SettingsError, match="another recipe"):
        train(classifier, "blocks.1", source, path, _SMALL, checkpoint=checkpoint)


def test_the_plain_network_stays_as_it_is(
    classifier: Classifier, source: MemorySource, tmp_path: Path
) -> None:
    assert isinstance(classifier.network, nn.Module)
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    _trained(classifier, source, tmp_path, _CONTESTED)
    after = classifier.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(weight.requires_grad for weight in classifier.network.parameters())


def test_training_learns_the_plain_networks_answers(
    classifier: Classifier, source: MemorySource, tmp_path: Path
) -> None:
    few = _trained(classifier, source, tmp_path, replace(_SMALL, epochs=1, learning_rate=1e-6))
    many = _trained(classifier, source, tmp_path, replace(_SMALL, epochs=40))
    images = _all(source)
    wanted = classifier.logits(images).argmax(1)
    kept = [float((model(images).argmax(1) == wanted).double().mean()) for model in (few, many)]
    assert kept[1] > 0.8
    assert kept[1] > kept[0] + 0.2


def test_adversaries_leave_less_of_the_picture(classifier: Classifier, tmp_path: Path) -> None:
    images = (make_natural(64, 32, seed=1) * 255).byte()
    pictures = LabelledPictures(images, torch.zeros(64, dtype=torch.int64), CLASSES)
    source = MemorySource(pictures, classifier.preprocessing)
    recipe = replace(_CONTESTED, epochs=30, adversary_rate=5e-3, sobel=0.0, restart_epochs=0)
    alone = replace(recipe, adversaries=(), reconstruction=0.0)
    left, free = (_trained(classifier, source, tmp_path, r) for r in (recipe, alone))
    assert _explained(left, source) < 0.5 * _explained(free, source)


def test_the_rate_leaves_fewer_bits(
    classifier: Classifier, source: MemorySource, tmp_path: Path
) -> None:
    free = _trained(classifier, source, tmp_path, replace(_SMALL, epochs=20, step=1.0))
    bound = _trained(classifier, source, tmp_path, replace(_SMALL, epochs=20, step=1.0, rate=3.0))
    assert _entropy(bound, source) < 0.7 * _entropy(free, source)


def test_labels_find_their_logits(classifier: Classifier, source: MemorySource) -> None:
    assert logits_of(source, classifier).tolist() == [0, 1, 2, 3, 4]
    few = MemorySource(
        LabelledPictures(torch.zeros(2, 3, 32, 32).byte(), torch.tensor([0, 1]), ("birch", "elm")),
        classifier.preprocessing,
    )
    assert logits_of(few, classifier).tolist() == [1, 4]
    few.classes = ("birch", "oak")
    with pytest.raises(SettingsError, match="oak"):
        logits_of(few, classifier)


@pytest.mark.parametrize("name", recipe_names("split"))
def test_packaged_recipes_load(name: str) -> None:
    assert load_recipe(Recipe, "split", name, seed=3).seed == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"rate": 1.0},
        {"learning_rate": float("nan")},
        {"levels": 1},
        {"adversaries": ("recnet",)},
        {"reconstruction": 1.0},
        {"sobel": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        Recipe(**wrong)  # type: ignore[arg-type]


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="recnet"):
        Recipe(adversaries=("recnt",), reconstruction=1.0)
    with pytest.raises(UnknownNameError, match="labels"):
        Recipe(task="label")
