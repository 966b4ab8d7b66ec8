from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from support.bad_files import png_chunk, sample, sample_file
from support.profiles import cmyk_profile, grey_profile, rgb_profile

from scotoma.core.errors import ImageError, UnreadableImageError
from scotoma.images.picture import Picture
from scotoma.images.read import decode_picture, read_picture
from scotoma.images.walk import find_pictures

LOSSLESS = [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]


def read(format_: str, image: Image.Image, **options: Any) -> np.ndarray:
    return decode_picture(sample_file(format_, image, **options), name="a").pixels


@pytest.mark.parametrize(("format_", "options"), LOSSLESS)
def test_lossless_files_give_their_pixels(format_: str, options: dict[str, Any]) -> None:
    picture = decode_picture(sample_file(format_, **options), name="a")
    np.testing.assert_array_equal(picture.pixels, np.asarray(sample()))
    assert picture.format == format_.lower()
    assert picture.size == (48, 32)
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable
    assert picture.to_pil().size == (48, 32)


@pytest.mark.parametrize("format_", ["JPEG", "AVIF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossy_files_give_what_pillow_gives(format_: str, mode: str) -> None:
    data = sample_file(format_, sample().convert(mode), quality=80)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_picture(data, name="a").pixels, expected)


def test_a_picture_hides_its_pixels_from_logs_and_checks_them() -> None:
    picture = decode_picture(sample_file("PNG"), name="a")
    assert repr(picture) == "Picture(format='png', metadata=Metadata(names=[]))"
    with pytest.raises(ImageError, match=r"expected \(height, width, 3\) pixels of uint8"):
        Picture(picture.pixels[..., 0])
    with pytest.raises(ImageError, match="float64"):
        Picture(picture.pixels / 255)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".jpe", ".jfif", ".weird", ""])
def test_the_content_decides_where_the_suffix_does_not_object(suffix: str) -> None:
    assert decode_picture(sample_file("JPEG"), name=f"a{suffix}").format == "jpeg"


# --- orientation ----------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format_", "options"), [f for f in LOSSLESS if f[0] != "BMP"])
def test_every_orientation_comes_upright(
    format_: str, options: dict[str, Any], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = sample_file(format_, exif=exif, **options)
    expected = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }[orientation](np.asarray(sample()))
    np.testing.assert_array_equal(decode_picture(data, name="a").pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "AVIF"])
def test_orientation_of_lossy_files(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = sample_file(format_, exif=exif, quality=90)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_picture(data, name="a").pixels, expected)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode_picture(sample_file("PNG", exif=exif), name="a").size == (48, 32)


def test_damaged_exif_does_not_make_a_picture_unreadable() -> None:
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0MM\0*"):
        assert decode_picture(sample_file("JPEG", exif=exif), name="a").size == (48, 32)


# --- modes ----------------------------------------------------------------------------------


def test_grey_and_one_bit() -> None:
    grey = sample().convert("L")
    for mode in ("L", "1"):
        image = grey.convert(mode)
        expected = np.asarray(image.convert("RGB"))
        for format_ in ("PNG", "TIFF", "BMP"):
            np.testing.assert_array_equal(read(format_, image), expected)


def test_palette() -> None:
    image = sample().quantize(16)
    for format_ in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(read(format_, image), np.asarray(image.convert("RGB")))


def test_transparency_is_laid_on_white_and_hides_what_it_hid() -> None:
    hidden = np.full((2, 3, 4), (200, 10, 60, 0), np.uint8)
    hidden[0, 0, 3], hidden[0, 1, 3] = 255, 51
    image = Image.fromarray(hidden)
    for format_, options in (
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True, "exact": True}),
    ):
        pixels = read(format_, image, **options)
        np.testing.assert_array_equal(pixels[0, 0], (200, 10, 60))
        np.testing.assert_array_equal(pixels[0, 1], (244, 206, 216))  # a fifth of the colour
        assert (pixels[1] == 255).all()
        assert (pixels[0, 2] == 255).all()


def test_grey_with_alpha() -> None:
    image = Image.merge("LA", [Image.new("L", (4, 3), 80), Image.new("L", (4, 3), 0)])
    assert (read("PNG", image) == 255).all()
    image.putalpha(255)
    assert (read("PNG", image) == 80).all()


@pytest.mark.parametrize("transparency", [0, bytes((0, 128, 255, 255))])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    image.putdata([0, 1, 2, 3])
    pixels = read("PNG", image, transparency=transparency)[0]
    np.testing.assert_array_equal(pixels[0], (255, 255, 255))
    np.testing.assert_array_equal(pixels[2:], [(70, 80, 90), (100, 110, 120)])
    second = (40, 50, 60) if transparency == 0 else (147, 152, 157)
    np.testing.assert_array_equal(pixels[1], second)


def test_a_transparent_colour() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (4, 5, 6))
    pixels = read("PNG", image, transparency=(1, 2, 3))
    np.testing.assert_array_equal(pixels[0], [(255, 255, 255), (4, 5, 6)])


