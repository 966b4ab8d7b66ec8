"""An onlooker learns no more of a region than the decision: design property 1.

Two pictures that differ only inside the region and have the same decisions must give
byte-identical releases, for every fill that claims to read nothing but the background.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.runs import Witness, entries_of, releases_of
from support.tiny_models import make_picture, naively_filled, write_pictures

from scotoma.images.region_sources import open_regions
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.ops.fills import fills
from scotoma.protections.anonymize.settings import SearchSettings, Transfer
from scotoma.run.anonymize import anonymize
from scotoma.run.settings import AnonymizeSettings

BACKGROUND_ONLY = [name for name in fills.names() if fills.get(name).background_only]
SETTINGS = AnonymizeSettings(regions="center:0.3", search=SearchSettings(batch_size=1))
PAIRS = 3
SIZE = (60, 48)


def write_twins(folder: Path, number: int, regions: str, pictures: list[np.ndarray]) -> list[Path]:
    """Write two pictures of one background with different insides; return both files."""
    files = []
    for name, inner in zip(("this", "that"), pictures, strict=True):
        twin = pictures[0].copy()
        for region in open_regions(regions).find(twin, Path()):
            x0, y0, x1, y1 = region.box
            twin[y0:y1, x0:x1] = inner[y0:y1, x0:x1]
        # Same name, since what a file is called is no secret of the region.
        file = folder / name / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(twin).save(file)
        files.append(file)
    return files


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory, tiny_files: tuple[Path, Path]) -> Path:
    """Return a folder of twins: ``same`` decide alike for both models, ``unlike`` do not."""
    folder = tmp_path_factory.mktemp("twins")
    witnesses = [Witness(path) for path in tiny_files]
    counts = {"same": 0, "unlike": 0}
    for seed in range(600, 800):
        pictures = [make_picture(seed, *SIZE), make_picture(seed + 1000, *SIZE)]
        trial = write_twins(folder / "trial", 0, SETTINGS.regions, pictures)
        Image.fromarray(naively_filled(pictures[0])).save(folder / "naive.png")
        labels = [
            [witness.label(file) for witness in witnesses]
            for file in (*trial, folder / "naive.png")
        ]
        if labels[2][0] == labels[0][0]:
            continue  # nothing would be searched
        kind = "same" if labels[0] == labels[1] else "unlike"
        if counts[kind] < PAIRS:
            write_twins(folder / kind, counts[kind], SETTINGS.regions, pictures)
            counts[kind] += 1
    assert set(counts.values()) == {PAIRS}
    return folder


@pytest.fixture(scope="module")
def models(tiny_files: tuple[Path, Path]) -> list[Classifier]:
    return [load_classifier(f"scotoma:{path}") for path in tiny_files]


def releases(
    folder: Path, tmp_path: Path, models: list[Classifier], settings: AnonymizeSettings
) -> tuple[dict[str, bytes], dict[str, bytes], set[str]]:
    found, statuses = [], set()
    for name in ("this", "that"):
        out = tmp_path / "released" / name
        anonymize([folder / name], out, models, settings)
        found.append(releases_of(out))
        statuses |= {entry.status for entry in entries_of(out).values()}
    assert len(found[0]) == len(list((folder / "this").iterdir())) >= 2
    return found[0], found[1], statuses


@pytest.mark.parametrize("fill", BACKGROUND_ONLY)
@pytest.mark.parametrize("number", [1, 2])
def test_same_background_and_decision_give_the_same_bytes(
    twins: Path, tmp_path: Path, models: list[Classifier], fill: str, number: int
) -> None:
    settings = replace(SETTINGS, fill=fill)
    this, that, statuses = releases(twins / "same", tmp_path, models[:number], settings)
    assert this == that
    assert "ok" in statuses, "nothing was searched, so nothing was proven"


@pytest.mark.parametrize("exemplars", [False, True])
def test_searching_for_transfer_tells_no_more(
    twins: Path, tmp_path: Path, models: list[Classifier], exemplars: bool
) -> None:
    """Neither random views nor the choice of an exemplar may depend on the private pixels."""
    search = SearchSettings(batch_size=1, transfer=Transfer(steps=4))
    public = write_pictures(tmp_path / "public", 10, first=3000) if exemplars else None
    settings = replace(SETTINGS, search=search, exemplars=public)
    this, that, statuses = releases(twins / "same", tmp_path, models[:1], settings)
    assert this == that
    assert "ok" in statuses
    plain, _, _ = releases(twins / "same", tmp_path / "plain", models[:1], SETTINGS)
    assert plain != this, "the setting had no effect"


def test_there_are_background_only_fills() -> None:
    assert {"solid", "inpaint", "noise"} <= set(BACKGROUND_ONLY)


def test_releases_tell_decisions_apart(
    twins: Path, tmp_path: Path, models: list[Classifier]
) -> None:
    """Without this, equal bytes could come from a release that keeps nothing at all."""
    this, that, _ = releases(twins / "unlike", tmp_path, models, SETTINGS)
    assert this != that


@pytest.mark.parametrize("fill", sorted(set(fills.names()) - set(BACKGROUND_ONLY)))
def test_other_fills_do_leak(
    twins: Path, tmp_path: Path, models: list[Classifier], fill: str
) -> None:
    """A fill that reads the region gives it away; the test above would notice."""
    this, that, _ = releases(twins / "same", tmp_path, models[:1], replace(SETTINGS, fill=fill))
    assert all(this[name] != that[name] for name in this)


@pytest.mark.shared
def test_real_pictures_with_a_trained_network(shared: Path, tmp_path: Path) -> None:
    model = load_classifier(f"timm:local-dir:{shared / 'models' / 'mobilenetv2_100'}")
    regions = "center:0.15"
    photos = []
    for path in islice(sorted((shared / "data/imagenet/samples").iterdir()), 0, 60, 4):
        with Image.open(path) as file:
            photos.append(np.asarray(file.convert("RGB").resize((240, 200))))
    made = 0
    for first, second in pairwise(photos):
        files = write_twins(tmp_path / "trial", 0, regions, [first, second])
        labels = []
        for file in files:
            with Image.open(file) as image:
                labels.append(int(model.logits(model.read(image)[None]).argmax()))
        if labels[0] == labels[1] and made < 3:
            write_twins(tmp_path, made, regions, [first, second])
            made += 1
    assert made == 3, "no two photographs kept their decision with another's middle"
    settings = replace(SETTINGS, regions=regions)
    this, that, statuses = releases(tmp_path, tmp_path, [model], settings)
    assert this == that
    assert "ok" in statuses
