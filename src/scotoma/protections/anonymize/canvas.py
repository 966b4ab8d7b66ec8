"""One picture whose private regions are being searched.

The search does not move pixels but *cells*: a coarse grid of offsets from the naive
fill, spread over the region by a fixed linear map. So the result stays calm, survives
re-encoding, and a 12-megapixel photo costs no more per step than a thumbnail: the maps
from cells to pixels and from pixels to a model's input are multiplied once, into
``input = rows @ cells @ columns.T``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scotoma.core.errors import RegionError
from scotoma.images.regions import Region
from scotoma.models.geometry import Geometry
from scotoma.ops.resampling import cell_matrix

__all__ = ["Canvas", "Footprint"]

Pixels = NDArray[np.uint8]


@dataclass(eq=False)
class _Patch:
    """One region: where it lies, and its cells."""

    top: int
    left: int
    spread_rows: Tensor  # (h, cells down)
    spread_columns: Tensor  # (w, cells across)
    mask: Tensor | None  # (h, w) float32, None for a whole rectangle
    base: Tensor  # (3, h, w) float32, the naive fill in 0..255
    cells: Tensor  # (3, cells down, cells across), offsets in 0..255
    low: Tensor
    high: Tensor

    def offsets(self, cells: Tensor) -> Tensor:
        """``(..., 3, h, w)``: cells spread over the region's pixels."""
        pixels = self.spread_rows @ cells @ self.spread_columns.T
        return pixels if self.mask is None else pixels * self.mask


@dataclass(frozen=True, eq=False)
class _PatchFootprint:
    rows: Tensor
    columns: Tensor


@dataclass(frozen=True, eq=False)
class Footprint:
    """How the cells of one canvas act on the input of one model."""

    patches: tuple[_PatchFootprint, ...]
    scale: Tensor  # (3, 1, 1): from 0..255 to normalized input

    @property
    def reaches(self) -> bool:
        """Whether the model sees any of the cells; its crop may leave them out."""
        return any(bool(part.rows.any() and part.columns.any()) for part in self.patches)


class Canvas:
    """The searchable content of one picture's regions.

    Args:
        naive: ``(H, W, 3)`` uint8, the picture after the naive fill.
        regions: Its private regions; where they overlap, the later one owns the pixels.
        cell: Side of a cell, in pixels of the picture.
        least: Every region gets at least this many cells along its shorter side.
        smooth: Interpolate between cells instead of showing them as flat squares.

    Raises:
        RegionError: No region, or one that leaves the picture.
    """

    def __init__(
        self,
        naive: Pixels,
        regions: Sequence[Region],
        *,
        cell: float,
        least: int = 1,
        smooth: bool = True,
    ) -> None:
        if not regions:
            raise RegionError("expected at least one region to search in, got none")
        self.naive = naive
        masks = _own_masks(regions, naive.shape[0], naive.shape[1])
        self.patches = [
            _make_patch(naive, region, mask, cell, least, smooth)
            for region, mask in zip(regions, masks, strict=True)
            if mask is None or mask.any()
        ]

    @property
    def cells(self) -> list[Tensor]:
        """The searched values, one ``(3, down, across)`` tensor per region."""
        return [patch.cells for patch in self.patches]

    def move(self, steps: Sequence[Tensor]) -> None:
        """Add ``steps`` to the cells, as far as pixels can follow."""
        for patch, step in zip(self.patches, steps, strict=True):
            patch.cells = (patch.cells + step).clamp(patch.low, patch.high)

    def show(self, cells: Sequence[Tensor]) -> None:
        """Replace the cells, as far as pixels can follow."""
        for patch, given in zip(self.patches, cells, strict=True):
            patch.cells = given.clamp(patch.low, patch.high)

    def render(self) -> Pixels:
        """Return the whole picture as ``(H, W, 3)`` uint8; outside the regions it is ``naive``."""
        picture = self.naive.copy()
        for patch in self.patches:
            pixels = (patch.base + patch.offsets(patch.cells)).round().clamp(0, 255)
            height, width = pixels.shape[1:]
            window = picture[patch.top : patch.top + height, patch.left : patch.left + width]
            content = pixels.permute(1, 2, 0).to(torch.uint8).numpy()
            if patch.mask is None:
                window[:] = content
            else:
                inside = patch.mask.numpy() > 0
                window[inside] = content[inside]
        return picture

    def footprint(self, view: Geometry, std: Sequence[float]) -> Footprint:
        """Return the linear map from cells to the input of a model.

        Args:
            view: The model's resize and crop for this picture's size.
            std: The model's normalization.
        """
        patches = []
        for patch in self.patches:
            height, width = patch.base.shape[1:]
            rows = torch.tensor(view.rows[:, patch.top : patch.top + height])
            columns = torch.tensor(view.columns[:, patch.left : patch.left + width])
            if patch.mask is None:
                rows = rows @ patch.spread_rows
                columns = columns @ patch.spread_columns
            patches.append(_PatchFootprint(rows.contiguous(), columns.contiguous()))
        return Footprint(tuple(patches), 1 / (255 * torch.tensor(std).view(3, 1, 1)))

    def project(self, footprint: Footprint, cells: Sequence[Tensor] | None = None) -> Tensor:
        """Return what the cells add to the model's normalized input.

        Args:
            footprint: Of the model.
            cells: One ``(..., 3, down, across)`` per region; None takes the canvas's own.

        Returns:
            ``(..., 3, h, w)``.
        """
        total: Tensor | None = None
        shown = self.cells if cells is None else cells
        for patch, foot, part in zip(self.patches, footprint.patches, shown, strict=True):
            inner = part if patch.mask is None else patch.offsets(part)
            seen = foot.rows @ inner @ foot.columns.T
            total = seen if total is None else total + seen
        if total is None:
            raise RegionError("expected at least one region to search in, got none")
        return total * footprint.scale

    def gather(self, footprint: Footprint, gradient: Tensor) -> list[Tensor]:
        """Return the gradient with respect to the cells: the transpose of :meth:`project`.

        Args:
            footprint: Of the model that the gradient comes from.
            gradient: ``(3, h, w)``, with respect to the normalized input.
        """
        scaled = gradient * footprint.scale
        result = []
        for patch, foot in zip(self.patches, footprint.patches, strict=True):
            inner = foot.rows.T @ scaled @ foot.columns
            if patch.mask is not None:
                inner = patch.spread_rows.T @ (inner * patch.mask) @ patch.spread_columns
            result.append(inner)
        return result


