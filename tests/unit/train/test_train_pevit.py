from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.colours import StoppedError, reddish_and_bluish
from torch import Generator

from scotoma.core.errors import FileError, SettingsError, UnknownNameError
from scotoma.models import saved
from scotoma.models.pevit import PEViT
from scotoma.models.preprocessing import Preprocessing
from scotoma.train.hardware import Hardware, Share
from scotoma.train.loop import Epoch, Schedule, adamw
from scotoma.train.mixup import mix_batch, smooth_targets
from scotoma.train.pevit import Recipe, open_source, train
from scotoma.train.recipe_files import load_recipe, recipe_names
from scotoma.train.sources import MemorySource, order_of

READ = Preprocessing((3, 16, 16), interpolation="bilinear", crop_pct=1.0)
RECIPE = Recipe(
    embed_dim=16,
    depth=2,
    num_heads=2,
    patch_size=4,
    preprocessing=READ,
    epochs=3,
    batch_size=8,
    learning_rate=0.064,
    warmup_epochs=1.0,
    drop_path=0.2,
    shift=2,
    seed=5,
)
CPU = Hardware("cpu", workers=1)


def source(count: int = 20) -> MemorySource:
    return MemorySource(reddish_and_bluish(count), READ, shift=2, erase_probability=0.1)


@pytest.mark.parametrize("release", ["plain", "shuffle", "mix"])
def test_learns_what_is_easy(tmp_path: Path, release: str) -> None:
    recipe = replace(RECIPE, release=release, epochs=12, drop_path=0.0, half_weights=True)
    path = tmp_path / "m.safetensors"
    history = train(source(), path, recipe, test=source(60), hardware=CPU)
    assert [epoch.number for epoch in history] == list(range(1, 13))
    assert history[-1].loss < history[0].loss
    assert history[-1].score == 1.0
    network, model = saved.load(path)
    assert (model.classes, model.preprocessing) == (("red", "blue"), READ)
    pictures = reddish_and_bluish(60)
    images = torch.cat([batch for batch, _ in source(60).evaluation(Share())])
    assert torch.equal(network(images).argmax(1), pictures.labels)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        torch.manual_seed(len(name) + seed)  # nothing may hang on the process' own generator
        train(source(), tmp_path / name, replace(RECIPE, seed=seed), hardware=CPU)
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize("steps", [2, 3, 5])
@pytest.mark.parametrize("bfloat16", [True, False])
def test_interrupted_and_resumed_is_never_interrupted(
    tmp_path: Path, steps: int, bfloat16: bool
) -> None:
    recipe = replace(RECIPE, bfloat16=bfloat16)
    whole = train(source(), tmp_path / "whole", recipe, hardware=CPU)
    checkpoint = tmp_path / "checkpoint"

    def interrupt(done: int, count: int) -> None:
        assert count == 6
        if done == steps + 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(
            source(),
            tmp_path / "parts",
            recipe,
            checkpoint=checkpoint,
            hardware=CPU,
            on_step=interrupt,
        )
    assert checkpoint.exists()
    assert not (tmp_path / "parts").exists()
    torch.manual_seed(99)
    history = train(source(), tmp_path / "parts", recipe, checkpoint=checkpoint, hardware=CPU)
    assert history == whole
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not checkpoint.exists()


def test_training_leaves_the_process_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train(source(), tmp_path / "m", replace(RECIPE, epochs=2), hardware=CPU)
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    def stop(_: Epoch) -> None:
        raise StoppedError

    options: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint", "hardware": CPU}
    with pytest.raises(StoppedError):
        train(source(), tmp_path / "m", RECIPE, on_epoch=stop, **options)
    with pytest.raises(SettingsError, match="another recipe"):
        train(source(), tmp_path / "m", replace(RECIPE, release="mix"), **options)
    with pytest.raises(SettingsError, match="other pictures"):
        train(source(36), tmp_path / "m", RECIPE, **options)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    recipe = replace(RECIPE, learning_rate=1e9, bfloat16=False, clip_norm=0.0, epochs=4)
    with pytest.raises(SettingsError, match="finite loss"):
        train(source(), tmp_path / "m", recipe, hardware=CPU)
    assert not (tmp_path / "m").exists()


