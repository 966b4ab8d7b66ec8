"""The anonymizer as a subject of evaluation: regions are filled, and maybe searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.core.keys import Key
from scotoma.core.protocols import Release
from scotoma.evaluate.groups import check_pictures
from scotoma.evaluate.reading import normalized, refuse_key
from scotoma.evaluate.records import Choice
from scotoma.images.region_sources import open_regions
from scotoma.images.regions import Region, RegionSource, union_mask
from scotoma.models.classifier import Classifier
from scotoma.models.preprocessing import Preprocessing
from scotoma.ops.fills import DEFAULT_FILL, apply_fill, fills
from scotoma.protections.anonymize.search import Search
from scotoma.protections.anonymize.settings import SearchSettings

__all__ = ["FillSettings", "Filled"]

Pixels = NDArray[np.uint8]
_SEEDS = 2**31


@dataclass(frozen=True)
class FillSettings:
    """Settings of a filled subject.

    Args:
        fill: In the registry of fills.
        regions: Region SPEC without files: ``center:F``, ``box:...``, ``faces`` or a detector.
        adapt: ``none``, or ``gradient``: the region is searched until models decide as before.
        max_steps: Of that search.

    Raises:
        UnknownNameError: No such fill or adaptation; the message suggests the nearest.
        SettingsError: A number out of range.
    """

    fill: str = DEFAULT_FILL
    regions: str = "center:0.3"
    adapt: str = "none"
    max_steps: int = 100

    def __post_init__(self) -> None:
        fills.get(self.fill)
        if self.adapt not in ("none", "gradient"):
            raise UnknownNameError("adaptation", self.adapt, ["none", "gradient"])
        if not (isinstance(self.max_steps, int) and self.max_steps >= 1):
            raise SettingsError(f"expected max_steps of at least 1, got {self.max_steps!r}")


class Filled:
    """Pictures whose private regions are painted over.

    Pictures are taken as 8-bit pixels, as the anonymizer does. One in which no region is found
    comes back as it is, with an empty list in ``metadata["regions"]``: the anonymizer would
    not write it, and nobody must count it as protected.

    Args:
        settings: Fill, regions and search.
        preprocessing: Of the model that reads releases; only its normalization is applied,
            since pictures here have its size already.
        models: Keep their decisions, where ``adapt`` is ``gradient``.

    Raises:
        SettingsError: A search without models.
    """

    keyed = False

    def __init__(
        self,
        settings: FillSettings,
        preprocessing: Preprocessing | None = None,
        models: Sequence[Classifier] = (),
    ) -> None:
        self.settings = settings
        self.preprocessing = preprocessing
        self._source: RegionSource = open_regions(settings.regions)
        self._search: Search | None = None
        if settings.adapt == "gradient":
            if not models:
                raise SettingsError(
                    "expected models whose decisions a search keeps, got none; "
                    "name some in [models], or set adapt to 'none'"
                )
            whole = [_without_crop(model) for model in models]
            self._search = Search(whole, SearchSettings(max_steps=settings.max_steps))

    def __repr__(self) -> str:
        return f"Filled({self.settings})"

    @property
    def choice(self) -> Choice:
        """Fill and settings."""
        settings = asdict(self.settings)
        return Choice(settings.pop("fill"), settings)

    def protect(
        self,
        images: Tensor,
        key: Key | None = None,
        *,
        generator: Generator | None = None,
    ) -> Release:
        """Fill regions of ``(B, 3, H, W)`` pictures in [0, 1]; see :class:`.subjects.Subject`.

        Raises:
            ImageError: Another shape.
            SettingsError: No generator, from which fills draw.
        """
        refuse_key(key, self.settings.fill)
        check_pictures(images)
        if generator is None:
            raise SettingsError("expected a generator for a fill, got none")
        fill = fills.get(self.settings.fill)
        seeds = torch.randint(_SEEDS, (len(images),), generator=generator).tolist()
        pixels = (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        made = []
        for picture, seed in zip(pixels, seeds, strict=True):
            original = np.ascontiguousarray(picture)
            regions = self._source.find(original, Path("picture"))
            mask = union_mask(regions, *original.shape[:2])
            made.append(_Picture(original, apply_fill(original, mask, fill, seed=seed), regions))
        if self._search is not None:
            _search_all(self._search, made)
        data = torch.from_numpy(np.stack([one.start for one in made])).permute(0, 3, 1, 2)
        boxes = [[list(region.box) for region in one.regions] for one in made]
        return Release(data.float() / 255, self._metadata(tuple(images.shape[1:]), boxes))

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return the model behind its normalization: it reads releases as it reads pictures."""
        refuse_key(key, self.settings.fill)
        return normalized(model, self.preprocessing)

    def _metadata(self, size: tuple[int, ...], boxes: list[list[list[int]]]) -> dict[str, Any]:
        return {
            "scheme": "anonymize",
            "settings": asdict(self.settings),
            "input_size": list(size),
            "regions": boxes,
            "mean": None,
            "std": None,
        }


@dataclass(eq=False)
class _Picture:
    """One picture on its way; what the search takes."""

    original: Pixels
    start: Pixels
    regions: list[Region]

    def publish(self, pixels: Pixels) -> Pixels:
        return pixels


def _search_all(search: Search, pictures: Sequence[_Picture]) -> None:
    """Put what the search finds in the place of the fill; where it fails, the fill stays."""
    for outcome in search.run(picture for picture in pictures if picture.regions):
        if outcome.pixels is not None:
            outcome.subject.start = outcome.pixels


def _without_crop(model: Classifier) -> Classifier:
    """Return the classifier for pictures that have its input size already."""
    return replace(model, preprocessing=replace(model.preprocessing, crop_pct=1.0))
