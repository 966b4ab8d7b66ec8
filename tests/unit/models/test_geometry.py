"""The linear part of preprocessing against timm's own transform."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from scotoma.models.geometry import geometry
from scotoma.models.preprocessing import Preprocessing

CASES = list(
    itertools.product(
        ["bilinear", "bicubic"],
        ["center", "squash", "border"],
        [(3, 32, 32), (3, 24, 40)],
        [0.875, 1.0],
        [(50, 50), (61, 40), (33, 70)],
    )
)


@pytest.mark.parametrize(("interpolation", "mode", "size", "crop", "picture"), CASES)
def test_equals_timm(
    interpolation: str, mode: str, size: tuple[int, int, int], crop: float, picture: tuple[int, int]
) -> None:
    preprocessing = Preprocessing(
        input_size=size, interpolation=interpolation, crop_mode=mode, crop_pct=crop
    )
    width, height = picture
    # Smooth pixels: bicubic must not be clipped between Pillow's two passes.
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([128 + 90 * np.sin(y / 9 + c) * np.cos(x / 7 - c) for c in range(3)], 2)
    pixels = pixels.round().astype(np.uint8)
    real = preprocessing.transform(Image.fromarray(pixels))
    std, mean = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.std, preprocessing.mean))
    seen = ((real * std + mean) * 255).numpy()
    view = geometry(preprocessing, width, height)
    linear = np.stack(
        [view.rows @ pixels[..., c].astype(np.float32) @ view.columns.T for c in range(3)]
    )
    covered = np.outer(view.rows.any(1), view.columns.any(1))  # the rest is constant padding
    assert covered.any()
    assert np.abs(seen - linear)[:, covered].max() <= 1.6  # two roundings to 8 bits
