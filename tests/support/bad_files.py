"""Files that are not one whole, still, readable picture: one of each kind, the same every time."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["bad_files", "jpeg_segment", "png_chunk", "sample", "sample_file"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BOMB_BYTES = 17 * 2**20


def bad_files() -> dict[str, tuple[str, bytes, str]]:
    """Return kind to (file name, content, a fragment of the error that it must cause).

    Every name has a picture's suffix, so that all of them are found in a folder.
    """
    kinds = {
        **_no_pictures(),
        **_truncated(),
        **_mislabelled(),
        **_animated(),
        **_too_large(),
        **_damaged(),
    }
    return {
        kind: (f"{kind.replace(' ', '-')}{suffix}", data, fragment)
        for kind, (suffix, data, fragment) in kinds.items()
    }


def sample(width: int = 48, height: int = 32, *, seed: int = 0) -> Image.Image:
    """Return an RGB picture that compresses about as badly as a photograph."""
    generator = np.random.default_rng(seed)
    steps = generator.normal(0, 4, (height, width, 3))
    walk = 128 + np.cumsum(steps, axis=1) + 40 * np.linspace(-1, 1, height)[:, None, None]
    return Image.fromarray(np.clip(walk, 0, 255).astype(np.uint8))


def sample_file(format_: str, image: Image.Image | None = None, **options: Any) -> bytes:
    """Return a picture as the content of a file."""
    buffer = io.BytesIO()
    (image or sample()).save(buffer, format_, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """Return a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _png(width: int, height: int, packed: bytes | None, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = b"" if packed is None else png_chunk(b"IDAT", packed)
    return _SIGNATURE + header + b"".join(extra) + pixels + png_chunk(b"IEND", b"")


def _rows(width: int, height: int) -> bytes:
    return zlib.compress(bytes((1 + 3 * width) * height))


def _patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _flipped(data: bytes, start: float, stop: float) -> bytes:
    """Invert the bytes between two fractions of the file."""
    first, last = int(len(data) * start), int(len(data) * stop)
    return data[:first] + bytes(255 - value for value in data[first:last]) + data[last:]


def _undated(data: bytes) -> bytes:
    """Set the times of creation and change to nought in the boxes that have them."""
    for kind in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.index(kind) + 4
        data = _patched(data, at + 4, bytes(16 if data[at] else 8))
    return data


def _jpeg_frame(data: bytes) -> int:
    """Return where the frame header's height lies."""
    return data.index(b"\xff\xc0") + 5


def _tiff_tag(data: bytes, tag: int, value: int) -> bytes:
    """Set a LONG or SHORT in the first directory of a little-endian TIFF."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] == tag:
            return _patched(data, entry + 2, struct.pack("<HII", 4, 1, value))
    raise KeyError(tag)


def _no_pictures() -> dict[str, tuple[str, bytes, str]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("a.txt", (1980, 1, 1, 0, 0, 0)), "words")
    noise = np.random.default_rng(7).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    heic = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + noise
    video = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp42") + noise
    return {
        "empty": (".jpg", b"", "got an empty file"),
        "zero bytes": (".png", bytes(4000), "got nothing but zero bytes"),
        "text": (".jpg", "Grüße, no picture here.\n".encode() * 300, "got text"),
        "html": (".png", b"\n<!DOCTYPE html><title>404</title>", "got an HTML page"),
        "svg": (".png", b'<?xml version="1.0"?>\n<svg width="9"/>', "got an SVG drawing"),
        "pdf": (".jpg", b"%PDF-1.7\n" + noise, "got a PDF document"),
        "zip": (".tif", archive.getvalue(), "got a ZIP archive"),
        "gzip": (".bmp", b"\x1f\x8b\x08\0" + noise, "got a compressed archive"),
        "random": (".webp", noise, "got bytes of no known picture format"),
        "heic": (".heic", heic, "got a HEIC picture"),
        "video": (".avif", video, "got a video"),
        "jpeg 2000": (".jp2", sample_file("JPEG2000"), "got a JPEG 2000 picture"),
    }


def _truncated() -> dict[str, tuple[str, bytes, str]]:
    cut = "got a truncated file"
    jpeg, png, avif = sample_file("JPEG"), sample_file("PNG"), sample_file("AVIF")
    webp, bmp, tiff = sample_file("WEBP"), sample_file("BMP"), sample_file("TIFF")
    packed = sample_file("TIFF", compression="tiff_adobe_deflate")
    progressive, fine = sample_file("JPEG", progressive=True), sample_file("JPEG", quality=97)
    return {
        "truncated jpeg": (".jpg", jpeg[: len(jpeg) * 3 // 4], cut),
        "truncated progressive": (".jpg", progressive[: len(progressive) // 2], cut),
        "jpeg without end": (".jpg", jpeg[:-2], cut),
        "jpeg header only": (".jpg", jpeg[:20], cut),
        "jpeg ending early": (".jpg", fine[: len(fine) - 400] + b"\xff\xd9", "file is truncated"),
        "truncated png": (".png", png[: len(png) // 2], cut),
        "png without end": (".png", png[:-12], cut),
        "truncated webp": (".webp", webp[: len(webp) // 2], cut),
        "truncated avif": (".avif", avif[: len(avif) * 3 // 4], cut),
        "truncated tiff": (".tif", tiff[: len(tiff) // 2], cut),
        "truncated packed tiff": (".tiff", packed[: len(packed) // 2], cut),
        "truncated bmp": (".bmp", bmp[: len(bmp) // 2], "file is truncated"),
    }


def _mislabelled() -> dict[str, tuple[str, bytes, str]]:
    said = "data, as its name says, got"
    return {
        "png called jpeg": (".jpg", sample_file("PNG"), f"JPEG {said} PNG"),
        "jpeg called png": (".png", sample_file("JPEG"), f"PNG {said} JPEG"),
        "webp called jpeg": (".jpeg", sample_file("WEBP"), f"JPEG {said} WEBP"),
        "avif called webp": (".webp", sample_file("AVIF"), f"WEBP {said} AVIF"),
        "bmp called tiff": (".tif", sample_file("BMP"), f"TIFF {said} BMP"),
        "tiff called bmp": (".bmp", sample_file("TIFF"), f"BMP {said} TIFF"),
    }


def _animated() -> dict[str, tuple[str, bytes, str]]:
    several = "(3 frames)"
    options: dict[str, Any] = {
        "save_all": True,
        "append_images": [sample(seed=1), sample(seed=2)],
    }
    return {
        "animated gif": (".gif", sample_file("GIF", **options), "got a GIF, which may be animated"),
        "animated png": (".png", sample_file("PNG", **options), several),
        "animated webp": (".webp", sample_file("WEBP", **options), several),
        "animated avif": (".avif", _undated(sample_file("AVIF", **options)), several),
        "several pages": (".tif", sample_file("TIFF", **options), several),
    }


def _too_large() -> dict[str, tuple[str, bytes, str]]:
    limit = "expected at most 200000000 pixels"
    jpeg, bmp, tiff, avif = (sample_file(name) for name in ("JPEG", "BMP", "TIFF", "AVIF"))
    huge = _tiff_tag(_tiff_tag(tiff, 256, 60_000), 257, 60_000)
    canvas = (60_000 - 1).to_bytes(3, "little") * 2
    webp = sample_file("WEBP", exif=b"II*\0" + bytes(8))
    zeros = zlib.compress(bytes(_BOMB_BYTES), 9)
    bomb = "a decompression bomb"
    text = png_chunk(b"zTXt", b"Comment\0\0" + zeros)
    utf8 = png_chunk(b"iTXt", b"Comment\0\x01\0\0\0" + zeros)
    profile = png_chunk(b"iCCP", b"icc\0\0" + zeros)
    ispe = avif.index(b"ispe") + 8
    return {
        "bomb jpeg": (".jpg", _patched(jpeg, _jpeg_frame(jpeg), b"\xfd\xe8" * 2), limit),
        "bomb png": (".png", _png(60_000, 60_000, zeros), limit),
        "bomb webp": (".webp", _patched(webp, 24, canvas), limit),
        "bomb avif": (".avif", _patched(avif, ispe, struct.pack(">II", 20_000, 12_000)), limit),
        "bomb tiff": (".tif", huge, limit),
        "bomb bmp": (".bmp", _patched(bmp, 18, struct.pack("<ii", 60_000, 60_000)), limit),
        "bomb in comment": (".png", _png(9, 9, _rows(9, 9), text), bomb),
        "bomb in utf8 comment": (".png", _png(9, 9, _rows(9, 9), utf8), bomb),
        "bomb in profile": (".png", _png(9, 9, _rows(9, 9), profile), bomb),
    }


def _damaged() -> dict[str, tuple[str, bytes, str]]:
    none, decoding = "at least one pixel", "data that cannot be decoded"
    jpeg, png, bmp, tiff = (sample_file(name) for name in ("JPEG", "PNG", "BMP", "TIFF"))
    webp, avif = sample_file("WEBP", lossless=True), sample_file("AVIF")
    floating = sample_file("TIFF", Image.fromarray(np.ones((4, 5), np.float32)))
    tables = jpeg.replace(b"\xff\xdb", b"\xff\xed")  # its tables become application data
    frame = avif.index(b"mdat") + 4
    return {
        "zero jpeg": (".jpg", _patched(jpeg, _jpeg_frame(jpeg), bytes(2)), none),
        "zero png": (".png", _png(0, 7, _rows(0, 7)), none),
        "zero tiff": (".tif", _tiff_tag(tiff, 256, 0), none),
        "zero bmp": (".bmp", _patched(bmp, 18, bytes(4)), none),
        "checksum": (".png", _flipped(png, 0.5, 0.52), "'IDAT' that does not match its checksum"),
        "short pixels": (".png", _png(9, 9, _rows(9, 5)), "pixel data that ends early"),
        "damaged pixels": (".png", _png(9, 9, b"no zlib stream"), "pixel data that is damaged"),
        "png without pixels": (".png", _png(9, 9, None), "a PNG without picture data"),
        "png without header": (".png", _SIGNATURE + png[33:], "instead of its header"),
        "png unknown chunk": (".png", _png(9, 9, _rows(9, 9), png_chunk(b"ABCD", b"")), "'ABCD'"),
        "jpeg without scan": (".jpg", b"\xff\xd8\xff\xd9", "a JPEG without picture data"),
        "jpeg without tables": (".jpg", tables, decoding),
        "damaged webp": (".webp", _patched(webp, 25, b"\xff" * 40), decoding),
        "damaged avif": (".avif", _patched(avif, frame, b"\xff" * 40), decoding),
        "tiff loop": (".tif", b"II*\0" + bytes(4), "a TIFF without a picture"),
        "floating point": (".tif", floating, "expected 8-bit or 16-bit colours"),
    }
