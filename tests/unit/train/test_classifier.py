from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, nn

from scotoma.core.errors import SettingsError
from scotoma.models import saved
from scotoma.models.preprocessing import Preprocessing
from scotoma.train.classifier import Epoch, Recipe, accuracy, train
from scotoma.train.data import LabelledPictures

READ = Preprocessing((3, 16, 16), interpolation="bilinear", crop_pct=1.0)
RECIPE = Recipe(dim=8, depth=1, preprocessing=READ, epochs=3, batch_size=8, shift=2, seed=5)


class StoppedError(Exception):
    pass


def pictures(count: int = 20) -> LabelledPictures:
    """Reddish and bluish noise."""
    generator = Generator().manual_seed(0)
    images = torch.randint(0, 128, (count, 3, 16, 16), generator=generator)
    labels = torch.arange(count) % 2
    images[labels == 0, 0] += 127
    images[labels == 1, 2] += 127
    return LabelledPictures(images.to(torch.uint8), labels, ("red", "blue"))


def test_learns_what_is_easy(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=12, erase_probability=0.0)
    history = train(pictures(), tmp_path / "m.safetensors", recipe, test=pictures(60))
    assert [epoch.number for epoch in history] == list(range(1, 13))
    assert history[-1].loss < history[0].loss
    assert history[-1].test_accuracy == 1.0
    network, model = saved.load(tmp_path / "m.safetensors")
    assert (model.classes, model.preprocessing) == (("red", "blue"), READ)
    assert accuracy(network, pictures(60), READ) == 1.0


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train(pictures(), tmp_path / name, replace(RECIPE, seed=seed))
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
@pytest.mark.parametrize("bfloat16", [True, False])
def test_interrupted_and_resumed_is_never_interrupted(
    tmp_path: Path, steps: int, bfloat16: bool
) -> None:
    recipe = replace(RECIPE, bfloat16=bfloat16)
    whole = train(pictures(), tmp_path / "whole", recipe)
    checkpoint = tmp_path / "checkpoint"

    def interrupt(done: int, count: int) -> None:
        assert count == 6
        if done == steps + 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(pictures(), tmp_path / "parts", recipe, checkpoint=checkpoint, on_step=interrupt)
    assert checkpoint.exists()
    assert not (tmp_path / "parts").exists()
    torch.manual_seed(99)  # nothing may hang on the process' own generator
    history = train(pictures(), tmp_path / "parts", recipe, checkpoint=checkpoint)
    assert history == whole
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not checkpoint.exists()


def test_training_leaves_the_process_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train(pictures(), tmp_path / "m", replace(RECIPE, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def stop(_: Epoch) -> None:
    raise StoppedError


def test_a_checkpoint_of_another_recipe_or_other_pictures_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(StoppedError):
        train(pictures(), tmp_path / "m", RECIPE, checkpoint=checkpoint, on_epoch=stop)
    with pytest.raises(SettingsError, match="another recipe"):
        train(pictures(), tmp_path / "m", replace(RECIPE, seed=6), checkpoint=checkpoint)
    with pytest.raises(SettingsError, match="other pictures"):
        train(pictures(36), tmp_path / "m", RECIPE, checkpoint=checkpoint)


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(SettingsError, match="damaged"):
        train(pictures(), tmp_path / "m", RECIPE, checkpoint=tmp_path / "checkpoint")


def test_fewer_pictures_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    history = train(pictures(6), tmp_path / "m", replace(RECIPE, epochs=1))
    assert len(history) == 1


def test_accuracy_counts_and_restores_the_mode() -> None:
    class AlwaysRed(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return torch.tensor([1.0, 0.0]).expand(len(images), 2)

    network = AlwaysRed().train()
    assert accuracy(network, pictures(5), READ) == pytest.approx(3 / 5)
    assert accuracy(network, pictures(502), READ) == pytest.approx(0.5)
    assert network.training


@pytest.mark.parametrize(
    "changes", [{"epochs": 0}, {"batch_size": 1}, {"patch_size": 5}, {"learning_rate": -1.0}]
)
def test_refuses_recipes(changes: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        replace(RECIPE, **changes)
