"""The page directories of a TIFF file, read without decoding anything."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["Page", "read_pages"]

_MAX_PAGES = 64
"""More than any pyramid of reduced copies has; beyond it the count does not matter."""

_KIND, _OLD_KIND, _WIDTH, _HEIGHT = 254, 255, 256, 257
_STARTS, _LENGTHS = (273, 324), (279, 325)
_WANTED = frozenset({_KIND, _OLD_KIND, _WIDTH, _HEIGHT, *_STARTS, *_LENGTHS})
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True)
class Page:
    """One page of a TIFF file.

    Args:
        size: ``(width, height)``; zero where the page does not say.
        is_reduced: It is a smaller copy or a mask of another page.
        strips: ``(start, length)`` in bytes of each piece of pixel data.
    """

    size: tuple[int, int]
    is_reduced: bool
    strips: tuple[tuple[int, int], ...]


def read_pages(data: bytes) -> list[Page]:
    """Read the chain of page directories.

    Args:
        data: A file that starts with a TIFF or BigTIFF signature.

    Returns:
        The pages in order; a chain that bites its own tail ends there.

    Raises:
        struct.error: The file ends within a directory.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    offset_at, offset_type = (8, "Q") if is_big else (4, "I")
    (position,) = struct.unpack_from(order + offset_type, data, offset_at)
    pages: list[Page] = []
    seen: set[int] = set()
    while position and position not in seen and len(pages) < _MAX_PAGES:
        seen.add(position)
        tags, position = _read_directory(data, position, order, is_big)
        pages.append(_page(tags))
    return pages


def _read_directory(
    data: bytes, position: int, order: str, is_big: bool
) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the wanted tags of the directory at ``position``, and where the next one is."""
    count_type, size_type, entry_size = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    (count,) = struct.unpack_from(order + count_type, data, position)
    position += struct.calcsize(order + count_type)
    tags: dict[int, tuple[int, ...]] = {}
    for start in range(position, min(position + count * entry_size, len(data)), entry_size):
        tag, type_, length = struct.unpack_from(f"{order}HH{size_type}", data, start)
        if tag not in _WANTED or type_ not in _TYPES:
            continue
        form = f"{order}{length}{_TYPES[type_]}"
        at = start + 4 + struct.calcsize(order + size_type)
        if struct.calcsize(form) > struct.calcsize(size_type):
            (at,) = struct.unpack_from(order + size_type, data, at)
        tags[tag] = struct.unpack_from(form, data, at)
    (following,) = struct.unpack_from(order + size_type, data, position + count * entry_size)
    return tags, following


def _page(tags: dict[int, tuple[int, ...]]) -> Page:
    def first(tag: int) -> int:
        return next(iter(tags.get(tag, ())), 0)

    starts = next((tags[tag] for tag in _STARTS if tag in tags), ())
    lengths = next((tags[tag] for tag in _LENGTHS if tag in tags), ())
    return Page(
        size=(first(_WIDTH), first(_HEIGHT)),
        is_reduced=bool(first(_KIND) & 0b101) or first(_OLD_KIND) == 2,
        strips=tuple(zip(starts, lengths, strict=False)),
    )
