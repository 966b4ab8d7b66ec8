from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from support.bad_files import sample

from scotoma.core.errors import (
    FileError,
    ImageError,
    SettingsError,
    UnknownNameError,
    UnsafePathError,
)
from scotoma.images.read import decode_picture
from scotoma.images.write import Encoding, check_output_path, encode_picture, write_atomically

PIXELS = np.asarray(sample(24, 16).resize((96, 64), Image.Resampling.BICUBIC))
FORMATS = ("png", "jpeg", "webp", "avif")


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_png_gives_back_every_pixel(pixels: np.ndarray) -> None:
    picture = decode_picture(encode_picture(pixels, Encoding()), name="a.png")
    np.testing.assert_array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("format_", FORMATS)
def test_the_format_is_what_was_asked_for(format_: str) -> None:
    encoding = Encoding(format_)
    data = encode_picture(PIXELS, encoding)
    picture = decode_picture(data, name=f"a{encoding.suffix}")
    assert picture.format == format_
    assert picture.size == (96, 64)
    difference = np.abs(picture.pixels.astype(int) - PIXELS).mean()
    assert difference == 0 if encoding.lossless else difference < 4


@pytest.mark.parametrize("format_", FORMATS)
def test_same_pixels_same_bytes_however_they_lie_in_memory(
    format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = Encoding(format_)
    data = encode_picture(PIXELS, encoding)
    assert encode_picture(PIXELS.copy(), encoding) == data
    assert encode_picture(np.asfortranarray(PIXELS), encoding) == data
    monkeypatch.setattr("PIL.AvifImagePlugin.DEFAULT_MAX_THREADS", 7)
    assert encode_picture(PIXELS, encoding) == data


@pytest.mark.parametrize("format_", ["jpeg", "webp", "avif"])
def test_quality_counts(format_: str) -> None:
    low, high = (encode_picture(PIXELS, Encoding(format_, quality)) for quality in (20, 95))
    assert len(low) < len(high)
    assert encode_picture(PIXELS, Encoding("png", 20)) == encode_picture(PIXELS, Encoding("png"))


def test_colour_is_whole_from_quality_90_on() -> None:
    for quality, layers in ((89, (2, 2)), (90, (1, 1))):
        data = encode_picture(PIXELS, Encoding("jpeg", quality))
        with Image.open(io.BytesIO(data)) as image:
            assert image.layer[0][1:3] == layers  # type: ignore[attr-defined]


def test_encodings_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="named 'jpg'; did you mean 'jpeg'"):
        Encoding("jpg")
    for quality in (0, 101, -1, 90.5, float("nan")):
        with pytest.raises(SettingsError, match="expected a quality from 1 to 100"):
            Encoding("jpeg", quality)  # type: ignore[arg-type]


def test_pixels_are_checked() -> None:
    for wrong in (PIXELS[..., 0], PIXELS.astype(np.float32), PIXELS[:0], PIXELS[..., :2]):
        with pytest.raises(ImageError, match=r"expected \(height, width, 3\) pixels"):
            encode_picture(wrong, Encoding())
    long = np.zeros((1, 16_384, 3), np.uint8)
    with pytest.raises(ImageError, match="at most 16383 pixels for webp, got 16384; write png"):
        encode_picture(long, Encoding("webp"))
    assert encode_picture(long, Encoding("png"))


# --- into place -----------------------------------------------------------------------------


def test_writing_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.png"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [child.name for child in path.parent.iterdir()] == ["c.png"]


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("ä" * 125 + ".png"), b"data")


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        parts = [child.name for child in tmp_path.iterdir() if child.name != "a.png"]
        assert len(parts) == 1
        assert parts[0].startswith(".")
        assert parts[0].endswith(".part")
        raise error

    monkeypatch.setattr(os if step == "fsync" else Path, step, fail)
    expected = FileError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as failure:
        write_atomically(path, b"new")
    if isinstance(error, OSError):
        assert "got No space left on device; check" in str(failure.value)
    assert [child.name for child in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_what_a_killed_run_left_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(FileError):
            write_atomically(path, b"half")
    assert len(list(tmp_path.iterdir())) == 1, "a part is left"
    write_atomically(path, b"whole")
    assert [child.name for child in tmp_path.iterdir()] == ["a.png"]


def test_no_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, path = tmp_path / "original.jpg", tmp_path / "out" / "a.png"
    original.write_bytes(b"precious")
    path.parent.mkdir()
    path.symlink_to(original)
    # The same for a link planted where the part will be written.
    names: list[Path] = []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda part, _: names.append(part))
        write_atomically(path, b"new")
    names[0].unlink()
    names[0].symlink_to(original)
    write_atomically(path, b"new")
    assert original.read_bytes() == b"precious"
    assert path.read_bytes() == b"new"
    assert not path.is_symlink()


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(FileError, match="expected to write"):
        write_atomically(tmp_path / "a.png", b"data")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="expected to write"):
        write_atomically(tmp_path / "file" / "a.png", b"data")


# --- never over an original -----------------------------------------------------------------


def test_an_original_is_recognized_under_every_name(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    original, other = folder / "a.png", folder / "b.png"
    original.write_bytes(b"a")
    other.write_bytes(b"b")
    (out / "soft.png").symlink_to(original)
    os.link(original, out / "hard.png")
    (tmp_path / "again").symlink_to(folder)
    (folder / "link.png").symlink_to(out / "target.png")
    (out / "target.png").write_bytes(b"c")
    for path, originals in (
        (original, [other, original]),
        (folder / ".." / "in" / "a.png", [original]),
        (out / "soft.png", [original]),
        (out / "hard.png", [original]),
        (tmp_path / "again" / "a.png", [original]),
        (original, [tmp_path / "again" / "a.png"]),
        (out / "target.png", [folder / "link.png"]),
        (folder / "link.png", [folder / "link.png"]),
    ):
        with pytest.raises(UnsafePathError, match="choose another output folder"):
            check_output_path(path, originals)


def test_other_paths_are_free(tmp_path: Path) -> None:
    original = tmp_path / "a.png"
    original.write_bytes(b"a")
    (tmp_path / "old.png").write_bytes(b"an earlier output")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    for name in ("b.png", "old.png", "dangling.png", "new/a.png"):
        check_output_path(tmp_path / name, [original, tmp_path / "missing.png"])


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(UnsafePathError, match="got the folder"):
        check_output_path(tmp_path, [])


@pytest.mark.parametrize("format_", ["jpeg", "webp", "avif", "png"])
@pytest.mark.parametrize("quality", [90, 100])
def test_noise_fits_every_format(format_: str, quality: int) -> None:
    """What compresses worst must not overrun an encoder's buffer."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data = encode_picture(noise, Encoding(format_, quality))
    assert decode_picture(data, name=f"noise.{format_}").size == (300, 200)
