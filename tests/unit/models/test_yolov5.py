"""YOLOv5 from its table: the published sizes, its boxes, and the cut the literature makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from scotoma.core.errors import ModelError, SettingsError
from scotoma.models.letterbox import Letterbox
from scotoma.models.splits import Splitter
from scotoma.models.yolov5 import STRIDES, YOLOv5, YOLOv5Config, load_yolov5
from scotoma.models.yolov5_pictures import find_boxes
from scotoma.ops.average_precision import Boxes, average_precision


# The sizes that the detector's authors publish, of 80 classes, before layers are fused.
@pytest.mark.parametrize(("size", "parameters"), [("n", 1872157), ("s", 7235389), ("m", 21190557)])
def test_each_size_has_the_published_number_of_parameters(size: str, parameters: int) -> None:
    with torch.device("meta"):
        network = YOLOv5(YOLOv5Config(size))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_a_map_for_each_stride() -> None:
    network = YOLOv5(YOLOv5Config("n", classes=3)).eval()
    maps = network(torch.zeros(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 3, 64 // s, 96 // s, 8) for s in STRIDES]


def test_size_and_classes_follow_from_the_weights(tmp_path: Path) -> None:
    network = YOLOv5(YOLOv5Config("n", classes=3))
    path = tmp_path / "weights.safetensors"
    save_file({name: value.half() for name, value in network.state_dict().items()}, path)
    loaded = load_yolov5(path)
    assert loaded.config == YOLOv5Config("n", classes=3)
    assert next(loaded.parameters()).dtype == torch.float32
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="expected weights of YOLOv5 n, s or m"):
        load_yolov5(path)


def test_it_is_cut_after_layer_four_exactly() -> None:
    torch.manual_seed(0)
    network = YOLOv5(YOLOv5Config("n", classes=2)).eval().requires_grad_(False)
    splitter = Splitter(network, (3, 64, 64))
    images = torch.rand(3, 3, 64, 64)
    clean = [point.name for point in splitter.points if not point.crossing]
    parts = splitter.cut("model.4")
    assert parts.point.shape == (64, 8, 8)
    sent = parts.head(images)
    assert all(map(torch.equal, parts.tail(sent), network(images)))
    # model.4 is read again by model.16: behind it there is no clean cut any more.
    assert clean[-1] == "model.4"
    crossing = {point.name: point.crossing for point in splitter.points}
    assert crossing["model.5"] == ("model.4",)
    assert crossing["model.9"] == ("model.4", "model.6")


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (64, 64), (1, 500)])
def test_boxes_come_back_to_where_they_were_in_the_picture(size: tuple[int, int]) -> None:
    image, placement = Letterbox(64).read(Image.new("RGB", size, (255, 0, 0)))
    is_picture = (image[0] > 0.9).numpy()
    left, top = placement.corner
    width, height = placement.scaled
    assert image.shape == (3, 64, 64)
    assert is_picture[top : top + height, left : left + width].all()
    assert is_picture.sum() == width * height
    assert torch.all(image[:, ~torch.from_numpy(is_picture)] == 114 / 255)
    corners = np.array([[0.0, 0.0, size[0], size[1]], [0.2, 0.4, 0.9, size[1] / 2]])
    boxes = Boxes(corners, np.array([0, 1]))
    there = placement.to_canvas(boxes)
    assert there.corners[0] == pytest.approx([left, top, left + width, top + height])
    assert placement.to_picture(there).corners == pytest.approx(corners)


def test_a_side_that_the_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(SettingsError, match="multiple of 32"):
        Letterbox(100)


@pytest.mark.shared
@pytest.mark.slow
def test_average_precision_is_that_of_the_published_weights(shared: Path) -> None:
    from scotoma.train.detection_data import read_boxes

    folder = shared / "data" / "coco" / "train128"
    network = load_yolov5(shared / "models" / "yolov5n.safetensors")
    pictures, _ = read_boxes(folder / "instances.json", folder / "images")
    found = []
    for picture in pictures:
        image, placement = Letterbox().read(Image.open(picture.path))
        (boxes,) = find_boxes(network, image[None], network.anchors)
        found.append(placement.to_picture(boxes))
    annotated = [Boxes(picture.corners, picture.labels) for picture in pictures]
    assert average_precision(found, annotated) == pytest.approx(0.356, abs=0.005)
    assert average_precision(found, annotated, thresholds=(0.5,)) == pytest.approx(0.551, abs=0.005)
