"""Reads one picture file, or says in one error what is wrong with it."""

from __future__ import annotations

import io
import stat
import threading
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from scotoma.core.errors import UnreadableImageError
from scotoma.images.colour import UnsupportedColourError, to_rgb
from scotoma.images.formats import READ_SUFFIXES, identify, unreadable
from scotoma.images.metadata import Metadata
from scotoma.images.picture import Picture
from scotoma.images.structure import Container, check_stream, inspect_container

__all__ = ["MAX_PIXELS", "decode_picture", "read_file", "read_picture"]

MAX_PIXELS = 200_000_000
"""More than any camera takes; four bytes for each of them still fit into memory."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FORMATS = "JPEG, PNG, WebP, AVIF, TIFF or BMP"
_UNDAMAGED = "get an undamaged copy"


def read_picture(
    path: Path, *, max_pixels: int = MAX_PIXELS, keep_profile: bool = False
) -> Picture:
    """Read a picture file.

    Args:
        path: The file.
        max_pixels: The largest width times height that is decoded.
        keep_profile: As in :func:`decode_picture`.

    Raises:
        UnreadableImageError: It is not one whole, still picture, or cannot be opened.
    """
    data = read_file(path, max_pixels=max_pixels)
    return decode_picture(data, name=str(path), max_pixels=max_pixels, keep_profile=keep_profile)


def read_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read a file's content, for whoever also wants its hash, to hand to :func:`decode_picture`.

    Args:
        path: The file.
        max_pixels: A file longer than any picture of so many pixels is not read.

    Raises:
        UnreadableImageError: It is missing, forbidden, a folder or a pipe, or far too long.
    """
    name, limit = str(path), 8 * max_pixels + 2**26
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
            raise unreadable(name, "a picture file", kind, "name a regular file")
        if status.st_size > limit:
            got = f"a file of {status.st_size} bytes"
            raise unreadable(name, f"at most {limit} bytes", got, "make it smaller")
        return path.read_bytes()
    except UnreadableImageError:
        raise
    except OSError as error:
        got = error.strerror or str(error)
        raise unreadable(
            name, "a file that can be opened", got, "check path and permissions"
        ) from error


def decode_picture(
    data: bytes, *, name: str, max_pixels: int = MAX_PIXELS, keep_profile: bool = False
) -> Picture:
    """Decode a picture file's content.

    Alpha is laid on white, 16 bits are scaled to 8, and colours are converted to sRGB
    where a profile says that they are something else; see :mod:`scotoma.images.colour`.

    Args:
        data: The file's content.
        name: The file's name: its suffix must fit the content, and messages start with it.
        max_pixels: The largest width times height that is decoded.
        keep_profile: Leave RGB pixels as stored, with their profile in the metadata, for
            whoever writes the profile too; without it they come as sRGB.

    Raises:
        UnreadableImageError: Truncated, empty, mislabelled, animated, too large, damaged,
            or no picture at all.
    """
    format_ = _check_format(data, name)
    container = inspect_container(data, format_, name)
    _check_frames(container.frames, name)
    if container.size is not None:
        _check_size(container.size, max_pixels, name)
    check_stream(container, name)
    try:
        with _QUIET_PILLOW, Image.open(io.BytesIO(container.data), formats=[format_]) as image:
            _check_size(image.size, max_pixels, name)
            if format_ in ("avif", "webp"):
                _check_frames(getattr(image, "n_frames", 1), name)
            return _finish(image, container, format_, keep_profile=keep_profile)
    except UnreadableImageError:
        raise
    except UnsupportedColourError as error:
        advice = "save it with 8 or 16 bits per channel as RGB, grey or CMYK"
        raise unreadable(name, "8-bit or 16-bit colours", str(error), advice) from error
    except Exception as error:
        # Pillow raises whatever a damaged file makes it stumble over; all of it means the same.
        cause = f"data that cannot be decoded ({type(error).__name__}: {error})"
        raise unreadable(name, f"a whole {format_.upper()} picture", cause, _UNDAMAGED) from error


def _check_format(data: bytes, name: str) -> str:
    """Return the format of the content; raise unless it is one we read and the name agrees."""
    if not data:
        raise unreadable(name, "a picture", "an empty file", _UNDAMAGED)
    named = READ_SUFFIXES.get(Path(name).suffix.lower())
    found, words = identify(data)
    if found is None:
        advice = "convert it to one of these or leave it out"
        raise unreadable(name, f"a picture as {_FORMATS}", words, advice)
    if named is not None and named != found:
        advice = "rename the file if that is what it should be"
        raise unreadable(name, f"{named.upper()} data, as its name says", words, advice)
    return found


def _check_frames(frames: int, name: str) -> None:
    if frames > 1:
        got = f"an animation or a file of several pages ({frames} frames)"
        raise unreadable(name, "one still picture", got, "save each frame as its own file")


def _check_size(size: tuple[int, int], max_pixels: int, name: str) -> None:
    width, height = size
    if not (width > 0 and height > 0):
        raise unreadable(name, "at least one pixel", f"{width}×{height}", _UNDAMAGED)
    if width * height > max_pixels:
        got = f"{width}×{height} = {width * height}"
        raise unreadable(
            name, f"at most {max_pixels} pixels", got, "make it smaller or raise the limit"
        )


def _finish(
    image: ImageFile.ImageFile, container: Container, format_: str, *, keep_profile: bool
) -> Picture:
    """Decode an opened file and bring it into the one form that all pictures have."""
    image.load()
    try:
        exif: Any = image.getexif()
        turn = _UPRIGHT.get(exif.get(_ORIENTATION, 1))
    except Exception:  # damaged metadata does not make a picture unreadable
        exif, turn = Image.Exif(), None
    icc = container.icc or image.info.get("icc_profile")
    rgb, kept = to_rgb(image, icc, keep_profile=keep_profile)
    if turn is not None:
        rgb = rgb.transpose(turn)
    pixels = np.array(rgb, dtype=np.uint8, order="C")
    return Picture(pixels, format_, Metadata.from_exif(exif, icc=kept))


class _QuietPillow:
    """While any thread is inside, Pillow neither warns nor applies its own size limit.

    Filters of warnings and Pillow's limit are global: saved and restored by each thread
    on its own, two threads would restore each other's state. So the first one in saves,
    and the last one out restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._limit
                self._filters.__exit__(kind, error, trace)


_QUIET_PILLOW = _QuietPillow()