def _own_masks(
    regions: Sequence[Region], height: int, width: int
) -> list[NDArray[np.bool_] | None]:
    """Each region's pixels less those that a later region owns; None for a free rectangle."""
    masks: list[NDArray[np.bool_] | None] = []
    for number, region in enumerate(regions):
        x0, y0, x1, y1 = region.box
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise RegionError(
                f"expected a region inside the {width}x{height} picture, got {region.box}"
            )
        mask = None if region.mask is None else region.mask.copy()
        for later in regions[number + 1 :]:
            u0, v0 = max(x0, later.box[0]), max(y0, later.box[1])
            u1, v1 = min(x1, later.box[2]), min(y1, later.box[3])
            if u0 >= u1 or v0 >= v1:
                continue
            if mask is None:
                mask = np.ones((y1 - y0, x1 - x0), bool)
            theirs: NDArray[np.bool_] | bool = True
            if later.mask is not None:
                lx, ly = later.box[:2]
                theirs = later.mask[v0 - ly : v1 - ly, u0 - lx : u1 - lx]
            mask[v0 - y0 : v1 - y0, u0 - x0 : u1 - x0] &= ~np.asarray(theirs)
        masks.append(mask)
    return masks


def _make_patch(
    naive: Pixels,
    region: Region,
    mask: NDArray[np.bool_] | None,
    cell: float,
    least: int,
    smooth: bool,
) -> _Patch:
    x0, y0, x1, y1 = region.box
    height, width = y1 - y0, x1 - x0
    side = max(1.0, min(cell, min(height, width) / least))
    down, across = math.ceil(height / side), math.ceil(width / side)
    rows = torch.tensor(cell_matrix(height, down, smooth=smooth))
    columns = torch.tensor(cell_matrix(width, across, smooth=smooth))
    base = torch.from_numpy(naive[y0:y1, x0:x1].astype(np.float32)).permute(2, 0, 1).contiguous()
    mean = (rows / rows.sum(0)).T @ base @ (columns / columns.sum(0))
    return _Patch(
        top=y0,
        left=x0,
        spread_rows=rows,
        spread_columns=columns,
        mask=None if mask is None else torch.from_numpy(mask.astype(np.float32)),
        base=base,
        cells=torch.zeros(3, down, across),
        low=-mean,
        high=255 - mean,
    )