def wide(top: int = 65535) -> np.ndarray:
    return np.linspace(0, top, 1024).astype(np.uint16).reshape(16, 64)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format_: str) -> None:
    pixels = read(format_, Image.fromarray(wide()))
    expected = np.round(wide() / 257).astype(np.uint8)
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))
    assert pixels.max() == 255
    assert pixels.min() == 0


def test_sixteen_bit_grey_of_other_byte_order_and_polarity() -> None:
    expected = np.round(wide() / 257).astype(np.uint8)
    big = Image.frombytes("I;16B", (64, 16), wide().astype(">u2").tobytes())
    np.testing.assert_array_equal(read("TIFF", big)[..., 0], expected)
    inverted = sample_file("TIFF", Image.fromarray(wide()), tiffinfo={262: 0})
    np.testing.assert_array_equal(decode_picture(inverted, name="a").pixels[..., 0], 255 - expected)


def test_twelve_bit_grey_reaches_white() -> None:
    entries = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (278, 1), (279, 3)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    pixels = bytes((0xFF, 0xF8, 0x00, 0))  # 4095 and 2048, and a byte of padding
    data = b"II*\0" + struct.pack("<I", 12) + pixels
    data += struct.pack("<H", len(entries)) + directory + bytes(4)
    np.testing.assert_array_equal(decode_picture(data, name="a").pixels[0, :, 0], (255, 128))


def png(depth: int, colour: int, width: int, rows: list[bytes], *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            *extra,
            png_chunk(b"IDAT", packed),
            png_chunk(b"IEND", b""),
        )
    )


def test_sixteen_bit_colour_and_alpha() -> None:
    row = struct.pack(">6H", 0, 0x8000, 0xFFFF, 0x1234, 0xABCD, 0x00FF)
    pixels = decode_picture(png(16, 2, 2, [row]), name="a").pixels
    assert np.abs(pixels[0].astype(int) - [(0, 128, 255), (18, 171, 1)]).max() <= 1
    clear = struct.pack(">4H", 1, 2, 3, 0) + struct.pack(">4H", 0xFFFF, 0, 0, 0xFFFF)
    pixels = decode_picture(png(16, 6, 2, [clear]), name="a").pixels
    np.testing.assert_array_equal(pixels[0], [(255, 255, 255), (255, 0, 0)])
    keyed = png_chunk(b"tRNS", struct.pack(">H", 300))
    pixels = decode_picture(
        png(16, 0, 2, [struct.pack(">2H", 300, 0x8080)], keyed), name="a"
    ).pixels
    np.testing.assert_array_equal(pixels[0, :, 0], (255, 128))
    keyed = png_chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0, 0, 0)
    pixels = decode_picture(png(16, 2, 2, [row], keyed), name="a").pixels
    np.testing.assert_array_equal(pixels[0], [(255, 255, 255), (0, 0, 0)])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (5, 9), (8, 8), (33, 17)])
def test_interlaced_png_of_any_size(width: int, height: int) -> None:
    # Pillow cannot write one: reorder the pixels by hand, pass after pass.
    pixels = np.asarray(sample(width, height))
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4))
    passes += ((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [
        b"\0" + row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx] if row.size
    ]
    for kept, is_whole in ((rows, True), (rows[:-1], False)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
        data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
        data += png_chunk(b"IDAT", zlib.compress(b"".join(kept))) + png_chunk(b"IEND", b"")
        if is_whole:
            np.testing.assert_array_equal(decode_picture(data, name="a").pixels, pixels)
        else:
            with pytest.raises(UnreadableImageError, match="ends early"):
                decode_picture(data, name="a")


@pytest.mark.parametrize(("format_", "options"), [("TIFF", {}), ("JPEG", {"quality": 100})])
def test_cmyk_without_profile(format_: str, options: dict[str, Any]) -> None:
    inks = np.zeros((8, 32, 4), np.uint8)
    for index, ink in enumerate([(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255)]):
        inks[:, 8 * index : 8 * index + 8] = ink
    pixels = read(format_, Image.fromarray(inks, "CMYK"), **options)
    expected = np.array([(255, 255, 255), (0, 255, 255), (255, 255, 0), (0, 0, 0)])
    assert np.abs(pixels[4, 4::8].astype(int) - expected).max() <= 3


def test_thirty_two_bits_are_refused_clearly() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.int32).reshape(3, 4))
    with pytest.raises(UnreadableImageError, match="expected 8-bit or 16-bit colours, got"):
        read("TIFF", image)


