"""The report beside the releases: one file that shows of an original only what is not private."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.commands import scotoma
from support.runs import entries_of, inside, pixels_of
from support.tiny_models import make_picture, write_pictures

REGIONS = "center:0.3"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_files: tuple[Path, Path]) -> Path:
    """Return a folder with two runs of the same pictures: with originals shown, and without."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copy(tiny_files[1], folder / "m.safetensors")
    write_pictures(folder / "in", 4)
    Image.fromarray(make_picture(8, 300, 240)).save(folder / "in/large.png")
    words = ("anonymize", "in", "--model", "scotoma:m.safetensors", "--regions", REGIONS)
    assert scotoma(*words, "-o", "bare", cwd=folder).code == 0
    assert scotoma(*words, "-o", "shown", "--report-originals", cwd=folder).code == 0
    return folder


def thumbnails(page: str) -> list[NDArray[np.uint8]]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]
    return [np.asarray(image.convert("RGB")) for image in images]


def likeness(shown: NDArray[np.uint8], original: NDArray[np.uint8]) -> float | None:
    """Return the mean difference inside the region; None for a picture of another size."""
    if shown.shape != original.shape:
        return None
    height, width = original.shape[:2]
    wide, high = round(width * 0.3**0.5), round(height * 0.3**0.5)
    left, top = (width - wide) // 2, (height - high) // 2
    mask = inside([(left, top, left + wide, top + high)], original.shape)
    return float(np.abs(shown[mask].astype(float) - original[mask]).mean())


@pytest.mark.parametrize("shows_originals", [False, True])
def test_the_page_shows_private_pixels_only_when_asked(place: Path, shows_originals: bool) -> None:
    out = place / ("shown" if shows_originals else "bare")
    page = (out / "report.html").read_text("utf-8")
    shown = thumbnails(page)
    pictures = sorted((place / "in").iterdir())
    assert len(shown) == 3 * len(pictures), "original, fill and release of each"
    for path in pictures:
        original = pixels_of(path)
        found = [likeness(thumbnail, original) for thumbnail in shown]
        nearest = min(value for value in found if value is not None)
        # A JPEG thumbnail of the original differs by less than 4, a fill by far more.
        assert (nearest < 4) == shows_originals
        assert nearest > 12 or shows_originals
    assert ("do not publish" in page) == shows_originals


def test_outside_the_regions_the_page_shows_the_picture(place: Path) -> None:
    """Otherwise the test above could pass on thumbnails of nothing."""
    shown = thumbnails((place / "bare/report.html").read_text("utf-8"))
    for path in (place / "in").iterdir():
        original = pixels_of(path)
        same = [t for t in shown if t.shape == original.shape]
        edges = [np.abs(t[:3].astype(float) - original[:3]).mean() for t in same]
        assert sum(edge < 4 for edge in edges) >= 3


def test_the_page_needs_nothing_else(place: Path) -> None:
    page = (place / "bare/report.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "<script" not in page
    assert not re.search(r'(src|href)\s*=\s*"(?!data:|#)', page)
    assert "@import" not in page
    assert not re.search(r"url\((?!['\"]?data:)", page)
    answers = {
        answer.name
        for entry in entries_of(place / "bare").values()
        for answer in (entry.decisions[0].before, entry.decisions[0].naive)
        if answer is not None
    }
    assert len(answers) > 1
    assert all(answer in page for answer in answers)
    for name in entries_of(place / "bare"):
        assert name in page


def test_a_second_run_writes_the_same_pictures_again(place: Path) -> None:
    """The report of a run that skips everything still shows it."""
    words = ("anonymize", "in", "--model", "scotoma:m.safetensors", "--regions", REGIONS)
    before = thumbnails((place / "bare/report.html").read_text("utf-8"))
    assert scotoma(*words, "-o", "bare", cwd=place).code == 0
    after = thumbnails((place / "bare/report.html").read_text("utf-8"))
    assert len(before) == len(after)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