def test_starts_from_pretrained_weights(tmp_path: Path) -> None:
    arguments = RECIPE.arguments(2)
    network = PEViT(**{**arguments, "release": "plain"})
    path = tmp_path / "vit.pth"
    torch.save(network.state_dict(), path)
    recipe = replace(RECIPE, epochs=2, learning_rate=1e-9)
    train(source(), tmp_path / "m.safetensors", recipe, weights=path, hardware=CPU)
    trained, _ = saved.load(tmp_path / "m.safetensors")
    before = network.blocks[0].mlp.fc1.weight
    torch.testing.assert_close(trained.get_parameter("blocks.0.mlp.fc1.weight"), before)


def folder_of(tmp_path: Path, count: int) -> Path:
    pictures = reddish_and_bluish(count)
    for number, (image, label) in enumerate(zip(pictures.images, pictures.labels, strict=True)):
        path = tmp_path / pictures.classes[int(label)] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return tmp_path


def test_pictures_read_as_needed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures", 20)
    recipe = replace(RECIPE, auto_augment="rand-m9-mstd0.5-inc1", epochs=2)
    for name in "ab":
        files = open_source(folder, recipe, workers=1)
        assert (files.classes, files.count) == (("blue", "red"), 20)
        history = train(files, tmp_path / name, recipe, test=files, hardware=CPU)
        assert history[-1].score is not None
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    whole = open_source(folder, RECIPE)
    one, other = next(files.evaluation(Share())), next(whole.evaluation(Share()))
    torch.testing.assert_close(one[0], other[0].contiguous(), rtol=0, atol=1e-6)
    assert torch.equal(one[1], other[1])
    (folder / "red" / "000.png").write_bytes(b"no picture")
    with pytest.raises(FileError, match="cannot read"):
        list(files.evaluation(Share()))


def test_devices_share_each_batch() -> None:
    whole = order_of(100, 3, 8, 0, Share())
    parts = [order_of(100, 3, 8, 0, Share(rank, 2)) for rank in range(2)]
    assert len(whole) == 12
    for batch, one, other in zip(whole, *parts, strict=True):
        assert torch.equal(torch.stack([one, other], 1).flatten(), batch)
    assert len(torch.cat(whole).unique()) == 96
    assert not torch.equal(torch.cat(whole), torch.cat(order_of(100, 4, 8, 0, Share())))
    assert [len(batch) for batch in order_of(6, 0, 8, 0, Share())] == [6]


def test_mixup_and_cutmix_mix_pictures_as_they_mix_targets() -> None:
    # A picture of value 1 and one of value 0 mix to their share everywhere (mixup) or, as a
    # mean over the picture, in area (cutmix).
    images = torch.cat([torch.ones(4, 3, 8, 8), torch.zeros(4, 3, 8, 8)])
    targets = smooth_targets(torch.tensor([0] * 4 + [1] * 4), 2, 0.0)
    for seed in range(8):
        for mixup, cutmix in ((0.8, 0.0), (0.0, 1.0), (0.8, 1.0)):
            generator = Generator().manual_seed(seed)
            mixed, labels = mix_batch(
                images, targets, mixup=mixup, cutmix=cutmix, generator=generator
            )
            torch.testing.assert_close(mixed.mean((1, 2, 3)), labels[:, 0])
            cuts = set(mixed.unique().tolist()) <= {0.0, 1.0}
            assert cuts or cutmix < 1 or mixup > 0
    same = mix_batch(images, targets, mixup=0, cutmix=0, generator=Generator())
    assert same[0] is images


def test_smoothing_is_torchs() -> None:
    logits = torch.randn(5, 4, generator=Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0])
    own = torch.nn.functional.cross_entropy(logits, smooth_targets(labels, 4, 0.1))
    torchs = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(own, torchs)


