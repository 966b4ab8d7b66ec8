"""A release as a grid of cells: what a network reads at each, and how much picture it is."""

from __future__ import annotations

from dataclasses import dataclass

from scotoma.attacks.views import plain_size
from scotoma.core.errors import NotApplicableError, SettingsError
from scotoma.core.protocols import Release

__all__ = ["Geometry"]

_MOVING = frozenset({"block-shuffle"})
_CELL = 4  # of releases that look like pictures and have no blocks


@dataclass(frozen=True)
class Geometry:
    """Which part of a release belongs to which part of the picture.

    ::

        release (C, rows*side, columns*side)  ──►  picture (3, rows*cell, columns*cell), cut

    Args:
        channels: ``C`` of the release.
        side: Side of a cell in the release.
        cell: Side of a cell in the picture, in pixels.
        rows: Cells down.
        columns: Cells across.
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        period: Cells down and across after which the protection repeats itself: ``(1, 1)``
            where it does the same everywhere.
        moved: Whether cells are in another order, the same for all pictures.

    Raises:
        SettingsError: A size below one, or cells that do not cover the picture.
    """

    channels: int
    side: int
    cell: int
    rows: int
    columns: int
    height: int
    width: int
    period: tuple[int, int] = (1, 1)
    moved: bool = False

    def __post_init__(self) -> None:
        sizes = (self.channels, self.side, self.cell, self.rows, self.columns, *self.period)
        if not min(sizes) >= 1:
            raise SettingsError(f"expected sizes of at least 1, got {self}")
        down, across = self.rows * self.cell, self.columns * self.cell
        if not (0 < self.height <= down and 0 < self.width <= across):
            raise SettingsError(f"expected cells that cover the picture, got {self}")

    @property
    def values(self) -> int:
        """Numbers of the release in one cell."""
        return self.channels * self.side**2

    @classmethod
    def of_release(cls, release: Release) -> Geometry:
        """Return the geometry that a release's public settings tell.

        Raises:
            NotApplicableError: Its size is no whole number of cells.
        """
        height, width = plain_size(release)
        settings = release.metadata.get("settings", {})
        block = settings.get("block")
        if block is None:
            return cls.of_features(tuple(release.data.shape[1:]), (height, width))
        rows, columns = -(-height // block), -(-width // block)
        channels, down, across = release.data.shape[1:]
        side = down // rows
        if (rows * side, columns * side) != (down, across) or side < 1:
            raise NotApplicableError(
                f"expected a release of {rows}×{columns} blocks by its metadata, got "
                f"{down}×{across} values"
            )
        period = (1, 1)
        if "period" in settings:
            period = tuple(settings["period"] or (rows, columns))
        moved = release.metadata.get("scheme") in _MOVING
        return cls(channels, side, block, rows, columns, height, width, period, moved)

    @classmethod
    def of_features(cls, shape: tuple[int, ...], size: tuple[int, int]) -> Geometry:
        """Return the geometry of ``(C, h, w)`` features of a ``(H, W)`` picture.

        Features on the picture's own grid are read in cells of several pixels; coarser ones
        position by position.

        Raises:
            NotApplicableError: The features are finer than the picture, or unlike in stride
                down and across.
        """
        channels, down, across = shape
        height, width = size
        cell = -(-height // down)
        if not (down <= height and across <= width and -(-width // across) == cell):
            raise NotApplicableError(
                f"expected features of one stride down and across a {height}×{width} picture, "
                f"got {down}×{across}"
            )
        if cell > 1:
            return cls(channels, 1, cell, down, across, height, width)
        rows, columns = -(-down // _CELL), -(-across // _CELL)
        return cls(channels, _CELL, _CELL, rows, columns, height, width)
