"""Every fill: only inside, same seed same bytes; background-only ones read nothing inside."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from scotoma.core.errors import ImageError, RegionError, UnknownNameError
from scotoma.ops.fills import DEFAULT_FILL, Fill, apply_fill, fills

NAMES = ["blur", "inpaint", "inverse-super-resolution", "noise", "pixelate", "solid"]
BLIND = ["inpaint", "noise", "solid"]

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24))
seeds = st.integers(0, 2**32 - 1)


def picture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape[:2], 3), dtype=np.uint8)


def rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), np.bool_)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def test_the_names_are_those_of_the_command_line() -> None:
    assert fills.names() == NAMES
    assert [name for name in NAMES if fills.get(name).background_only] == BLIND
    assert DEFAULT_FILL in BLIND
    assert all(fills.get(name).name == name and fills.get(name).summary for name in NAMES)
    with pytest.raises(UnknownNameError, match="did you mean 'inpaint'"):
        fills.get("inpant")


@pytest.mark.parametrize("name", NAMES)
@given(mask=masks, seed=seeds)
@settings(max_examples=40)
def test_outside_stays_and_the_same_seed_gives_the_same_bytes(
    name: str, mask: np.ndarray, seed: int
) -> None:
    pixels = picture(mask.shape, seed)
    before = pixels.copy()
    filled = apply_fill(pixels, mask, fills.get(name), seed=seed)
    assert filled.dtype == np.uint8
    assert filled.shape == pixels.shape
    assert np.array_equal(pixels, before)
    assert np.array_equal(filled[~mask], pixels[~mask])
    assert np.array_equal(filled, apply_fill(pixels, mask, fills.get(name), seed=seed))


@pytest.mark.parametrize("name", BLIND)
@given(mask=masks, seed=seeds)
@settings(max_examples=40)
def test_non_interference(name: str, mask: np.ndarray, seed: int) -> None:
    pixels = picture(mask.shape, seed)
    other = np.where(mask[:, :, None], picture(mask.shape, seed + 1), pixels)
    first = apply_fill(pixels, mask, fills.get(name), seed=3)
    assert np.array_equal(first, apply_fill(other, mask, fills.get(name), seed=3))


@pytest.mark.shared
@pytest.mark.parametrize("name", BLIND)
def test_non_interference_on_real_pictures(name: str, shared: Path) -> None:
    for path in sorted((shared / "data/imagenet/samples").glob("*.jpg"))[::24]:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        height, width = pixels.shape[:2]
        box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
        mask = rectangle(height, width, box)
        mask[-height // 8 :, : width // 8] = True
        other = np.where(mask[:, :, None], picture(pixels.shape, 1), pixels)
        first = apply_fill(pixels, mask, fills.get(name), seed=3)
        assert np.array_equal(first, apply_fill(other, mask, fills.get(name), seed=3)), path.name


def test_a_fill_that_claims_to_be_blind_is_handed_nothing_to_see() -> None:
    peek = Fill("peek", True, "returns what it was given", lambda pixels, mask, generator: pixels)
    pixels = picture((8, 8), 0)
    mask = rectangle(8, 8, (2, 2, 6, 6))
    assert np.unique(apply_fill(pixels, mask, peek, seed=0)[mask]).tolist() == [128]


def test_a_fill_that_paints_outside_does_not_reach_the_picture() -> None:
    black = Fill("black", True, "all black", lambda pixels, mask, generator: pixels * 0)
    pixels = picture((8, 8), 0)
    mask = rectangle(8, 8, (2, 2, 6, 6))
    filled = apply_fill(pixels, mask, black, seed=0)
    assert np.array_equal(filled[~mask], pixels[~mask])
    assert not filled[mask].any()


def test_solid_is_the_mean_of_the_ring_and_each_part_has_its_own() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40] = (200, 100, 50)
    pixels[:, 40:] = (10, 20, 30)
    mask = rectangle(40, 80, (10, 10, 26, 26)) | rectangle(40, 80, (54, 10, 70, 26))
    filled = apply_fill(pixels, mask, fills.get("solid"), seed=0)
    assert np.array_equal(filled, pixels)


def test_the_ring_leaves_out_other_private_parts() -> None:
    pixels = np.full((30, 60, 3), 90, np.uint8)
    mask = rectangle(30, 60, (10, 5, 28, 25)) | rectangle(30, 60, (30, 5, 50, 25))
    pixels[mask] = 255
    for name in ("solid", "inpaint"):
        assert (apply_fill(pixels, mask, fills.get(name), seed=0)[mask] == 90).all()


def test_noise_has_the_mean_and_spread_of_the_ring_and_hangs_on_the_seed() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.normal(120, 15, (200, 200, 3)).clip(0, 255).astype(np.uint8)
    mask = rectangle(200, 200, (50, 50, 150, 150))
    noise = apply_fill(pixels, mask, fills.get("noise"), seed=1)
    assert abs(noise[mask].mean() - 120) < 2
    assert abs(noise[mask].std() - 15) < 2
    assert not np.array_equal(noise, apply_fill(pixels, mask, fills.get("noise"), seed=2))


@pytest.mark.parametrize("name", NAMES)
def test_a_region_that_covers_everything_works(name: str) -> None:
    pixels = picture((33, 47), 0)
    mask = np.ones((33, 47), np.bool_)
    filled = apply_fill(pixels, mask, fills.get(name), seed=0)
    assert not np.array_equal(filled, pixels)
    if name in BLIND:
        assert np.unique(filled).tolist() == [128]


@pytest.mark.parametrize("name", ["blur", "inverse-super-resolution", "pixelate"])
def test_those_that_look_keep_the_mean_but_not_the_detail(name: str) -> None:
    pixels = picture((120, 120), 0)
    mask = rectangle(120, 120, (20, 20, 100, 90))
    filled = apply_fill(pixels, mask, fills.get(name), seed=0)
    assert abs(filled[mask].mean() - pixels[mask].mean()) < 5
    assert filled[mask].std() < 0.2 * pixels[mask].std()


@pytest.mark.parametrize("box", [(0, 0, 112, 90), (3, 3, 11, 90), (5, 5, 6, 6), (60, 0, 97, 40)])
def test_pixelate_gives_each_cell_nothing_but_its_mean(box: tuple[int, int, int, int]) -> None:
    pixels = picture((90, 112), 0)
    mask = rectangle(90, 112, box)
    filled = apply_fill(pixels, mask, fills.get("pixelate"), seed=0)
    x0, y0, x1, y1 = box
    part = filled[y0:y1, x0:x1].astype(int)
    rows = [0, *(np.flatnonzero(np.abs(np.diff(part, axis=0)).any(axis=(1, 2))) + 1), y1 - y0]
    columns = [0, *(np.flatnonzero(np.abs(np.diff(part, axis=1)).any(axis=(0, 2))) + 1), x1 - x0]
    assert len(rows) <= 8
    assert len(columns) <= 8
    assert all(size >= 4 for size in np.diff(rows)) or y1 - y0 < 4
    assert all(size >= 4 for size in np.diff(columns)) or x1 - x0 < 4
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            cell = pixels[y0:y1, x0:x1][top:bottom, left:right]
            expected = np.rint(cell.reshape(-1, 3).mean(axis=0)).astype(int)
            assert (part[top:bottom, left:right] == expected).all()


def test_what_does_not_fit_is_refused() -> None:
    fill = fills.get("solid")
    good, mask = picture((4, 5), 0), np.ones((4, 5), np.bool_)
    with pytest.raises(ImageError, match="uint8"):
        apply_fill(good.astype(np.float32), mask, fill, seed=0)
    with pytest.raises(ImageError, match="shape"):
        apply_fill(good[:, :, 0], mask, fill, seed=0)
    with pytest.raises(RegionError, match=r"\(4, 5\)"):
        apply_fill(good, mask.T, fill, seed=0)
    with pytest.raises(RegionError, match="bool"):
        apply_fill(good, mask.astype(np.uint8), fill, seed=0)
    wrong = Fill("wrong", False, "half", lambda pixels, mask, generator: pixels[::2])
    with pytest.raises(ImageError, match="'wrong'"):
        apply_fill(good, mask, wrong, seed=0)
