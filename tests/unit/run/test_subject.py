"""One picture on its way: what is read, hidden, shown to models, and refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.profiles import rgb_profile
from support.runs import inside
from support.tiny_models import make_picture

from scotoma.core.errors import FileError, ImageError, RegionError
from scotoma.images.region_sources import BoxRegions, NoRegions, open_regions
from scotoma.images.regions import Region, RegionSource
from scotoma.images.walk import Found
from scotoma.images.write import Encoding
from scotoma.run.settings import AnonymizeSettings
from scotoma.run.subject import RunSubject, name_of, open_subject

CENTER = AnonymizeSettings(regions="center:0.3")


@pytest.fixture
def found(tmp_path: Path) -> Found:
    path = tmp_path / "a.png"
    Image.fromarray(make_picture(1)).save(path)
    return Found(path, Path("a.png"))


def opened(found: Found, settings: AnonymizeSettings = CENTER) -> RunSubject:
    return open_subject(found, open_regions(settings.regions), settings)


def test_a_subject_is_the_picture_its_regions_and_its_fill(found: Found) -> None:
    subject = opened(found)
    assert np.array_equal(subject.original, make_picture(1))
    assert subject.sha256_in == hashlib.sha256(found.path.read_bytes()).hexdigest()
    mask = inside([region.box for region in subject.regions], subject.original.shape)
    assert np.array_equal(subject.start[~mask], subject.original[~mask])
    assert len(np.unique(subject.start[mask], axis=0)) == 1, "the solid fill has one colour"
    assert name_of(found) == found.path.as_posix()


def test_without_regions_the_start_is_the_original(found: Found) -> None:
    subject = open_subject(found, NoRegions(), CENTER)
    assert subject.regions == []
    assert np.array_equal(subject.start, subject.original)


def test_stored_numbers_are_kept_not_converted_by_the_profile(tmp_path: Path) -> None:
    """They are what the owner's own pipeline reads, and what must stay outside the regions."""
    path = tmp_path / "a.png"
    Image.fromarray(make_picture(1)).save(path, icc_profile=rgb_profile(swap=True))
    assert np.array_equal(opened(Found(path, Path("a.png"))).original, make_picture(1))


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp", "avif"])
def test_published_is_what_a_reader_of_the_file_sees(
    found: Found, tmp_path: Path, format_: str
) -> None:
    subject = opened(found, replace(CENTER, encoding=Encoding(format_, 75)))
    published = subject.publish(subject.start)
    file = tmp_path / "written"
    file.write_bytes(subject.encode(subject.start))
    with Image.open(file) as image:
        assert np.array_equal(published, np.asarray(image.convert("RGB")))
    assert np.array_equal(published, subject.start) == (format_ == "png")


def test_a_damaged_file_and_a_region_that_does_not_fit_raise(found: Found) -> None:
    with pytest.raises(RegionError, match="outside"):
        open_subject(found, BoxRegions((500, 500, 600, 600)), CENTER)

    class Elsewhere(RegionSource):
        def find(self, pixels: object, relative: Path) -> list[Region]:
            return [Region((40, 40, 400, 400))]

    with pytest.raises(RegionError, match="inside the 60x48 picture"):
        open_subject(found, Elsewhere(), CENTER)
    found.path.write_bytes(found.path.read_bytes()[:100])
    with pytest.raises(FileError, match="truncated"):
        opened(found)


def test_only_changes_inside_the_regions_may_be_released(found: Found) -> None:
    subject = opened(found)
    subject.check_release(subject.start)
    x0, y0, x1, y1 = subject.regions[0].box
    searched = subject.start.copy()
    searched[y0:y1, x0:x1] += 3
    subject.check_release(searched)
    for y, x in ((0, 0), (y0 - 1, x0), (y1, x1 - 1), (y0, x1)):
        wrong = searched.copy()
        wrong[y, x, 1] += 1
        with pytest.raises(ImageError, match="inside the regions only"):
            subject.check_release(wrong)
    with pytest.raises(ImageError, match="to be hidden"):
        subject.check_release(subject.original)
    with pytest.raises(ImageError, match="like its original"):
        subject.check_release(searched[:, :-1])


def test_every_region_must_be_hidden(found: Found) -> None:
    class Two(RegionSource):
        def find(self, pixels: object, relative: Path) -> list[Region]:
            return [Region((2, 2, 12, 12)), Region((30, 20, 50, 40))]

    subject = open_subject(found, Two(), CENTER)
    half = subject.start.copy()
    half[20:40, 30:50] = subject.original[20:40, 30:50]
    with pytest.raises(ImageError, match=r"region \(30, 20, 50, 40\)"):
        subject.check_release(half)


def test_a_region_that_looks_like_its_fill_may_stay(tmp_path: Path) -> None:
    """A plain wall hidden behind the wall's own colour is hidden well enough."""
    path = tmp_path / "wall.png"
    Image.fromarray(np.full((48, 60, 3), 200, np.uint8)).save(path)
    subject = opened(Found(path, Path("wall.png")))
    assert np.array_equal(subject.start, subject.original)
    subject.check_release(subject.start)
