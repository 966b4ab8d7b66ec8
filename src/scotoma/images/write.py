"""Encodes pictures and puts them into place: whole or not at all, and never over an original."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scotoma.core.errors import (
    FileError,
    ImageError,
    SettingsError,
    UnknownNameError,
    UnsafePathError,
)
from scotoma.images.metadata import Metadata, check_keep
from scotoma.images.picture import check_pixels

__all__ = ["Encoding", "check_output_path", "encode_picture", "write_atomically"]

_SUFFIXES = {"avif": ".avif", "jpeg": ".jpg", "png": ".png", "webp": ".webp"}
_LONGEST_SIDE = {"avif": 65_536, "jpeg": 65_500, "png": 2**31 - 1, "webp": 16_383}
_FULL_COLOUR_QUALITY = 90


@dataclass(frozen=True)
class Encoding:
    """How a picture is written.

    Args:
        format: ``png`` (lossless), ``jpeg``, ``webp`` or ``avif``.
        quality: 1 to 100, as the format's own encoder counts; png ignores it.

    Raises:
        SettingsError: Another format or quality.
    """

    format: str = "png"
    quality: int = 90

    def __post_init__(self) -> None:
        if self.format not in _SUFFIXES:
            raise UnknownNameError("output format", self.format, _SUFFIXES)
        if not (isinstance(self.quality, int) and 1 <= self.quality <= 100):
            raise SettingsError(f"expected a quality from 1 to 100, got {self.quality!r}")

    @property
    def lossless(self) -> bool:
        """Whether what is read back equals what was written."""
        return self.format == "png"

    @property
    def suffix(self) -> str:
        """The file name's ending, with its dot."""
        return _SUFFIXES[self.format]


def encode_picture(
    pixels: NDArray[np.uint8],
    encoding: Encoding,
    *,
    metadata: Metadata | None = None,
    keep: frozenset[str] = frozenset(),
) -> bytes:
    """Encode pixels as a file's content: same input, same bytes.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        encoding: Format and quality.
        metadata: What the original had, for ``keep`` to choose from.
        keep: Names from :data:`~scotoma.images.metadata.KEEPABLE`; nothing else is written.

    Returns:
        The file's content.

    Raises:
        ImageError: Pixels of another shape or type, or more than the format can hold.
        UnknownNameError: A name in ``keep`` that cannot be kept.
    """
    check_pixels(pixels)
    check_keep(keep)
    longest = max(pixels.shape[:2])
    if longest > _LONGEST_SIDE[encoding.format]:
        raise ImageError(
            f"expected sides of at most {_LONGEST_SIDE[encoding.format]} pixels for "
            f"{encoding.format}, got {longest}; write png instead"
        )
    options = _options(encoding)
    if metadata is not None and keep:
        # AVIF says how a picture is turned in a box of its own, where upright goes without saying.
        in_exif = keep - {"orientation"} if encoding.format == "avif" else keep
        options["exif"] = metadata.to_exif(in_exif)
        if "icc" in keep and metadata.icc:
            options["icc_profile"] = metadata.icc
    buffer = io.BytesIO()
    # A fresh image carries no metadata that Pillow could pass on by itself.
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, encoding.format.upper(), **options)
    return buffer.getvalue()


def _options(encoding: Encoding) -> dict[str, Any]:
    quality = encoding.quality
    if encoding.format == "png":
        # On photographs level 6 saves 1 % to 15 % of the bytes for three times the time or more.
        return {"compress_level": 1}
    # Full colour resolution from quality 90 on, as ImageMagick does it: who asks for
    # that quality wants the pixels, and so does a classifier.
    subsampling = "4:4:4" if quality >= _FULL_COLOUR_QUALITY else "4:2:0"
    if encoding.format == "jpeg":
        # No "optimize": it saves a few percent, and Pillow's buffer for it is too small for noise.
        return {"quality": quality, "subsampling": subsampling}
    if encoding.format == "webp":
        return {"quality": quality, "method": 4}
    # Tiling by the number of cores would make the bytes depend on the machine.
    return {"quality": quality, "speed": 6, "subsampling": subsampling, "autotiling": False}


def write_atomically(
    path: Path, data: bytes | BinaryIO, *, before_rename: Callable[[Path], None] | None = None
) -> None:
    """Write a file so that it is seen whole or not at all.

    The bytes go to a hidden file in the same folder that is renamed when they are safe on
    disk. Its name depends on ``path`` alone, so what a killed run left is replaced by the
    next. A link at ``path`` is replaced, never followed.

    Args:
        path: Where to; its folder is made if missing.
        data: The content, or an open file that is read to its end, a piece at a time.
        before_rename: Called with the hidden file once it is safe on disk; what it raises
            is passed on, and ``path`` stays as it was.

    Raises:
        FileError: It could not be written; nothing is left behind.
    """
    short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:24]
    part = path.with_name(f".{short}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        try:
            # "x" refuses whatever appears there meanwhile, a planted link for instance.
            with part.open("xb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    shutil.copyfileobj(data, file)
                file.flush()
                os.fsync(file.fileno())
            if before_rename is not None:
                before_rename(part)
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise FileError(
            f"expected to write {path}, got {error.strerror or error}; "
            "check permissions and free space"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, on systems that can open a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_output_path(path: Path, originals: Collection[Path]) -> None:
    """Raise if writing ``path`` would replace an original, whatever it is called there.

    Args:
        path: The file to be written.
        originals: The files that must stay as they are.

    Raises:
        UnsafePathError: It is one of them, directly or through a symbolic or hard link,
            or it is a folder.
    """
    there = _identities(path)
    if not there:
        return
    if path.is_dir():
        raise UnsafePathError(
            f"expected a file to write, got the folder {path}; choose another output folder"
        )
    for original in originals:
        if there & _identities(original):
            raise UnsafePathError(
                f"expected an output beside the originals, got {path}, which is the original "
                f"{original}; choose another output folder"
            )


def _identities(path: Path) -> frozenset[tuple[int, int]]:
    """Device and file number of what is at ``path``, and of what a link there leads to."""
    found = set()
    for look in (os.lstat, os.stat):
        with contextlib.suppress(OSError):
            status = look(path)
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)
