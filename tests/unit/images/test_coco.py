"""COCO files: round trip, look-up, every kind of segmentation, and refusal of damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scotoma.core.errors import FileError, RegionError
from scotoma.images.coco import CocoRegions, write_coco
from scotoma.images.regions import Region, check_regions

SIZE = (40, 30)
PICTURE = np.zeros((30, 40, 3), np.uint8)
NAME = Path("a.jpg")


def opened(tmp_path: Path, *annotations: dict[str, Any], **image: Any) -> CocoRegions:
    path = tmp_path / "regions.json"
    entry = {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30} | image
    path.write_text(
        json.dumps(
            {
                "images": [entry],
                "annotations": [{"id": 1, "image_id": 7} | record for record in annotations],
                "categories": [{"id": 3, "name": "plate"}],
            }
        )
    )
    return CocoRegions(path)


def listing(tmp_path: Path, *names: str) -> CocoRegions:
    path = tmp_path / "regions.json"
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": []}))
    return CocoRegions(path)


@st.composite
def some_regions(draw: st.DrawFn) -> list[Region]:
    regions = []
    for _ in range(draw(st.integers(0, 4))):
        x0, y0 = draw(st.integers(0, 39)), draw(st.integers(0, 29))
        x1, y1 = draw(st.integers(x0 + 1, 40)), draw(st.integers(y0 + 1, 30))
        seed = draw(st.none() | st.integers(0, 99))
        mask = None
        if seed is not None:
            mask = np.random.default_rng(seed).random((y1 - y0, x1 - x0)) < 0.4
            mask[0, 0] |= not mask.any()
        label = draw(st.sampled_from(["face", "plate", "Gesicht ä"]))
        score = draw(st.none() | st.floats(0, 1))
        regions.append(Region((x0, y0, x1, y1), mask, label, score))
    return regions


@given(st.lists(some_regions(), max_size=3))
@settings(max_examples=60)
def test_what_is_written_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[list[Region]]
) -> None:
    path = tmp_path_factory.mktemp("coco") / "regions.json"
    entries = [(Path(f"d/{n}.jpg"), SIZE, regions) for n, regions in enumerate(pictures)]
    write_coco(path, entries)
    text = path.read_bytes()
    write_coco(path, reversed(entries))
    assert path.read_bytes() == text
    assert [other.name for other in path.parent.iterdir()] == ["regions.json"]
    source = CocoRegions(path)
    for relative, _, regions in entries:
        for got, put in zip(source.find(PICTURE, relative), regions, strict=True):
            assert (got.box, got.label, got.score) == (put.box, put.label, put.score)
            assert (got.mask is None) == (put.mask is None)
            assert got.mask is None or np.array_equal(got.mask, put.mask)


def test_the_file_has_one_record_a_line_in_the_words_of_coco(tmp_path: Path) -> None:
    path = tmp_path / "regions.json"
    write_coco(
        path,
        [
            (Path("b.jpg"), (4, 3), [Region((1, 0, 3, 2), np.eye(2, dtype=np.bool_))]),
            (Path("a.jpg"), SIZE, [Region((1, 2, 5, 8), label="face", score=0.5)]),
        ],
    )
    assert path.read_text("utf-8").splitlines() == [
        "{",
        '"images": [',
        '{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30},',
        '{"id": 2, "file_name": "b.jpg", "width": 4, "height": 3}',
        "],",
        '"annotations": [',
        '{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 4, 6], "area": 24, '
        '"iscrowd": 0, "segmentation": [], "score": 0.5},',
        '{"id": 2, "image_id": 2, "category_id": 2, "bbox": [1, 0, 2, 2], "area": 2, '
        '"iscrowd": 1, "segmentation": {"size": [3, 4], "counts": [3, 1, 3, 1, 4]}}',
        "],",
        '"categories": [',
        '{"id": 1, "name": "face"},',
        '{"id": 2, "name": "region"}',
        "]",
        "}",
    ]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    entry = (NAME, SIZE, [Region((0, 0, 2, 2))])
    with pytest.raises(RegionError, match=r"twice: a\.jpg"):
        write_coco(tmp_path / "r.json", [entry, entry])
    with pytest.raises(RegionError, match="40x30"):
        write_coco(tmp_path / "r.json", [(NAME, SIZE, [Region((0, 0, 41, 2))])])
    with pytest.raises(FileError, match="absent"):
        write_coco(tmp_path / "absent" / "r.json", [entry])
    assert not list(tmp_path.iterdir())


def test_boxes_are_rounded_outward_and_clipped(tmp_path: Path) -> None:
    source = opened(
        tmp_path,
        {"bbox": [1.5, 2.5, 3, 4], "category_id": 3, "score": 0.25},
        {"bbox": [-5, 20, 500, 500]},
        {"bbox": [10.1, 5, 4.9, 1.0000001]},
    )
    first, second, third = source.find(PICTURE, NAME)
    assert (first.box, first.label, first.score) == ((1, 2, 5, 7), "plate", 0.25)
    assert (second.box, second.label, second.score) == ((0, 20, 40, 30), "region", None)
    assert third.box == (10, 5, 15, 6)


def test_polygons_become_masks(tmp_path: Path) -> None:
    square = [10, 5, 20, 5, 20, 15, 10, 15]
    triangle = [30, 20, 36, 20, 30, 26]
    (region,) = opened(
        tmp_path, {"bbox": [10, 5, 26, 21], "segmentation": [square, triangle]}
    ).find(PICTURE, NAME)
    x0, y0, x1, y1 = region.box
    assert x0 <= 10
    assert y0 <= 5
    assert x1 >= 36
    assert y1 >= 26
    assert region.mask is not None
    whole = np.zeros((30, 40), np.bool_)
    whole[y0:y1, x0:x1] = region.mask
    assert whole[5:15, 10:20].all()
    assert whole[21, 31]
    assert not whole[25, 35]
    assert 118 <= whole.sum() <= 118 + 70


@pytest.mark.parametrize("counts", [[31, 2, 1167], "o02_T1"], ids=["plain", "compressed"])
def test_run_lengths_become_masks(tmp_path: Path, counts: Any) -> None:
    (region,) = opened(
        tmp_path, {"bbox": [0, 0, 3, 4], "segmentation": {"size": [30, 40], "counts": counts}}
    ).find(PICTURE, NAME)
    assert region.box == (0, 0, 3, 4)
    assert region.mask is not None
    assert np.argwhere(region.mask).tolist() == [[1, 1], [2, 1]]


def test_a_segmentation_alone_or_an_empty_one_is_enough(tmp_path: Path) -> None:
    rle = {"size": [30, 40], "counts": [31, 2, 1167]}
    (alone,) = opened(tmp_path, {"segmentation": rle}).find(PICTURE, NAME)
    assert alone.box == (1, 1, 2, 3)
    nothing = {"size": [30, 40], "counts": [1200]}
    (box,) = opened(tmp_path, {"bbox": [1, 1, 2, 2], "segmentation": nothing}).find(PICTURE, NAME)
    assert (box.box, box.mask) == ((1, 1, 3, 3), None)


@pytest.mark.parametrize(
    "annotation",
    [
        {},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 0, 4]},
        {"bbox": [1, 2, 3, -4]},
        {"bbox": [1, 2, 3, "x"]},
        {"bbox": [1, 2, None, 4]},
        {"bbox": [1, 2, float("nan"), 4]},
        {"bbox": [1, 2, 10**400, 4]},
        {"bbox": [100, 2, 3, 4]},
        {"bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4]]},
        {"bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
        {"bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4, 5, 1e30]]},
        {"bbox": [1, 2, 3, 4], "segmentation": [3]},
        {"bbox": [1, 2, 3, 4], "segmentation": {"size": [40, 30], "counts": [1200]}},
        {"bbox": [1, 2, 3, 4], "segmentation": {"size": [30, 40], "counts": [12]}},
        {"bbox": [1, 2, 3, 4], "segmentation": {"size": [30, 40], "counts": 12}},
        {"bbox": [1, 2, 3, 4], "segmentation": {"size": [30, 40]}},
        {"bbox": [1, 2, 3, 4], "score": "high"},
    ],
    ids=str,
)
def test_a_damaged_annotation_is_named(tmp_path: Path, annotation: dict[str, Any]) -> None:
    source = opened(tmp_path, annotation)
    with pytest.raises(RegionError, match=r"annotation 1 of a\.jpg"):
        source.find(PICTURE, NAME)


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"images": []},
        {"images": 3, "annotations": []},
        {"images": [{"id": 1}], "annotations": []},
        {"images": [{"id": 1, "file_name": 3}], "annotations": []},
        {"images": [{"id": [], "file_name": "a"}], "annotations": []},
        {"images": [3], "annotations": []},
        {"images": [], "annotations": [{"image_id": 1}]},
        {"images": [], "annotations": [3]},
        {"images": [], "annotations": [], "categories": [{"id": 1}]},
        {"images": [{"id": n, "file_name": "a.jpg"} for n in (1, 2)], "annotations": []},
        {"images": [{"id": 1, "file_name": name} for name in "ab"], "annotations": []},
    ],
    ids=str,
)
def test_a_damaged_file_is_refused(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RegionError, match=r"regions\.json"):
        CocoRegions(path)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "regions.json"
    for content in (b"", b"{", b"\xff\xfe\x00", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(RegionError, match=r"regions\.json"):
            CocoRegions(path)
    with pytest.raises(FileError, match=r"absent\.json"):
        CocoRegions(tmp_path / "absent.json")


def test_a_picture_without_annotations_has_no_region_but_an_unlisted_one_is_refused(
    tmp_path: Path,
) -> None:
    source = opened(tmp_path)
    assert source.find(PICTURE, NAME) == []
    with pytest.raises(RegionError, match=r"does not list b\.jpg"):
        source.find(PICTURE, Path("b.jpg"))


def test_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegionError, match=r"40x30 pixels, but a\.jpg upright has 30x40"):
        opened(tmp_path).find(PICTURE.transpose(1, 0, 2), NAME)


def test_names_match_whole_paths_first(tmp_path: Path) -> None:
    source = listing(tmp_path, "x/a.jpg", "y/a.jpg", "a.jpg", "z\\b.jpg")
    for name in ("x/a.jpg", "y/a.jpg", "a.jpg", "z/b.jpg"):
        assert source.find(PICTURE, Path(name)) == []
    with pytest.raises(RegionError, match=r"several pictures named like z/a\.jpg"):
        source.find(PICTURE, Path("z/a.jpg"))


def test_a_bare_name_serves_one_picture_only(tmp_path: Path) -> None:
    source = listing(tmp_path, "a.jpg")
    assert source.find(PICTURE, Path("cam1/a.jpg")) == []
    assert source.find(PICTURE, Path("cam1/a.jpg")) == []
    for other in ("cam2/a.jpg", "a.jpg"):
        with pytest.raises(RegionError, match=r"both cam1/a\.jpg and"):
            source.find(PICTURE, Path(other))


@pytest.mark.shared
def test_real_files_are_read_whole(shared: Path) -> None:
    folder = shared / "data/coco/train128"
    source = CocoRegions(folder / "instances.json")
    data = json.loads((folder / "instances.json").read_text())
    found: list[Region] = []
    for image in data["images"]:
        name = Path(image["file_name"])
        with Image.open(folder / "images" / name.name) as file:
            size = file.size
        regions = source.find(np.zeros((size[1], size[0], 3), np.uint8), name)
        check_regions(regions, size)
        found += regions
    assert len(found) == 929
    areas = [int(region.mask.sum()) for region in found if region.mask is not None]
    assert len(areas) == 646
    stated = sum(record["area"] for record in data["annotations"] if record["segmentation"])
    assert 1.0 < sum(areas) / stated < 1.05
