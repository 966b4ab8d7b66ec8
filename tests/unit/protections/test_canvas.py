"""The cells of a picture: what they can move, and that gradients are true."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from scotoma.core.errors import RegionError
from scotoma.images.regions import Region
from scotoma.models.geometry import geometry
from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.anonymize.canvas import Canvas

PREPROCESSING = Preprocessing(input_size=(3, 32, 32), interpolation="bilinear", crop_pct=0.875)


def _picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 190, (height, width, 3), dtype=np.uint8)


def _disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y / height - 0.5) ** 2 + (x / width - 0.5) ** 2) < 0.2


REGIONS = {
    "rectangle": [Region((10, 5, 50, 45))],
    "mask": [Region((10, 5, 50, 45), _disc(40, 40))],
    "overlapping": [Region((10, 5, 50, 45)), Region((30, 20, 70, 55), _disc(35, 40))],
    "one pixel": [Region((7, 7, 8, 8))],
    "whole picture": [Region((0, 0, 80, 60))],
}


def _moved(regions: list[Region], amount: float = 20.0, *, smooth: bool = True) -> Canvas:
    canvas = Canvas(_picture(), regions, cell=8, smooth=smooth)
    generator = torch.Generator().manual_seed(0)
    canvas.move([amount * torch.randn(c.shape, generator=generator) for c in canvas.cells])
    return canvas


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("name", REGIONS)
def test_nothing_moves_outside(name: str, smooth: bool) -> None:
    canvas = _moved(REGIONS[name], smooth=smooth)
    mask = np.zeros((60, 80), bool)
    for region in REGIONS[name]:
        x0, y0, x1, y1 = region.box
        mask[y0:y1, x0:x1] |= True if region.mask is None else region.mask
    rendered = canvas.render()
    assert (rendered[~mask] == canvas.naive[~mask]).all()
    assert (rendered[mask] != canvas.naive[mask]).mean() > 0.5


@pytest.mark.parametrize("name", REGIONS)
def test_projection_is_what_the_model_reads(name: str) -> None:
    canvas = _moved(REGIONS[name], 5.0)
    foot = canvas.footprint(geometry(PREPROCESSING, 80, 60), PREPROCESSING.std)
    before = PREPROCESSING.transform(Image.fromarray(canvas.naive))
    after = PREPROCESSING.transform(Image.fromarray(canvas.render()))
    error = (before + canvas.project(foot) - after).abs().max()
    assert error * 255 * max(PREPROCESSING.std) < 2.5  # roundings to 8 bits


@pytest.mark.parametrize("name", REGIONS)
def test_gather_is_the_transpose_of_project(name: str) -> None:
    canvas = _moved(REGIONS[name])
    foot = canvas.footprint(geometry(PREPROCESSING, 80, 60), PREPROCESSING.std)
    probe = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1))
    left = (canvas.project(foot) * probe).sum()
    right = sum(
        (cells * part).sum()
        for cells, part in zip(canvas.cells, canvas.gather(foot, probe), strict=True)
    )
    assert left.item() == pytest.approx(float(right), rel=1e-3, abs=1e-3)


def test_cells_stay_where_pixels_can_follow() -> None:
    canvas = _moved(REGIONS["rectangle"], 1e6)
    patch = canvas.patches[0]
    assert (patch.cells >= patch.low).all()
    assert (patch.cells <= patch.high).all()


def test_rejects_regions_that_do_not_fit() -> None:
    with pytest.raises(RegionError, match="at least one region"):
        Canvas(_picture(), [], cell=8)
    with pytest.raises(RegionError, match="inside the 80x60"):
        Canvas(_picture(), [Region((10, 5, 90, 45))], cell=8)


def test_small_regions_get_enough_cells() -> None:
    canvas = Canvas(_picture(), [Region((0, 0, 30, 12))], cell=50, least=6)
    assert canvas.cells[0].shape == (3, 6, 15)


def test_a_region_outside_the_crop_is_not_reached() -> None:
    view = geometry(PREPROCESSING, 80, 60)  # reads the middle 52 rows and columns
    outside = Canvas(_picture(), [Region((0, 0, 9, 60))], cell=8)
    assert not outside.footprint(view, PREPROCESSING.std).reaches
    assert _moved(REGIONS["rectangle"]).footprint(view, PREPROCESSING.std).reaches