# --- colour profiles ------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_a_foreign_profile_is_applied_so_that_colours_stay(format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    data = sample_file(format_, icc_profile=rgb_profile(swap=True), **options)
    picture = decode_picture(data, name="a")
    stored = np.asarray(sample()).astype(int)
    # Red and blue change places; gamma 2.2 is not quite sRGB's curve.
    assert np.abs(picture.pixels.astype(int) - stored[..., ::-1]).mean() < 2
    assert picture.metadata.icc is None
    kept = decode_picture(data, name="a", keep_profile=True)
    np.testing.assert_array_equal(kept.pixels, stored)
    assert kept.metadata.icc == rgb_profile(swap=True)


def test_srgb_under_any_name_leaves_every_number() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = decode_picture(sample_file("PNG", icc_profile=srgb), name="a")
    np.testing.assert_array_equal(picture.pixels, np.asarray(sample()))


def test_a_profile_with_another_gamma_agrees_with_the_formula() -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    linear = (np.arange(256) / 255) ** 1.8
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    expected = np.round(255 * srgb).reshape(16, 16)
    for image, profile in (
        (grey.convert("RGB"), rgb_profile(gamma=1.8)),
        (grey, grey_profile(1.8)),
    ):
        pixels = read("PNG", image, icc_profile=profile).astype(int)
        assert np.abs(pixels - expected[..., None]).max() <= 2


def test_profile_and_alpha_together() -> None:
    image = Image.new("RGBA", (2, 1), (250, 0, 0, 255))
    image.putpixel((1, 0), (9, 9, 9, 0))
    pixels = read("PNG", image, icc_profile=rgb_profile(swap=True))
    assert np.abs(pixels[0].astype(int) - [(0, 0, 250), (255, 255, 255)]).max() <= 2
    grey = Image.merge("LA", [Image.new("L", (2, 1), 128), Image.new("L", (2, 1), 255)])
    assert abs(int(read("PNG", grey, icc_profile=grey_profile(1.0))[0, 0, 0]) - 188) <= 1


@pytest.mark.parametrize("format_", ["TIFF", "JPEG"])
def test_cmyk_uses_its_profile(format_: str) -> None:
    inks = np.zeros((8, 16, 4), np.uint8)
    inks[..., :3] = 255  # naively black; this profile counts black ink alone
    inks[:, 8:, 3] = 255
    options = {"quality": 100} if format_ == "JPEG" else {}
    image = Image.fromarray(inks, "CMYK")
    data = sample_file(format_, image, icc_profile=cmyk_profile(), **options)
    picture = decode_picture(data, name="a", keep_profile=True)
    assert picture.pixels[4, 4].min() >= 250
    assert picture.pixels[4, 12].max() <= 5
    assert picture.metadata.icc is None, "an ink profile fits no RGB picture"


@pytest.mark.parametrize("profile", [b"nonsense", rgb_profile()[:200], cmyk_profile()])
def test_a_profile_that_does_not_fit_is_ignored(profile: bytes) -> None:
    picture = decode_picture(sample_file("PNG", icc_profile=profile), name="a", keep_profile=True)
    np.testing.assert_array_equal(picture.pixels, np.asarray(sample()))
    assert picture.metadata.icc is None


# --- what surrounds the picture -------------------------------------------------------------


def test_a_motion_photo_is_its_picture() -> None:
    jpeg = sample_file("JPEG")
    plain = decode_picture(jpeg, name="a.jpg")
    moving = decode_picture(jpeg + b"\0\0\0\x18ftypmp42" + bytes(5000) + jpeg, name="a.jpg")
    np.testing.assert_array_equal(plain.pixels, moving.pixels)


def test_a_camera_file_with_a_second_picture_is_its_first() -> None:
    data = sample_file("MPO", save_all=True, append_images=[sample(seed=5)])
    picture = decode_picture(data, name="a.jpg")
    assert picture.format == "jpeg"
    assert picture.size == (48, 32)


def test_restart_markers_and_odd_sizes() -> None:
    for size in ((1, 1), (7, 9), (16, 16), (17, 31)):
        for options in ({"restart_marker_blocks": 1}, {"progressive": True}, {"subsampling": 0}):
            data = sample_file("JPEG", sample(*size), quality=85, **options)
            with Image.open(io.BytesIO(data)) as image:
                expected = np.asarray(image)
            np.testing.assert_array_equal(decode_picture(data, name="a").pixels, expected)


def test_threads_do_not_disturb_each_other() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    files = [sample_file("JPEG", sample(64, 64, seed=seed)) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_picture(data, name="a").pixels, files))
    for data, pixels in zip(files, together, strict=True):
        np.testing.assert_array_equal(pixels, decode_picture(data, name="a").pixels)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.shared
def test_real_pictures_are_read_as_pillow_reads_them(shared: Path) -> None:
    folder = shared / "data" / "imagenet"
    count = 0
    for found in find_pictures([folder]):
        picture = read_picture(found.path, keep_profile=True)
        with Image.open(found.path) as image:
            expected = ImageOps.exif_transpose(image).convert("RGB")
        if count % 10 == 0:
            np.testing.assert_array_equal(picture.pixels, np.asarray(expected))
        count += 1
        if count == 100:
            break
    assert count == 100
