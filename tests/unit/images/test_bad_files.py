from __future__ import annotations

import io
import os
import resource
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bad_files import bad_files, sample, sample_file

from scotoma.core.errors import UnreadableImageError
from scotoma.images.read import decode_picture, read_file, read_picture
from scotoma.images.walk import find_pictures

BAD_FILES = bad_files()


def test_there_are_many_kinds() -> None:
    assert len(BAD_FILES) >= 30
    assert len({name for name, _, _ in BAD_FILES.values()}) == len(BAD_FILES)


def test_the_builder_is_deterministic() -> None:
    assert bad_files() == BAD_FILES


@pytest.mark.parametrize("kind", BAD_FILES)
def test_each_kind_fails_with_its_error(kind: str, tmp_path: Path) -> None:
    name, data, fragment = BAD_FILES[kind]
    path = tmp_path / name
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(UnreadableImageError) as failure:
            read_picture(path)
    message = str(failure.value)
    assert fragment in message
    assert message.startswith(f"{path}: expected ")
    assert "; " in message, "it says what to do"
    assert not caught


def test_each_kind_is_found_in_a_folder(tmp_path: Path) -> None:
    for name, data, _ in BAD_FILES.values():
        (tmp_path / name).write_bytes(data)
    assert len(list(find_pictures([tmp_path]))) == len(BAD_FILES)


@pytest.mark.parametrize("kind", [kind for kind in BAD_FILES if kind.startswith("bomb")])
def test_a_bomb_is_refused_before_memory_is_taken(kind: str) -> None:
    name, data, _ = BAD_FILES[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImageError):
        decode_picture(data, name=name)
    grown_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kilobytes < 100_000, "the smallest bomb would take a million"


def test_the_size_limit_is_exact() -> None:
    for format_ in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP"):
        data = sample_file(format_)
        assert decode_picture(data, name="a", max_pixels=48 * 32).size == (48, 32)
        with pytest.raises(UnreadableImageError, match="at most 1535 pixels, got 48×32 = 1536"):
            decode_picture(data, name="a", max_pixels=48 * 32 - 1)


def test_folder_pipe_missing_and_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pipe, file = tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg"
    folder.mkdir()
    os.mkfifo(pipe)
    file.write_bytes(sample_file("JPEG"))
    with pytest.raises(UnreadableImageError, match="got a folder"):
        read_picture(folder)
    with pytest.raises(UnreadableImageError, match="got a pipe"):
        read_picture(pipe)
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_picture(tmp_path / "d.jpg")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UnreadableImageError, match="got Permission denied; check path"):
        read_picture(file)


def test_a_file_longer_than_any_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    with path.open("wb") as file:
        file.truncate(70 * 2**20)  # sparse: takes no space
    with pytest.raises(UnreadableImageError, match="got a file of 73400320 bytes"):
        read_file(path, max_pixels=1000)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"compression": "jpeg"}),
    ],
)
def test_no_prefix_of_a_file_passes_for_a_picture(format_: str, options: dict[str, object]) -> None:
    data = sample_file(format_, **options)
    decode_picture(data, name="whole")
    cuts = {*range(0, len(data), 1 + len(data) // 60), *range(len(data) - 12, len(data))}
    for cut in sorted(cuts):
        try:
            read = decode_picture(data[:cut], name="part")
        except UnreadableImageError:
            continue
        # What was cut off carried no pixels (a tag after them, a byte of padding).
        whole = decode_picture(data, name="whole")
        assert cut > 0.95 * len(data), f"{cut} of {len(data)} bytes"
        np.testing.assert_array_equal(read.pixels, whole.pixels)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP"])
def test_damage_anywhere_is_an_error_or_a_picture_and_never_a_warning(format_: str) -> None:
    generator = np.random.default_rng(3)
    whole = np.frombuffer(sample_file(format_), np.uint8)
    for _ in range(60):
        data = whole.copy()
        places = generator.integers(0, len(data), 1 + int(generator.integers(4)))
        data[places] = generator.integers(0, 256, len(places), dtype=np.uint8)
        try:  # warnings are errors here
            picture = decode_picture(data.tobytes(), name="damaged", max_pixels=10**6)
        except UnreadableImageError:
            continue
        assert picture.pixels.dtype == np.uint8


def test_a_pyramid_is_one_picture() -> None:
    buffer = io.BytesIO()
    reduced = sample(24, 16)
    reduced.encoderinfo = {"tiffinfo": {254: 1}}
    sample().save(buffer, "TIFF", save_all=True, append_images=[reduced])
    assert decode_picture(buffer.getvalue(), name="a.tif").size == (48, 32)


def test_the_global_state_of_pillow_is_left_as_it_was() -> None:
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    for kind in ("damaged webp", "truncated jpeg"):
        name, data, _ = BAD_FILES[kind]
        with pytest.raises(UnreadableImageError):
            decode_picture(data, name=name)
    assert limit == Image.MAX_IMAGE_PIXELS
    assert filters == list(warnings.filters)