def test_the_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(10, 2.0, 0.1)
    assert [schedule.factor(epoch) for epoch in (0, 1, 2)] == [0, 0.5, 1.0]
    assert schedule.factor(6) == pytest.approx(0.55)
    assert schedule.factor(10) == pytest.approx(0.1)


def test_only_matrices_decay() -> None:
    network = PEViT(img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=2)
    groups = adamw(network, lambda _: 1.0, 0.1).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in decayed}
    assert "blocks.0.attn.qkv.weight" in names
    assert not {"cls_token", "head.bias", "norm.weight", "reference.reference"} & names


class TestRecipes:
    def test_every_packaged_recipe_is_whole(self) -> None:
        assert recipe_names("pevit") == ["cifar10", "imagenet-base", "imagenet-small"]
        for name in recipe_names("pevit"):
            recipe = load_recipe(Recipe, "pevit", name, release="mix")
            assert recipe.release == "mix"

    def test_the_papers_is_deits(self) -> None:
        recipe = load_recipe(Recipe, "pevit", "imagenet-base")
        assert (recipe.embed_dim, recipe.num_heads, recipe.epochs) == (768, 12, 300)
        assert (recipe.learning_rate, recipe.warmup_epochs) == (5e-4, 5)
        assert (recipe.mixup, recipe.cutmix, recipe.label_smoothing) == (0.8, 1.0, 0.1)
        assert recipe.drop_path == 0.1

    def test_a_users_own(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text("depth = 3\n[preprocessing]\ninput_size = [3, 64, 64]\n")
        recipe = load_recipe(Recipe, "pevit", str(path))
        assert (recipe.depth, recipe.preprocessing.input_size) == (3, (3, 64, 64))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("dept = 3", "did you mean 'depth'"),
            ("depth = ", "expected a recipe as TOML"),
            ("learning_rate = nan", "positive learning rate"),
            ("patch_size = 5", "patch size that divides"),
            ("epochs = 3", "warm-up shorter"),
            ("mixup = -1", "mixup"),
            ("drop_path = 1.0", "drop_path"),
            ('depth = 3\nepochs = "3"', "cannot be used"),
        ],
    )
    def test_refuses(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        with pytest.raises(SettingsError, match=message):
            load_recipe(Recipe, "pevit", str(path))

    def test_unknown_name(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
            load_recipe(Recipe, "pevit", "cifar")


def test_refuses_hardware_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected hardware that is here"):
        train(source(), tmp_path / "m.safetensors", RECIPE, hardware=Hardware("no such thing"))
    with pytest.raises(SettingsError, match="1 or more devices"):
        Hardware(devices=0)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures", 40)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        "embed_dim = 16\ndepth = 1\nnum_heads = 2\npatch_size = 4\nepochs = 3\nbatch_size = 8\n"
        "learning_rate = 0.064\nwarmup_epochs = 1.0\nmixup = 0.0\ncutmix = 0.0\n"
        "drop_path = 0.0\nerase_probability = 0.0\nbfloat16 = false\n"
        "[preprocessing]\ninput_size = [3, 16, 16]\ncrop_pct = 1.0\n"
    )
    for devices in (1, 2):
        command = [sys.executable, "-m", "scotoma", "train", "pevit", str(folder)]
        command += ["--test", str(folder), "--recipe", str(recipe), "--accelerator", "cpu"]
        command += ["--devices", str(devices), "-o", str(tmp_path / f"{devices}.safetensors")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert done.stdout.count("written to") == 1
        assert done.stdout.count("epoch 3/3") == 1
        assert "accuracy 1.0000" in done.stdout
    one, two = (saved.load(tmp_path / f"{devices}.safetensors")[0] for devices in (1, 2))
    # Each process mirrors its own share of a batch, so the runs are alike, not the same.
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert float((a - b).norm()) < 0.5 * float(a.norm()) + 0.1, name
