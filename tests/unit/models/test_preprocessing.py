from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from scotoma.core.errors import ModelError
from scotoma.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

CONFIGS = {
    "bilinear": {"interpolation": "bilinear", "crop_pct": 0.875, "mean": [0.5] * 3},
    "whole": {"interpolation": "bicubic", "crop_pct": 1.0},
    "beyond": {"interpolation": "bicubic", "crop_pct": 1.15},
    "squash": {"interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "squash"},
    "border": {"interpolation": "lanczos", "crop_pct": 0.95, "crop_mode": "border"},
    "oblong": {"input_size": [3, 96, 160], "interpolation": "nearest"},
}


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
@pytest.mark.parametrize("size", [(300, 200), (97, 331), (224, 224), (31, 40)])
def test_reads_what_timm_reads(config: dict[str, object], size: tuple[int, int]) -> None:
    picture = noise(*size)
    resolved = resolve_data_config(pretrained_cfg=config)
    expected = create_transform(**resolved, is_training=False)(picture)
    got = Preprocessing.from_config({"pretrained_cfg": config}).transform(picture)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "mobilenetv2_100", "inception_v4"])
def test_from_timm_is_what_timm_resolves(name: str) -> None:
    config = timm.get_pretrained_cfg(name).to_dict()

    class Network:
        pretrained_cfg = config

    resolved = resolve_data_config(pretrained_cfg=config)
    made = Preprocessing.from_timm(Network()).to_config()
    assert made == {key: made[key] for key in resolved}
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in resolved.items()} == made


def test_against_pillow_and_numpy() -> None:
    picture = noise(320, 256)
    resized = picture.crop((32, 0, 288, 256))
    pixels = np.asarray(resized, np.float32)[16:240, 16:240] / 255
    expected = (pixels - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    got = Preprocessing(interpolation="bilinear").transform(picture)
    np.testing.assert_allclose(got.numpy().transpose(1, 2, 0), expected, atol=1e-5)


def test_every_pretrained_timm_configuration_of_colour_pictures_is_accepted() -> None:
    names = timm.list_models(pretrained=True)
    assert len(names) > 1000
    for name in names:
        Preprocessing.from_config(timm.get_pretrained_cfg(name).to_dict())


def test_round_trip() -> None:
    made = Preprocessing((3, 64, 48), (0.1, 0.2, 0.3), (1, 2, 3), "nearest", 0.5, "squash")
    assert Preprocessing.from_config(made.to_config()) == made


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"input_size": [1, 28, 28]}, "three colour channels"),
        ({"input_size": [3, 0, 28]}, "input_size"),
        ({"input_size": 224}, "expected preprocessing like"),
        ({"mean": [0.5]}, "mean as three"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean as three"),
        ({"mean": ["a", "b", "c"]}, "expected preprocessing like"),
        ({"std": [0.5, 0.0, 0.5]}, "std as three positive"),
        ({"std": [0.5, float("nan"), 0.5]}, "std as three positive"),
        ({"interpolation": "cubist"}, "'cubist'"),
        ({"crop_pct": 0}, "crop_pct"),
        ({"crop_pct": float("nan")}, "crop_pct"),
        ({"crop_mode": "middle"}, "'middle'"),
        ({"pretrained_cfg": [1, 2]}, "expected preprocessing like"),
    ],
)
def test_refuses(config: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Preprocessing.from_config(config)


@pytest.mark.shared
def test_real_pictures_are_read_as_timm_reads_them(shared: Path) -> None:
    model = timm.create_model(f"local-dir:{shared / 'models' / 'mobilenetv2_100'}")
    expected = create_transform(**resolve_data_config(model=model), is_training=False)
    ours = Preprocessing.from_timm(model)
    files = sorted((shared / "data" / "imagenet" / "samples").iterdir())[:8]
    assert len(files) == 8
    for file in files:
        with Image.open(file) as picture:
            rgb = picture.convert("RGB")
        assert torch.equal(ours.transform(rgb), expected(rgb))
