"""Naive fills: what takes the place of a private region before any search.

A background-only fill is handed a picture whose private pixels are already gone, so it
cannot tell an onlooker anything about them. The others leave a trace of what they cover:
they are here because they are what people use, and to be compared with.

A plugin is an entry point in the group ``scotoma.fills`` that names a :class:`Fill`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from scotoma.core.errors import ImageError, RegionError
from scotoma.core.registry import Registry
from scotoma.ops.components import Component, dilate, find_components
from scotoma.ops.inpaint import interpolate

__all__ = ["DEFAULT_FILL", "Fill", "apply_fill", "fills"]

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Painter = Callable[[Pixels, Mask, Component, np.random.Generator], Pixels]

DEFAULT_FILL = "solid"
_GREY = 128
_MOST_RING = 32
_CELLS = 7
_LEAST_CELL = 4


@dataclass(frozen=True)
class Fill:
    """One way to paint over private pixels.

    Args:
        name: As on the command line.
        background_only: Whether it reads nothing of what it covers.
        summary: One line for listings.
        apply: From ``(H, W, 3)`` uint8 pixels, ``(H, W)`` bool mask and a generator to new
            pixels; :func:`apply_fill` takes only the masked ones from it.
    """

    name: str
    background_only: bool
    summary: str
    apply: Callable[[Pixels, Mask, np.random.Generator], Pixels]


fills: Registry[Fill] = Registry("fill")


def apply_fill(pixels: Pixels, mask: Mask, fill: Fill, *, seed: int) -> Pixels:
    """Return a copy of a picture with its private pixels painted over.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        mask: ``(H, W)`` bool, true where private.
        fill: From :data:`fills`.
        seed: Of the fill's randomness; the same seed gives the same bytes.

    Returns:
        ``(H, W, 3)`` uint8, equal to ``pixels`` outside the mask.

    Raises:
        ImageError: ``pixels`` is not an RGB picture of bytes.
        RegionError: ``mask`` does not fit it.

    Security:
        A background-only fill never gets the private pixels: they are blanked in the copy it
        works on. Two pictures that differ only inside the mask give the same bytes.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ImageError(
            f"expected (H, W, 3) uint8 pixels, got {pixels.dtype} of shape {pixels.shape}"
        )
    if mask.shape != pixels.shape[:2] or mask.dtype != np.bool_:
        raise RegionError(
            f"expected a bool mask of shape {pixels.shape[:2]}, "
            f"got {mask.dtype} of shape {mask.shape}"
        )
    filled = pixels.copy()
    if not mask.any():
        return filled
    where = mask[:, :, None]
    if fill.background_only:
        np.copyto(filled, np.uint8(_GREY), where=where)
    painted = fill.apply(filled, mask, np.random.default_rng(seed))
    if painted.shape != pixels.shape or painted.dtype != np.uint8:
        raise ImageError(
            f"expected fill {fill.name!r} to return uint8 pixels of shape {pixels.shape}, "
            f"got {painted.dtype} of shape {painted.shape}"
        )
    np.copyto(filled, painted, where=where)
    return filled


def _register(name: str, summary: str, *, background_only: bool) -> Callable[[Painter], Painter]:
    """Return a decorator that enters a painter of single components as a fill."""

    def enter(paint: Painter) -> Painter:
        def apply(pixels: Pixels, mask: Mask, generator: np.random.Generator) -> Pixels:
            painted = pixels.copy()
            for component in find_components(mask):
                x0, y0, x1, y1 = component.box
                colours = paint(pixels, mask, component, generator)
                np.copyto(painted[y0:y1, x0:x1], colours, where=component.mask[:, :, None])
            return painted

        fills.register(name)(Fill(name, background_only, summary, apply))
        return paint

    return enter


@_register("solid", "mean colour of the ring around the region", background_only=True)
def _paint_solid(
    pixels: Pixels,
    mask: Mask,
    component: Component,
    generator: np.random.Generator,  # noqa: ARG001
) -> Pixels:
    mean = _ring_colours(pixels, mask, component).mean(axis=0)
    colour: Pixels = np.rint(mean).astype(np.uint8)
    return colour[None, None]


@_register("inpaint", "smooth surface through the region's surroundings", background_only=True)
def _paint_inpaint(
    pixels: Pixels,
    mask: Mask,
    component: Component,
    generator: np.random.Generator,  # noqa: ARG001
) -> Pixels:
    x0, y0, x1, y1 = _widen(component.box, _ring_width(component), mask)
    known = ~mask[y0:y1, x0:x1]
    if not known.any():
        return np.full((1, 1, 3), _GREY, np.uint8)
    values = pixels[y0:y1, x0:x1].transpose(2, 0, 1).astype(np.float32)
    surface = np.rint(interpolate(values, known)).clip(0, 255).astype(np.uint8)
    left, top, right, bottom = component.box
    return surface.transpose(1, 2, 0)[top - y0 : bottom - y0, left - x0 : right - x0]


