"""Any picture that Pillow decodes, as 8-bit RGB that looks the same.

What is decided here, and why:

- Transparency is laid on white, as browsers and viewers show it. Dropping the alpha
  channel instead would bring back what an editor erased.
- A profile other than sRGB is applied, so that colours stay when the profile goes. A
  picture in sRGB, or without a profile, keeps its numbers exactly.
- 16 bits are scaled to 8, never clipped. Floating point and 32 bits have no agreed
  white, so they are refused.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

__all__ = ["UnsupportedColourError", "to_rgb"]

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_WHITE = 255
_PHOTOMETRIC, _BITS_PER_SAMPLE = 262, 258


class UnsupportedColourError(Exception):
    """Pixels that have no agreed meaning as 8-bit RGB; the message continues after "got"."""


def to_rgb(
    image: Image.Image, icc: bytes | None, *, keep_profile: bool = False
) -> tuple[Image.Image, bytes | None]:
    """Convert a decoded picture to RGB.

    Args:
        image: Any mode; loaded.
        icc: Its colour profile, if it has one. One that is broken, or made for other
            channels than the picture has, is ignored, as viewers do.
        keep_profile: Leave RGB pixels in their profile instead of converting them.

    Returns:
        The RGB image, and the profile that it is in; None for sRGB.

    Raises:
        UnsupportedColourError: Floating point, 32 bits, Lab.
    """
    image, alpha = _split_alpha(_to_8_bit(image))
    if image.mode not in _SPACES:
        raise UnsupportedColourError(f"pixels in Pillow's mode {image.mode!r}")
    profile = _open_profile(icc, _SPACES[image.mode])
    is_kept = keep_profile and profile is not None and image.mode == "RGB"
    if profile is not None and not is_kept:
        image = _apply_profile(image, profile)
    rgb = image.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", rgb.size, (_WHITE,) * 3)
        white.paste(rgb, mask=alpha)
        rgb = white
    return rgb, icc if is_kept else None


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the picture as L, RGB, CMYK or a mode not handled here, and its alpha if any."""
    if image.mode in ("RGBA", "LA") or image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        colours = rgba.convert("RGB")
        return (colours.getchannel("R") if image.mode == "LA" else colours), alpha
    if image.mode in ("1", "L"):
        return image.convert("L"), None
    return image.convert("RGB") if image.mode in ("P", "YCbCr", "RGBX") else image, None


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit greys to 8 bits; other modes come back as they are."""
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > _WHITE:
        image.info["transparency"] = tuple(part >> 8 for part in key)  # Pillow scales pixels only
    if not image.mode.startswith("I;16"):
        return image
    tags = getattr(image, "tag_v2", {})
    most = 2 ** min(int(next(iter(tags.get(_BITS_PER_SAMPLE, (16,))))), 16) - 1
    wide = np.asarray(image).astype(np.uint32)
    grey = np.minimum((wide * _WHITE + most // 2) // most, _WHITE).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:
        grey = _WHITE - grey  # white is zero; Pillow leaves that to us at this depth
    if isinstance(key, int):
        return Image.merge("LA", [Image.fromarray(part) for part in (grey, _opaque(wide, key))])
    return Image.fromarray(grey)


def _opaque(wide: NDArray[np.uint32], key: int) -> NDArray[np.uint8]:
    return np.where(wide == key, 0, _WHITE).astype(np.uint8)


def _open_profile(icc: bytes | None, space: str) -> ImageCms.ImageCmsProfile | None:
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return profile if profile.profile.xcolor_space.strip() == space else None
    except (OSError, ImageCms.PyCMSError):
        return None


def _apply_profile(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    try:
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except ImageCms.PyCMSError:
        return image
    if image.mode == "RGB" and _changes_nothing(transform):
        return image
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a profile is sRGB under some name: then numbers stay, free of rounding."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    moved = ImageCms.applyTransform(Image.fromarray(grid), transform)
    return bool(np.abs(np.asarray(moved).astype(int) - grid).max() <= 1)
