"""What a picture file says beside its pixels, and the little of it that may be kept.

Nothing survives by default. What is kept is written anew, tag by tag, from an
allow-list: an embedded thumbnail shows the picture as it was, a maker's note holds
whatever the maker liked, and XMP, IPTC and motion-photo trailers can hold both, so
no name below reaches any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from PIL import Image

from scotoma.core.errors import UnknownNameError

__all__ = ["KEEPABLE", "Metadata", "check_keep", "parse_keep"]

Value = str | bytes | int | float | tuple[float, ...]

_MAIN, _EXIF, _GPS = 0, 0x8769, 0x8825
_ORIENTATION = (_MAIN, 0x0112)
_TEXT_LIMIT = 2000
_NUMBERS_LIMIT = 16

KEEPABLE: Mapping[str, tuple[tuple[int, int], ...]] = MappingProxyType(
    {
        "artist": ((_MAIN, 0x013B),),
        "camera": ((_MAIN, 0x010F), (_MAIN, 0x0110), (_EXIF, 0xA433), (_EXIF, 0xA434)),
        "copyright": ((_MAIN, 0x8298),),
        "date": (
            (_MAIN, 0x0132),
            *((_EXIF, tag) for tag in (0x9003, 0x9004, 0x9010, 0x9011, 0x9012)),
            *((_EXIF, tag) for tag in (0x9290, 0x9291, 0x9292)),
        ),
        "description": ((_MAIN, 0x010E),),
        "exposure": tuple(
            (_EXIF, tag)
            for tag in (
                0x829A,
                0x829D,
                0x8822,
                0x8827,
                0x9201,
                0x9202,
                0x9204,
                0x9207,
                0x9209,
                0x920A,
                0xA402,
                0xA403,
                0xA405,
            )
        ),
        "gps": tuple((_GPS, tag) for tag in range(32)),
        "icc": (),
        "orientation": (_ORIENTATION,),
        "resolution": ((_MAIN, 0x011A), (_MAIN, 0x011B), (_MAIN, 0x0128)),
        "software": ((_MAIN, 0x0131),),
    }
)
"""Name to the ``(directory, tag)`` pairs that it keeps; ``icc`` is the colour profile.

``orientation`` can only ever say "upright", since pixels are turned when they are read.
"""


def parse_keep(text: str) -> frozenset[str]:
    """Read a comma-separated list of names, as ``--keep-metadata`` takes it.

    Args:
        text: For example ``"date,camera"``; empty for nothing.

    Returns:
        The names, all of them in :data:`KEEPABLE`.

    Raises:
        UnknownNameError: A name that cannot be kept.

    Example:
        >>> sorted(parse_keep("icc, date"))
        ['date', 'icc']
    """
    return check_keep(frozenset(name.strip() for name in text.split(",") if name.strip()))


def check_keep(keep: frozenset[str]) -> frozenset[str]:
    """Return ``keep``, or raise UnknownNameError for a name that cannot be kept."""
    for name in sorted(keep - KEEPABLE.keys()):
        raise UnknownNameError("keepable metadata", name, KEEPABLE)
    return keep


@dataclass(frozen=True, repr=False)
class Metadata:
    """What could be kept of one file's metadata; everything else was never taken in.

    Args:
        tags: Value of each ``(directory, tag)`` that :data:`KEEPABLE` lists.
        icc: The colour profile that the pixels are in; None for sRGB.
    """

    tags: Mapping[tuple[int, int], Value] = field(default_factory=dict)
    icc: bytes | None = None

    @classmethod
    def from_exif(cls, exif: Image.Exif, *, icc: bytes | None = None) -> Metadata:
        """Take the keepable tags out of what Pillow read.

        Args:
            exif: The directories; those that are damaged count as empty.
            icc: The colour profile that the pixels are in.
        """
        directories = {_MAIN: _directory(exif, _MAIN), _EXIF: {}, _GPS: {}}
        directories[_EXIF], directories[_GPS] = _directory(exif, _EXIF), _directory(exif, _GPS)
        tags: dict[tuple[int, int], Value] = {}
        for place in sorted({place for places in KEEPABLE.values() for place in places}):
            value = _clean(directories[place[0]].get(place[1]))
            if value is not None and place != _ORIENTATION:
                tags[place] = value
        return cls(tags, icc)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in :data:`KEEPABLE` that this file has something for."""
        has = {name for name, places in KEEPABLE.items() if any(p in self.tags for p in places)}
        return tuple(sorted(has | ({"icc"} if self.icc else set())))

    def __repr__(self) -> str:
        return f"Metadata(names={list(self.names)})"  # values may be private

    def to_exif(self, keep: frozenset[str]) -> bytes:
        """Write the kept tags as a new EXIF block.

        Args:
            keep: Names from :data:`KEEPABLE`.

        Returns:
            The block, the same bytes for the same tags; empty where nothing is kept.

        Raises:
            UnknownNameError: A name that cannot be kept.
        """
        exif = Image.Exif()
        for name in sorted(check_keep(keep)):
            for directory, tag in KEEPABLE[name]:
                value: Value | None = self.tags.get((directory, tag))
                if (directory, tag) == _ORIENTATION:
                    value = 1
                if value is None:
                    continue
                if isinstance(value, str) and directory == _MAIN and not value.isascii():
                    # Pillow reads text as Latin-1 and would write "?" for what is not ASCII.
                    value = value.encode("latin-1", "replace")
                if directory == _MAIN:
                    exif[tag] = value
                else:
                    exif.setdefault(directory, {})[tag] = value
        return exif.tobytes() if len(exif) else b""


def _directory(exif: Image.Exif, directory: int) -> dict[int, object]:
    try:
        return dict(exif if directory == _MAIN else exif.get_ifd(directory))
    except Exception:  # Pillow raises what a damaged directory makes it stumble over
        return {}


def _clean(value: object) -> Value | None:
    """Return a value of a size and kind that a tag of its sort has; None for anything else.

    A tag is a place to hide data in, a thumbnail for instance, whatever its name says.
    """
    if isinstance(value, str):
        return value if 0 < len(value) <= _TEXT_LIMIT else None
    if isinstance(value, bytes):
        return value if 0 < len(value) <= _NUMBERS_LIMIT else None
    if isinstance(value, tuple):
        is_number = all(isinstance(part, int | float) or _is_rational(part) for part in value)
        return value if is_number and 0 < len(value) <= _NUMBERS_LIMIT else None
    if isinstance(value, int | float) or _is_rational(value):
        return value  # type: ignore[return-value]
    return None


def _is_rational(value: object) -> bool:
    """Whether it is one of Pillow's fractions, with a denominator that can be written."""
    numerator, denominator = (getattr(value, n, None) for n in ("numerator", "denominator"))
    return isinstance(numerator, int) and isinstance(denominator, int) and denominator != 0
