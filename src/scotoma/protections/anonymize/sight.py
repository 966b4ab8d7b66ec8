"""A canvas as the models see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scotoma.images.regions import Region
from scotoma.models.classifier import Classifier
from scotoma.models.geometry import geometry
from scotoma.protections.anonymize.canvas import Canvas, Footprint
from scotoma.protections.anonymize.settings import SearchSettings

__all__ = ["Sight"]


@dataclass(eq=False)
class Sight:
    """A canvas, how it acts on each model's input, and what that input consists of besides."""

    canvas: Canvas
    footprints: list[Footprint]
    constants: list[Tensor] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        models: Sequence[Classifier],
        start: NDArray[np.uint8],
        regions: Sequence[Region],
        settings: SearchSettings,
    ) -> Self:
        """Return the canvas of a picture, ``(H, W, 3)`` uint8, before :meth:`rebase`."""
        height, width = start.shape[:2]
        canvas = Canvas(
            start,
            regions,
            cell=settings.cell * min(height, width) / 256,
            least=settings.least_cells,
            smooth=settings.smooth,
        )
        footprints = [
            canvas.footprint(geometry(m.preprocessing, width, height), m.preprocessing.std)
            for m in models
        ]
        return cls(canvas, footprints)

    @property
    def reaches(self) -> bool:
        """Whether any model sees any of the cells."""
        return any(footprint.reaches for footprint in self.footprints)

    def inputs(self, model: int, cells: Sequence[Tensor] | None = None) -> Tensor:
        """Return what a model reads with these cells; those of the canvas by default.

        Args:
            model: Its number.
            cells: One ``(..., 3, down, across)`` per region.
        """
        return self.constants[model] + self.canvas.project(self.footprints[model], cells)

    def rebase(self, real: Sequence[Tensor]) -> None:
        """Take what encoding and rounding really did to the canvas as the new constant part."""
        self.constants = [
            seen - self.canvas.project(footprint)
            for seen, footprint in zip(real, self.footprints, strict=True)
        ]
