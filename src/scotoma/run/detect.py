"""Find private regions in folders of pictures and write them as one COCO file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scotoma.core.errors import ScotomaError
from scotoma.images.coco import write_coco
from scotoma.images.read import read_picture
from scotoma.images.region_sources import open_regions
from scotoma.images.regions import DetectorSettings, Region
from scotoma.images.walk import find_pictures

__all__ = ["Detections", "detect"]


@dataclass
class Detections:
    """Figures of one detection run.

    Args:
        images: Pictures read.
        regions: Regions found in them.
        failed: Why each unreadable picture failed, by its path.
    """

    images: int = 0
    regions: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"images": self.images, "regions": self.regions, "failed": self.failed}


def detect(
    inputs: Sequence[Path],
    out: Path,
    regions: str = "faces",
    settings: DetectorSettings | None = None,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> Detections:
    """Write the regions of every readable picture to the COCO file ``out``.

    Args:
        inputs: Picture files and folders.
        out: File to write; nothing is written if an input is missing.
        regions: Region SPEC.
        settings: Of the detector.
        on_progress: Called with the number of pictures seen.

    Raises:
        FileError: An input is missing, or ``out`` cannot be written.
        SettingsError: An unknown or malformed SPEC.
    """
    source = open_regions(regions, settings)
    figures = Detections()

    def entries() -> Iterator[tuple[Path, tuple[int, int], list[Region]]]:
        for found in find_pictures(inputs):
            try:
                picture = read_picture(found.path, keep_profile=True)
                here = source.find(picture.pixels, found.relative)
            except Exception as error:  # also a plugin's own: the run goes on without the picture
                known = isinstance(error, ScotomaError)
                reason = str(error) if known else f"{type(error).__name__}: {error}"
                figures.failed[found.path.as_posix()] = reason
                continue
            figures.images += 1
            figures.regions += len(here)
            if on_progress:
                on_progress(figures.images + len(figures.failed))
            yield found.relative, picture.size, here

    write_coco(out, entries())
    return figures
