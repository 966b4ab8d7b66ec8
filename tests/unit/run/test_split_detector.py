"""A detector in two halves: boxes come back in the picture's own pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.commands import scotoma
from support.tiny_models import make_picture
from torch import nn

from scotoma.core.errors import BitstreamError, ModelError, SettingsError
from scotoma.images.bitstream import LatentReader
from scotoma.models.coco_names import COCO_NAMES
from scotoma.models.detectors import load_detector, parse_detector
from scotoma.models.geometry import geometry
from scotoma.models.letterbox import Letterbox
from scotoma.models.split_model import SplitModel, load_split, open_split, save_split
from scotoma.models.yolov5 import YOLOv5, YOLOv5Config
from scotoma.models.yolov5_pictures import find_boxes
from scotoma.run.decode import FrameAnswer, decode
from scotoma.run.encode import encode
from scotoma.run.found_boxes import FoundBox, find_objects

SIDE = 64
WIDE = (120, 50)  # pixels: neither square nor the canvas' size


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights whose boxes differ from place to place."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = YOLOv5(YOLOv5Config("n", 4)).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        reads = Letterbox(SIDE)
        with torch.no_grad():
            network(torch.stack([reads.read(picture(seed))[0] for seed in range(8)]))
            for convolution in network.model[-1].m:
                convolution.weight.mul_(4)
    path = tmp_path_factory.mktemp("detector") / "n.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def split(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> SplitModel:
    detector = load_detector(f"yolov5:{weights}@{SIDE}")
    model = open_split(detector, "model.4")
    model.fit_range([torch.stack([detector.read(picture(seed)) for seed in range(8)])])
    path = tmp_path_factory.mktemp("split") / "split.safetensors"
    assert isinstance(detector.network, YOLOv5)
    save_split(path, model, detector.network)
    return load_split(path)


def picture(seed: int, size: tuple[int, int] = WIDE) -> Image.Image:
    return Image.fromarray(make_picture(seed, *size))


def answers(folder: Path, split: SplitModel, least_score: float = 0.2) -> list[FrameAnswer]:
    return list(decode([folder], split, split_digest="d", least_score=least_score))


def test_boxes_come_back_in_the_pictures_own_pixels(split: SplitModel, tmp_path: Path) -> None:
    picture(20).save(tmp_path / "wide.png")
    encode([tmp_path / "wide.png"], tmp_path / "out", split, split_digest="d")
    (answer,) = answers(tmp_path / "out", split)
    image, placement = Letterbox(SIDE).read(picture(20))
    assert split.anchors is not None
    (found,) = find_boxes(split, image[None], split.anchors, least_score=0.2)
    wanted = placement.to_picture(found)
    assert len(answer.answers) == len(wanted.labels) > 3
    assert all(isinstance(box, FoundBox) for box in answer.answers)
    corners = np.array([box.box for box in answer.answers if isinstance(box, FoundBox)])
    np.testing.assert_allclose(corners, wanted.corners, atol=0.01)
    assert corners[:, 2].max() > SIDE  # beyond the canvas: these are the picture's pixels
    assert corners.min() >= 0
    assert (corners.max(0) <= [120, 50, 120, 50]).all()
    scores = [box.score for box in answer.answers]
    assert scores == sorted(scores, reverse=True)


def test_fewer_boxes_are_told_of_a_higher_score(split: SplitModel, tmp_path: Path) -> None:
    picture(20).save(tmp_path / "wide.png")
    encode([tmp_path / "wide.png"], tmp_path / "out", split, split_digest="d")
    (many,), (few,) = (answers(tmp_path / "out", split, score) for score in (0.1, 0.25))
    assert len(few.answers) < len(many.answers)
    assert all(box.score >= 0.25 for box in few.answers)
    with pytest.raises(SettingsError, match="least_score"):
        answers(tmp_path / "out", split, 1.5)


def test_only_a_detectors_stream_says_the_pictures_size(split: SplitModel, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    encode([tmp_path / "a.png"], tmp_path / "out", split, split_digest="d")
    (stream,) = (tmp_path / "out").glob("*.latents")
    with stream.open("rb") as source:
        reader = LatentReader(source, name="a", model=split.coder, shape=split.latent_shape)
    assert reader.metadata == {"split": "d", "size": list(WIDE)}


@pytest.mark.parametrize("size", [None, [0, 5], [5], "5x5", [5.0, 5.0], [1 << 30, 5]])
def test_a_stream_of_no_size_is_refused(split: SplitModel, size: object) -> None:
    places = torch.zeros(1, *split.latent_shape, dtype=torch.uint8)
    metadata = {} if size is None else {"size": size}
    with pytest.raises(BitstreamError, match="width and height"):
        list(find_objects(split, places, metadata, least_score=0.2))


def test_sides_and_files_are_checked(weights: Path, tmp_path: Path) -> None:
    assert parse_detector("yolov5:a@b/c.safetensors") == ("a@b/c.safetensors", 640)
    assert parse_detector(f"yolov5:{weights}@320") == (str(weights), 320)
    with pytest.raises(SettingsError, match="multiple of 32"):
        parse_detector("yolov5:n@100")
    with pytest.raises(ModelError, match="absent"):
        load_detector(f"yolov5:{tmp_path / 'absent.safetensors'}")
    assert load_detector(f"yolov5:{weights}").classes is None  # four classes, not COCO's


def test_a_letterbox_is_no_classifiers_preprocessing(weights: Path) -> None:
    read = load_detector(f"yolov5:{weights}@{SIDE}").preprocessing
    with pytest.raises(ModelError, match="letterbox"):
        geometry(read, 10, 10)
    with pytest.raises(ModelError, match="square"):
        replace(read, input_size=(3, 64, 96))


@pytest.mark.slow
def test_a_private_bottleneck_is_trained_on_pictures_without_labels(
    weights: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "street"
    pictures.mkdir()
    for seed in range(4):
        picture(seed).save(pictures / f"{seed}.png")
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'task = "answers"\nchannels = 3\nhidden = 6\nepochs = 1\nbatch_size = 2\ncalibration = 4\n'
    )
    out = tmp_path / "split.safetensors"
    detector = f"yolov5:{weights}@{SIDE}"
    trained = scotoma(
        *("train", "split", "--model", detector, "--at", "model.4", "--data", pictures),
        *("--recipe", recipe, "-o", out, "--accelerator", "cpu"),
        cwd=tmp_path,
    )
    assert trained.code == 0, trained.err
    encoded = scotoma("encode", pictures, "-o", tmp_path / "streams", "--split", out, cwd=tmp_path)
    assert encoded.code == 0, encoded.err
    decoded = scotoma(
        "decode", tmp_path / "streams", "--split", out, "--least-score", "0.1", cwd=tmp_path
    )
    assert decoded.code == 0, decoded.err
    assert decoded.out.count('"box"') > 0


def test_the_server_finds_what_the_whole_detector_finds(shared: Path, tmp_path: Path) -> None:
    detector = load_detector(f"yolov5:{shared / 'models' / 'yolov5n.safetensors'}@320")
    paths = sorted((shared / "data" / "coco" / "train128" / "images").iterdir())[:3]
    model = open_split(detector, "model.4")
    images = torch.stack([detector.read(Image.open(path).convert("RGB")) for path in paths])
    model.fit_range([images])
    encode(paths, tmp_path, model, split_digest="d")
    names = [[box.name for box in answer.answers] for answer in answers(tmp_path, model, 0.4)]
    assert isinstance(detector.network, YOLOv5)
    whole = find_boxes(detector.network, images, detector.network.anchors, least_score=0.4)
    wanted = [[COCO_NAMES[label] for label in found.labels] for found in whole]
    assert [sorted(each) for each in names] == [sorted(each) for each in wanted]
    assert sum(map(len, wanted)) > 3
