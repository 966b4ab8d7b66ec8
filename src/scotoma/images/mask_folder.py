"""Regions read from a folder of masks that mirrors the folder of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from scotoma.core.errors import RegionError, UnreadableImageError
from scotoma.images.regions import Region
from scotoma.ops.components import find_components

__all__ = ["MASK_SUFFIXES", "MaskFolder"]

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".jpg", ".jpeg")


class MaskFolder:
    """Masks beside pictures (SPEC ``FOLDER``): what is not black is private.

    The mask of ``a/b.jpg`` is ``a/b`` or ``a/b.jpg`` with any suffix of ``MASK_SUFFIXES``. The
    folder is listed once, when it is opened. Each connected part of a mask is a region.

    Args:
        folder: Mirrors the input tree.

    Raises:
        RegionError: There is no mask in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._masks: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in MASK_SUFFIXES and path.is_file():
                stem = path.relative_to(folder).with_suffix("").as_posix()
                self._masks.setdefault(stem, []).append(path)
        if not self._masks:
            raise RegionError(
                f"expected masks ({', '.join(MASK_SUFFIXES)}) in {folder}, got none; "
                "give the folder that mirrors the pictures"
            )

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:
        """Return the connected private parts of a picture; none where its mask is all black.

        Raises:
            RegionError: The picture has no mask, several, or one of another size.
            UnreadableImageError: Its mask cannot be read.
        """
        stems = (relative.with_suffix("").as_posix(), relative.as_posix())
        paths = [path for stem in stems for path in self._masks.get(stem, [])]
        if len(paths) != 1:
            got = ", ".join(map(str, paths)) or "none"
            raise RegionError(
                f"expected one mask for {relative} in {self.folder}, got {got}; "
                "where nothing is private, give an all-black one"
            )
        mask = _read_mask(paths[0], (pixels.shape[1], pixels.shape[0]))
        return [
            Region(part.box, None if part.mask.all() else part.mask)
            for part in find_components(mask)
        ]


def _read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the ``(H, W)`` private pixels of a mask file for a picture of ``size``."""
    try:
        with Image.open(path) as file:
            # Sides may still be swapped by the orientation tag; nothing larger is decoded.
            if sorted(file.size) != sorted(size):
                raise _other_size(path, file.size, size)
            if getattr(file, "n_frames", 1) != 1:
                raise UnreadableImageError(
                    f"expected a still mask, got {file.n_frames} frames in {path}"  # type: ignore[attr-defined]
                )
            mask = ImageOps.exif_transpose(file)
    except RegionError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"expected a readable mask at {path}, got: {error}") from error
    if mask.size != size:
        raise _other_size(path, mask.size, size)
    if mask.has_transparency_data:
        alpha = np.asarray(mask.convert("RGBA"))[:, :, 3]
        if not (alpha == 255).all():
            raise RegionError(
                f"expected an opaque mask, got transparent pixels in {path}; flatten it, "
                "black where nothing is private"
            )
        mask = mask.convert("RGB")
    elif len(mask.getbands()) > 1 or mask.mode == "P":
        # What counts is the colour that the eye sees: black is not zero in every mode.
        mask = mask.convert("RGB")
    values = np.asarray(mask).reshape(mask.height, mask.width, -1)
    return np.asarray((values != 0).any(axis=2), np.bool_)


def _other_size(path: Path, got: tuple[int, int], size: tuple[int, int]) -> RegionError:
    return RegionError(
        f"expected a mask of {size[0]}x{size[1]} pixels like its picture, upright, "
        f"got {got[0]}x{got[1]} in {path}"
    )