@_register("noise", "noise with the mean and spread of the ring", background_only=True)
def _paint_noise(
    pixels: Pixels, mask: Mask, component: Component, generator: np.random.Generator
) -> Pixels:
    ring = _ring_colours(pixels, mask, component)
    shape = (*component.mask.shape, 3)
    noise = generator.standard_normal(shape, dtype=np.float32)
    noise *= ring.std(axis=0).astype(np.float32)
    noise += ring.mean(axis=0).astype(np.float32)
    return np.rint(noise).clip(0, 255).astype(np.uint8)


@_register("blur", "Gaussian blur as wide as the region asks for", background_only=False)
def _paint_blur(
    pixels: Pixels,
    mask: Mask,
    component: Component,
    generator: np.random.Generator,  # noqa: ARG001
) -> Pixels:
    left, top, right, bottom = component.box
    sigma = max(2.0, 0.15 * max(right - left, bottom - top))
    x0, y0, x1, y1 = _widen(component.box, round(2 * sigma), mask)
    part = Image.fromarray(pixels[y0:y1, x0:x1]).filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(part)[top - y0 : bottom - y0, left - x0 : right - x0]


@_register("pixelate", "mean colours of a few large cells", background_only=False)
def _paint_pixelate(
    pixels: Pixels,
    mask: Mask,  # noqa: ARG001
    component: Component,
    generator: np.random.Generator,  # noqa: ARG001
) -> Pixels:
    x0, y0, x1, y1 = component.box
    part = pixels[y0:y1, x0:x1]
    rows, columns = _cell_edges(component.mask.shape)
    sums = np.add.reduceat(part, rows[:-1], axis=0, dtype=np.int64)
    sums = np.add.reduceat(sums, columns[:-1], axis=1)
    heights, widths = np.diff(rows), np.diff(columns)
    means = np.rint(sums / (heights[:, None] * widths[None, :])[:, :, None]).astype(np.uint8)
    cells: Pixels = means.repeat(heights, axis=0).repeat(widths, axis=1)
    return cells


@_register("inverse-super-resolution", "shrunk to a few pixels, enlarged", background_only=False)
def _paint_inverse_super_resolution(
    pixels: Pixels,
    mask: Mask,  # noqa: ARG001
    component: Component,
    generator: np.random.Generator,  # noqa: ARG001
) -> Pixels:
    x0, y0, x1, y1 = component.box
    part = Image.fromarray(pixels[y0:y1, x0:x1])
    rows, columns = _cell_edges(component.mask.shape)
    small = part.resize((len(columns) - 1, len(rows) - 1), Image.Resampling.BICUBIC)
    return np.asarray(small.resize(part.size, Image.Resampling.BICUBIC))


def _cell_edges(shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where cells begin and end, down and across: near squares, none of them a sliver.

    A sliver of a cell at the edge would be its own few pixels' mean, hence nearly themselves.
    The longer side counts: of a face that the picture's border cuts, only the width is small.
    """
    cell = max(_LEAST_CELL, max(shape) / _CELLS)
    rows, columns = (
        np.linspace(0, side, max(1, int(side / cell)) + 1).astype(np.intp) for side in shape
    )
    return rows, columns


def _ring_colours(pixels: Pixels, mask: Mask, component: Component) -> Pixels:
    """Return ``(N, 3)`` background pixels near a component; mid grey where there are none at all.

    Pixels of other components are private too and take no part. What lies next to a component
    is background, so only one that covers the whole picture has no ring.
    """
    width = _ring_width(component)
    x0, y0, x1, y1 = _widen(component.box, width, mask)
    left, top, right, bottom = component.box
    own = np.zeros((y1 - y0, x1 - x0), np.bool_)
    own[top - y0 : bottom - y0, left - x0 : right - x0] = component.mask
    ring = dilate(own, width) & ~mask[y0:y1, x0:x1]
    if not ring.any():
        return np.full((1, 3), _GREY, np.uint8)
    colours: Pixels = pixels[y0:y1, x0:x1][ring]
    return colours


def _ring_width(component: Component) -> int:
    height, width = component.mask.shape
    return min(_MOST_RING, max(3, int(min(height, width)) // 8))


def _widen(box: tuple[int, int, int, int], margin: int, mask: Mask) -> tuple[int, int, int, int]:
    """Return ``box`` with a margin, inside the picture."""
    height, width = mask.shape
    return (
        max(box[0] - margin, 0),
        max(box[1] - margin, 0),
        min(box[2] + margin, width),
        min(box[3] + margin, height),
    )
