"""Which picture format a file holds, told from its first bytes and from its name."""

from __future__ import annotations

import re

from scotoma.core.errors import UnreadableImageError

__all__ = ["PICTURE_SUFFIXES", "READ_SUFFIXES", "identify", "unreadable"]

READ_SUFFIXES = {
    ".avif": "avif",
    ".avifs": "avif",
    ".apng": "png",
    ".bmp": "bmp",
    ".jfif": "jpeg",
    ".jpe": "jpeg",
    ".jpeg": "jpeg",
    ".jpg": "jpeg",
    ".mpo": "jpeg",
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
}
"""Suffix to the format that such a file must hold."""

PICTURE_SUFFIXES = frozenset(READ_SUFFIXES) | {".gif", ".heic", ".heif", ".jp2", ".jxl"}
"""What counts as a picture in a folder.

Pictures that cannot be read are among them: each then fails with an error that
says so, instead of being passed over in silence.
"""

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"})
_OTHERS = (
    (rb"GIF8[79]a", "a GIF, which may be animated"),
    (rb"%PDF", "a PDF document"),
    (rb"PK(\x03\x04|\x05\x06)", "a ZIP archive"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "a compressed archive"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (rb"8BPS", "a Photoshop document"),
    (rb"\x00\x00\x01\x00", "an icon"),
    (rb"(?is)(\xef\xbb\xbf)?\s*(<!doctype html|<html)", "an HTML page"),
    (rb"(?is)(\xef\xbb\xbf)?\s*(<\?xml.{0,1000})?\s*<svg", "an SVG drawing"),
    (rb"\x00+\Z", "nothing but zero bytes"),
)


def identify(data: bytes) -> tuple[str | None, str]:
    """Tell what a file holds from its first bytes.

    Args:
        data: The file's content.

    Returns:
        The format's name (a value of :data:`READ_SUFFIXES`) or None for what is
        not read here, and words for it that fit after "got".
    """
    found = _identify_readable(data)
    if found is not None:
        return found, f"{found.upper()} data"
    if data[4:8] == b"ftyp":
        brands = _brands(data)
        if brands & _HEIC_BRANDS:
            return None, "a HEIC picture"
        return None, "a video" if brands & {b"isom", b"mp42", b"qt  "} else "an unknown media file"
    for pattern, words in _OTHERS:
        if re.match(pattern, data[:4096]):
            return None, words
    return None, "text" if _looks_like_text(data[:4096]) else "bytes of no known picture format"


def unreadable(name: str, expected: str, got: str, advice: str) -> UnreadableImageError:
    """Return the error for one file, in the form that all of them have."""
    return UnreadableImageError(f"{name}: expected {expected}, got {got}; {advice}")


def _identify_readable(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[4:8] == b"ftyp" and _brands(data) & _AVIF_BRANDS:
        return "avif"
    # "BM" alone would take many a text for a bitmap; the header's size follows at byte 14.
    if data.startswith(b"BM") and data[14:18] in _BMP_HEADERS:
        return "bmp"
    return None


_BMP_HEADERS = frozenset(size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124))


def _brands(data: bytes) -> frozenset[bytes]:
    box = data[8 : min(int.from_bytes(data[:4], "big"), 4096)]
    return frozenset(box[start : start + 4] for start in range(0, len(box), 4) if start != 4)


def _looks_like_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\n\r\t\f" for letter in text)
