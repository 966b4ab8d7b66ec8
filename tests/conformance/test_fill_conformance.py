"""What every fill owes a run, plugins included: see the property each test names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.runs import Witness, entries_of, pixels_of, releases_of
from support.tiny_models import make_picture

from scotoma.images.coco import write_coco
from scotoma.images.regions import Region
from scotoma.models.spec import load_classifier
from scotoma.ops.fills import fills
from scotoma.run.anonymize import anonymize
from scotoma.run.settings import AnonymizeSettings

DISC = np.hypot(*np.mgrid[-8:8, -8:8]) < 7
REGIONS = {
    "two": [Region((3, 5, 24, 40)), Region((30, 8, 46, 24), DISC)],
    "touching": [Region((10, 10, 30, 30)), Region((30, 10, 40, 30))],
    "thin": [Region((0, 20, 60, 22)), Region((59, 0, 60, 48))],
    "all": [Region((0, 0, 60, 48))],
}
"""Regions by the name of the picture that has them."""


@pytest.mark.parametrize("name", fills.names())
def test_fill(name: str, tmp_path: Path, tiny_files: tuple[Path, Path]) -> None:
    """Decisions kept, nothing changed outside (2), the same bytes again (6), no pixel left (8)."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, kind in enumerate(REGIONS, 400):
        Image.fromarray(make_picture(seed)).save(folder / f"{kind}.png")
    file = tmp_path / "regions.json"
    write_coco(file, [(Path(f"{kind}.png"), (60, 48), found) for kind, found in REGIONS.items()])
    settings = AnonymizeSettings(regions=str(file), fill=name, seed=7)
    model = load_classifier(f"scotoma:{tiny_files[0]}")
    for out in ("one", "two"):
        summary = anonymize([folder], tmp_path / out, [model], settings)
        assert (summary.failed, summary.changed_after) == (0, 0)
    released = releases_of(tmp_path / "one")
    assert released == releases_of(tmp_path / "two")
    assert set(released) == {f"{kind}.png" for kind in REGIONS}
    witness = Witness(tiny_files[0])
    for kind, regions in REGIONS.items():
        private = np.zeros((48, 60), bool)
        for region in regions:
            x0, y0, x1, y1 = region.box
            private[y0:y1, x0:x1] |= True if region.mask is None else region.mask
        before = pixels_of(folder / f"{kind}.png")
        after = pixels_of(tmp_path / "one" / f"{kind}.png")
        assert np.array_equal(before[~private], after[~private])
        assert (before[private] != after[private]).any(1).mean() > 0.8
        label = witness.label(tmp_path / "one" / f"{kind}.png")
        assert label == witness.label(folder / f"{kind}.png")
        boxes = entries_of(tmp_path / "one")[f"{kind}.png"].regions
        assert set(boxes) == {region.box for region in regions}
