from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.colours import StoppedError
from torch import Generator

from scotoma.core.errors import FileError, SettingsError
from scotoma.models.peyolos import PEYOLOS
from scotoma.ops.average_precision import Boxes, average_precision
from scotoma.ops.blocks import mix_patches
from scotoma.train.detection_data import BoxSource, Views, collate, read_boxes, take_view
from scotoma.train.hardware import Hardware, Share
from scotoma.train.loop import Epoch
from scotoma.train.peyolos import Recipe, detect, train
from scotoma.train.recipe_files import load_recipe, recipe_names

VIEWS = Views(shorter=(16, 24), longest=32, patch_size=8, crop_probability=0.5)
RECIPE = Recipe(
    hidden_size=16,
    layers=2,
    heads=2,
    mlp_size=32,
    detection_tokens=4,
    image_size=(24, 24),
    views=VIEWS,
    epochs=3,
    batch_size=4,
    learning_rate=1e-3,
    new_learning_rate=1e-3,
    seed=5,
)
CPU = Hardware("cpu", workers=1)
CLASSES = ("red", "blue")


def write_squares(folder: Path, count: int = 8) -> Path:
    """A COCO file of grey pictures with a red or a blue square at one of four places."""
    pictures, annotations = [], []
    for number in range(count):
        pixels = np.full((48, 48, 3), 127, np.uint8)
        x, y = 24 * (number % 2), 24 * (number // 2 % 2)
        pixels[y : y + 24, x : x + 24] = (255, 0, 0) if number % 3 else (0, 0, 255)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        pictures.append({"id": number, "file_name": f"{number}.png"})
        annotations.append(
            {"image_id": number, "bbox": [x, y, 24, 24], "category_id": 7 if number % 3 else 9}
        )
    categories = [{"id": 9, "name": "blue"}, {"id": 7, "name": "red"}]
    path = folder / "boxes.json"
    tables = {"images": pictures, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(tables))
    return path


def source(folder: Path, views: Views = VIEWS, count: int = 8) -> BoxSource:
    folder.mkdir(exist_ok=True)
    pictures, classes = read_boxes(write_squares(folder, count), folder)
    assert classes == CLASSES
    return BoxSource(pictures, views)


@pytest.mark.parametrize("release", ["mix", "shuffle", "plain"])
def test_learns(tmp_path: Path, release: str) -> None:
    views = replace(VIEWS, shorter=(32,), crop_probability=0.0)
    pictures = source(tmp_path / "pictures", views)
    recipe = replace(
        RECIPE,
        release=release,
        views=views,
        image_size=(32, 32),
        hidden_size=32,
        heads=4,
        mlp_size=64,
        epochs=40,
        batch_size=8,
        learning_rate=3e-3,
        new_learning_rate=3e-3,
        clip_norm=1.0,
    )
    history = train(pictures, CLASSES, tmp_path / "net", recipe, hardware=CPU)
    first, last = history[0].loss, sum(epoch.loss for epoch in history[-5:]) / 5
    assert last < 0.9 * first
    assert PEYOLOS.from_pretrained(tmp_path / "net").config.id2label == {0: "red", 1: "blue"}


def test_the_score_is_average_precision(tmp_path: Path) -> None:
    pictures = source(tmp_path / "pictures")
    recipe = replace(RECIPE, epochs=1)
    history = train(pictures, CLASSES, tmp_path / "net", recipe, test=pictures, hardware=CPU)
    network = PEYOLOS.from_pretrained(tmp_path / "net").eval()
    found, annotated = [], []
    for batch in pictures.evaluation(Share(), batch_size=1):
        found += detect(network, mix_patches(batch.images, 8, 2))
        centres, sides = batch.boxes[0].split(2, 1)
        corners = torch.cat([centres - sides / 2, centres + sides / 2], 1).double().numpy()
        annotated.append(Boxes(corners, batch.labels[0].numpy()))
    assert history[-1].score == pytest.approx(average_precision(found, annotated), abs=1e-9)
    perfect = [
        Boxes(boxes.corners, boxes.labels, np.ones(len(boxes.labels))) for boxes in annotated
    ]
    assert average_precision(perfect, annotated) == pytest.approx(1.0)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_interrupted_and_resumed_is_never_interrupted(tmp_path: Path, bfloat16: bool) -> None:
    recipe = replace(RECIPE, bfloat16=bfloat16)
    pictures = source(tmp_path / "pictures")
    whole = train(pictures, CLASSES, tmp_path / "whole", recipe, hardware=CPU)
    checkpoint = tmp_path / "checkpoint"

    def interrupt(done: int, count: int) -> None:
        assert count == 6
        if done == 4:
            raise StoppedError

    options: dict[str, Any] = {"checkpoint": checkpoint, "hardware": CPU}
    with pytest.raises(StoppedError):
        train(pictures, CLASSES, tmp_path / "parts", recipe, on_step=interrupt, **options)
    assert not (tmp_path / "parts").exists()
    torch.manual_seed(99)
    assert train(pictures, CLASSES, tmp_path / "parts", recipe, **options) == whole
    one, other = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")
    )
    assert one == other
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    pictures = source(tmp_path / "pictures")
    options: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint", "hardware": CPU}

    def stop(_: Epoch) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        train(pictures, CLASSES, tmp_path / "net", RECIPE, on_epoch=stop, **options)
    with pytest.raises(SettingsError, match="another recipe"):
        train(pictures, CLASSES, tmp_path / "net", replace(RECIPE, seed=6), **options)
    (tmp_path / "net").mkdir()
    with pytest.raises(FileError, match="expected a new folder"):
        train(pictures, CLASSES, tmp_path / "net", RECIPE, **options)


