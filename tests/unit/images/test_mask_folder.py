"""Masks in a folder: which file, which pixels, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scotoma.core.errors import RegionError, UnreadableImageError
from scotoma.images.mask_folder import MaskFolder
from scotoma.images.regions import union_mask

PICTURE = np.zeros((30, 40, 3), np.uint8)
NAME = Path("d/a.jpg")


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((30, 40), np.bool_)
    mask[2:8, 3:10] = True
    mask[20:25, 30:40] = np.tri(5, 10, 5, dtype=np.bool_)
    return mask


def save(tmp_path: Path, image: Image.Image, name: str = "d/a.png", **options: object) -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    image.save(path, **options)
    return path


def found(tmp_path: Path, relative: Path = NAME) -> np.ndarray:
    return union_mask(MaskFolder(tmp_path).find(PICTURE, relative), 30, 40)


def test_each_connected_part_is_a_region(tmp_path: Path, mask: np.ndarray) -> None:
    save(tmp_path, Image.fromarray(mask))
    first, second = MaskFolder(tmp_path).find(PICTURE, NAME)
    assert first.box == (3, 2, 10, 8)
    assert first.mask is None
    assert second.box == (30, 20, 40, 25)
    assert second.mask is not None
    assert np.array_equal(second.mask, mask[20:25, 30:40])


@pytest.mark.parametrize("name", ["d/a.png", "d/a.jpg.png", "d/a.BMP", "d/a.tif", "d/a.webp"])
def test_any_suffix_of_a_lossless_file_will_do(tmp_path: Path, mask: np.ndarray, name: str) -> None:
    save(tmp_path, Image.fromarray(mask.astype(np.uint8)), name, lossless=True)
    assert np.array_equal(found(tmp_path), mask)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I", "I;16"])
def test_whatever_is_not_black_is_private(tmp_path: Path, mask: np.ndarray, mode: str) -> None:
    image = Image.fromarray(mask.astype(np.uint8))
    if mode == "P":
        image.putpalette([0, 0, 0, 0, 0, 1])
    elif mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16) * 256)
    elif mode == "1":
        image = Image.fromarray(mask)
    else:
        image = image.convert(mode)
    save(tmp_path, image, "d/a.tif" if mode == "I" else "d/a.png")
    assert np.array_equal(found(tmp_path), mask)


def test_black_in_four_inks_is_black(tmp_path: Path, mask: np.ndarray) -> None:
    inks = np.zeros((30, 40, 4), np.uint8)
    inks[~mask, 3] = 255
    save(tmp_path, Image.fromarray(inks, "CMYK"), "d/a.tif")
    assert np.array_equal(found(tmp_path), mask)


def test_the_orientation_tag_is_followed(tmp_path: Path, mask: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    save(tmp_path, Image.fromarray(np.ascontiguousarray(np.rot90(mask))), exif=exif)
    assert np.array_equal(found(tmp_path), mask)


def test_an_all_black_mask_means_nothing_is_private(tmp_path: Path) -> None:
    save(tmp_path, Image.new("L", (40, 30)))
    assert MaskFolder(tmp_path).find(PICTURE, NAME) == []


def test_a_missing_mask_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    save(tmp_path, Image.fromarray(mask), "a.png")
    with pytest.raises(RegionError, match=r"one mask for d/a\.jpg .*got none"):
        found(tmp_path)


def test_two_masks_are_refused(tmp_path: Path, mask: np.ndarray) -> None:
    save(tmp_path, Image.fromarray(mask), "d/a.png")
    save(tmp_path, Image.fromarray(mask), "d/a.jpg.png")
    with pytest.raises(RegionError, match=r"a\.png, .*a\.jpg\.png"):
        found(tmp_path)


@pytest.mark.parametrize("size", [(30, 40), (20, 15), (80, 60)])
def test_another_size_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path, Image.new("L", size))
    with pytest.raises(RegionError, match="40x30 pixels"):
        found(tmp_path)


def test_transparency_is_refused(tmp_path: Path) -> None:
    save(tmp_path, Image.new("RGBA", (40, 30), (0, 0, 0, 0)))
    with pytest.raises(RegionError, match="opaque"):
        found(tmp_path)


def test_unreadable_masks_are_refused(tmp_path: Path, mask: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    path = save(tmp_path, Image.fromarray(noise))
    content = path.read_bytes()
    for damaged in (b"", b"no picture", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UnreadableImageError, match=r"a\.png"):
            found(tmp_path)
    frames = [Image.fromarray(mask), Image.fromarray(~mask)]
    save(tmp_path, frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableImageError, match="2 frames"):
        found(tmp_path)


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(RegionError, match="got none"):
        MaskFolder(tmp_path)