def test_new_parts_learn_at_their_own_rate(tmp_path: Path) -> None:
    pictures = source(tmp_path / "pictures")
    torch.manual_seed(0)
    first = train(pictures, CLASSES, tmp_path / "a", replace(RECIPE, epochs=1), hardware=CPU)
    assert len(first) == 1
    recipe = replace(RECIPE, release="mix", epochs=1, learning_rate=0.0, weight_decay=0.0, seed=6)
    weights = tmp_path / "a" / "model.safetensors"
    train(pictures, CLASSES, tmp_path / "b", recipe, weights=weights, hardware=CPU)
    before, after = (PEYOLOS.from_pretrained(tmp_path / name).state_dict() for name in "ab")
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("vit.embeddings.patch_embeddings.") for name in moved)


class TestViews:
    """How pictures and boxes are scaled, mirrored, cropped and put together."""

    def test_boxes_follow_their_pixels(self) -> None:
        # A white rectangle on black must fill its box in every view.
        pixels = np.zeros((90, 120, 3), np.uint8)
        corners = np.array([[30.0, 40.0, 70.0, 60.0]])
        pixels[40:60, 30:70] = 255
        picture = Image.fromarray(pixels)
        sizes = set()
        for seed in range(30):
            generator = Generator().manual_seed(seed)
            views = Views((64, 96), 160, 16, 0.5)
            image, moved, there = take_view(picture, corners, views, generator)
            sizes.add(tuple(image.shape))
            if not there[0]:
                continue
            mask = image[0] > 0.2
            x0, y0, x1, y1 = moved[0]
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            np.testing.assert_allclose(seen, [x0, y0, x1, y1], atol=1.6)
        assert len(sizes) > 2
        assert all(side % 16 == 0 for size in sizes for side in size[1:])

    def test_the_plain_view_is_the_same_each_time(self) -> None:
        picture = Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))
        one, boxes, _ = take_view(picture, np.array([[0.0, 0.0, 64.0, 48.0]]), VIEWS)
        other, _, _ = take_view(picture, np.zeros((0, 4)), VIEWS)
        assert torch.equal(one, other)
        assert one.shape == (3, 24, 32)
        np.testing.assert_allclose(boxes, [[0, 0, 32, 24]])

    def test_a_batch_has_one_canvas(self) -> None:
        corners = np.array([[2.0, 4.0, 6.0, 8.0]])
        label = np.array([1])
        none = np.zeros((0, 4)), np.zeros(0, np.int64)
        batch = collate([(torch.ones(3, 8, 16), corners, label), (torch.ones(3, 16, 8), *none)])
        assert batch.images.shape == (2, 3, 16, 16)
        assert float(batch.images[0, :, 8:].abs().sum() + batch.images[1, :, :, 8:].sum()) == 0
        np.testing.assert_allclose(batch.boxes[0], [[0.25, 0.375, 0.25, 0.25]])
        assert batch.boxes[1].shape == (0, 4)

    def test_the_same_views_on_any_number_of_workers(self, tmp_path: Path) -> None:
        pictures, _ = read_boxes(write_squares(tmp_path), tmp_path)
        kept = []
        for workers in (0, 2):
            loaded = BoxSource(pictures, VIEWS, workers=workers)
            kept.append([batch.images for batch in loaded.training(1, 4, 0, Share())])
        assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
        epoch = next(BoxSource(pictures, VIEWS).training(2, 4, 0, Share())).images
        assert epoch.shape != kept[0][0].shape or not torch.equal(epoch, kept[0][0])

    @pytest.mark.parametrize(
        "changes", [{"shorter": ()}, {"shorter": (4,)}, {"longest": 20}, {"crop_probability": 2}]
    )
    def test_refuses(self, changes: dict[str, Any]) -> None:
        with pytest.raises(SettingsError, match="expected"):
            replace(VIEWS, **changes)


class TestReading:
    """COCO files."""

    def test_crowds_and_empty_boxes_are_left_out(self, tmp_path: Path) -> None:
        path = write_squares(tmp_path, 2)
        data = json.loads(path.read_text())
        data["annotations"] += [
            {"image_id": 0, "bbox": [0, 0, 9, 9], "category_id": 7, "iscrowd": 1},
            {"image_id": 0, "bbox": [0, 0, 0, 9], "category_id": 7},
        ]
        path.write_text(json.dumps(data))
        pictures, classes = read_boxes(path, tmp_path)
        assert classes == CLASSES
        assert [picture.labels.tolist() for picture in pictures] == [[1], [0]]
        np.testing.assert_allclose(pictures[1].corners, [[24, 0, 48, 24]])

    @pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "categories": []}'])
    def test_refuses(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "boxes.json").write_text(text)
        with pytest.raises(FileError, match="expected"):
            read_boxes(tmp_path / "boxes.json", tmp_path)

    def test_a_picture_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        pictures = source(tmp_path)
        (tmp_path / "3.png").write_bytes(b"no picture")
        with pytest.raises(FileError, match=r"cannot read .*3\.png"):
            list(pictures.evaluation(Share()))


def test_packaged_recipes() -> None:
    assert recipe_names("peyolos") == ["coco", "train128"]
    coco = load_recipe(Recipe, "peyolos", "coco")
    assert (coco.new_learning_rate, coco.learning_rate, coco.epochs) == (1e-4, 1e-5, 150)
    assert coco.views == Views()
    assert coco.release == "mix"
    assert load_recipe(Recipe, "peyolos", "train128", release="plain").release == "plain"


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 0}, {"learning_rate": -1.0}, {"image_size": (4, 4)}, {"clip_norm": -1.0}],
)
def test_refuses_recipes(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        replace(RECIPE, **changes)
