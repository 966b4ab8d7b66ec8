"""A second run repeats nothing that is proven done, and everything that is not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import entries_of, pixels_of, releases_of
from support.tiny_models import make_picture, write_pictures, write_tiny_model
from torch import Tensor

from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.protections.anonymize.objectives import parse_keep
from scotoma.protections.anonymize.settings import SearchSettings
from scotoma.run.anonymize import anonymize
from scotoma.run.settings import AnonymizeSettings

CENTER = AnonymizeSettings(regions="center:0.3", search=SearchSettings(batch_size=1))
COUNT = 6


class Counting:
    """Counts the pictures that go through a network."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network = network
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.network(images)


class Workplace:
    """A finished run, and how to repeat it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.pictures = write_pictures(folder / "in", COUNT)
        self.out = folder / "out"
        loaded = load_classifier(f"scotoma:{model}")
        self.network = Counting(loaded.network)
        self.model: Classifier = replace(loaded, network=self.network)
        self.settings = CENTER
        self.run()
        self.first = releases_of(self.out)

    def run(self) -> dict[str, int]:
        """Run again; return by input how many model passes were made, and what was redone."""
        self.network.seen = 0
        heard = []
        anonymize([self.pictures], self.out, [self.model], self.settings, on_progress=heard.append)
        return {Path(p.entry.input).name: not p.skipped for p in heard}

    def _times(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self.out.glob("*.png")}

    def redone(self) -> set[str]:
        """Run again; return what was done anew, having checked that the rest was not touched."""
        before = self._times()
        done = {name for name, anew in self.run().items() if anew}
        after = self._times()
        for name in before.keys() - done:
            assert after[name] == before[name], f"{name} was written again"
        return done


@pytest.fixture
def place(tmp_path: Path, tiny_files: tuple[Path, Path]) -> Workplace:
    return Workplace(tmp_path, tiny_files[0])


def test_a_second_run_does_nothing(place: Workplace) -> None:
    assert len(place.first) == COUNT
    lines = (place.out / "manifest.jsonl").read_bytes()
    summary = json.loads((place.out / "summary.json").read_text("utf-8"))
    assert place.redone() == set()
    assert place.network.seen == 0, "no picture may go through a model again"
    assert releases_of(place.out) == place.first
    assert (place.out / "manifest.jsonl").read_bytes() == lines
    again = json.loads((place.out / "summary.json").read_text("utf-8"))
    assert {**again, "seconds": 0, "images_per_second": 0} == {
        **summary,
        "seconds": 0,
        "images_per_second": 0,
    }


def test_a_changed_input_is_redone_alone(place: Workplace) -> None:
    path = place.pictures / "002.png"
    stamp = path.stat().st_mtime_ns
    Image.fromarray(make_picture(77, 48, 60)).save(path)
    os.utime(path, ns=(stamp, stamp))  # only bytes count: an old time proves nothing
    assert place.redone() == {"002.png"}
    assert releases_of(place.out)["002.png"] != place.first["002.png"]
    os.utime(path, ns=(stamp + 10**9, stamp + 10**9))  # and a new one does not disprove it
    assert place.redone() == set()


@pytest.mark.parametrize(
    "changed",
    [
        replace(CENTER, regions="center:0.2"),
        replace(CENTER, fill="inpaint"),
        replace(CENTER, adapt="none"),
        replace(CENTER, seed=1),
        replace(CENTER, search=SearchSettings(margin=1.0)),
        replace(CENTER, search=SearchSettings(keep=parse_keep("top2"))),
        replace(CENTER, keep_metadata=frozenset({"date"})),
    ],
    ids=["regions", "fill", "adapt", "seed", "margin", "keep", "metadata"],
)
def test_changed_settings_redo_everything(place: Workplace, changed: AnonymizeSettings) -> None:
    place.settings = changed
    assert len(place.redone()) == COUNT
    assert place.redone() == set()


def test_a_deleted_or_damaged_output_is_redone_alone(place: Workplace) -> None:
    (place.out / "001.png").unlink()
    damaged = place.out / "004.png"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert place.redone() == {"001.png", "004.png"}
    assert set(releases_of(place.out)) == set(place.first)
    with Image.open(damaged) as file:
        file.load()


def test_an_edited_file_of_regions_redoes_everything(tmp_path: Path, place: Workplace) -> None:
    """The same name, other regions: what was released before may show what is private now."""
    file = tmp_path / "regions.json"

    def write(side: int) -> None:
        names = sorted(path.name for path in place.pictures.iterdir())
        sizes = [pixels_of(place.pictures / name).shape[1::-1] for name in names]
        images = [
            {"id": n, "file_name": name, "width": size[0], "height": size[1]}
            for n, (name, size) in enumerate(zip(names, sizes, strict=True))
        ]
        boxes = [{"id": n, "image_id": n, "bbox": [5, 5, side, side]} for n in range(len(names))]
        file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": []}))

    write(10)
    place.settings = replace(CENTER, regions=str(file))
    assert len(place.redone()) == COUNT
    assert place.redone() == set()
    write(20)
    assert len(place.redone()) == COUNT
    assert {entry.regions for entry in entries_of(place.out).values()} == {((5, 5, 25, 25),)}


def test_an_edited_mask_redoes_everything(tmp_path: Path, place: Workplace) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in place.pictures.iterdir():
        mask = np.zeros(pixels_of(path).shape[:2], np.uint8)
        mask[3:20, 4:21] = 255
        Image.fromarray(mask).save(masks / path.name)
    place.settings = replace(CENTER, regions=str(masks))
    assert len(place.redone()) == COUNT
    assert place.redone() == set()
    mask[25:30, 25:30] = 255
    Image.fromarray(mask).save(masks / path.name)
    assert path.name in place.redone()
    assert len(entries_of(place.out)[path.name].regions) == 2


def test_other_weights_under_the_same_name_redo_everything(tmp_path: Path) -> None:
    file = write_tiny_model(tmp_path / "model.safetensors", seed=0)
    place = Workplace(tmp_path, file)
    write_tiny_model(file, seed=2)
    loaded = load_classifier(f"scotoma:{file}")
    assert loaded.spec == place.model.spec
    place.network.network = loaded.network
    assert len(place.redone()) == COUNT


def test_a_fingerprint_tells_models_of_one_name_apart(tiny_files: tuple[Path, Path]) -> None:
    """Also where the name leads to no file: weights, and how pictures are read."""
    first, second = (replace(load_classifier(f"scotoma:{f}"), spec="timm:x") for f in tiny_files)
    print_of = CENTER.fingerprint([first], [])
    assert CENTER.fingerprint([first], []) == print_of
    assert CENTER.fingerprint([second], []) != print_of
    assert CENTER.fingerprint([replace(first, spec="timm:y")], []) != print_of
    read = replace(first.preprocessing, interpolation="bicubic")
    assert CENTER.fingerprint([replace(first, preprocessing=read)], []) != print_of
    assert CENTER.fingerprint([first], [second]) != print_of


def test_a_failure_is_tried_again(place: Workplace) -> None:
    good = (place.pictures / "003.png").read_bytes()
    (place.pictures / "003.png").write_bytes(good[: len(good) // 2])
    assert place.redone() == {"003.png"}
    assert entries_of(place.out)["003.png"].status == "failed"
    assert place.redone() == {"003.png"}
    (place.pictures / "003.png").write_bytes(good)
    assert place.redone() == {"003.png"}
    assert set(releases_of(place.out)) == set(place.first)


def test_no_release_outlives_its_line(place: Workplace) -> None:
    """What the manifest no longer speaks of was made with other settings or from another file."""
    (place.pictures / "003.png").write_bytes(b"")
    place.run()
    assert set(releases_of(place.out)) == set(place.first) - {"003.png"}
    place.settings = replace(CENTER, encoding=replace(CENTER.encoding, format="jpeg"))
    place.run()
    assert {Path(name).suffix for name in releases_of(place.out)} == {".jpg"}
    place.settings = replace(CENTER, regions="none")
    place.run()
    assert releases_of(place.out) == {}


def test_a_release_that_someone_edited_is_not_removed(place: Workplace) -> None:
    edited = place.out / "003.png"
    edited.write_bytes(b"retouched")
    place.settings = replace(CENTER, regions="none")
    place.run()
    assert releases_of(place.out) == {"003.png": b"retouched"}


def test_a_torn_line_costs_one_picture(place: Workplace) -> None:
    manifest = place.out / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    torn = Path(json.loads(lines[-1])["input"]).name
    assert torn in place.run()
    assert {entry.status for entry in entries_of(place.out).values()} <= {"ok", "kept-naive"}
    assert releases_of(place.out) == place.first
    assert len(manifest.read_bytes().splitlines()) == COUNT


def test_a_lost_manifest_is_made_again_from_the_same_files(place: Workplace) -> None:
    (place.out / "manifest.jsonl").unlink()
    assert sum(place.run().values()) == COUNT
    assert {entry.status for entry in entries_of(place.out).values()} <= {"ok", "kept-naive"}
    assert releases_of(place.out) == place.first


def test_runs_share_an_output_folder(place: Workplace, tmp_path: Path) -> None:
    other = write_pictures(tmp_path / "more", 2, first=40)
    shutil.move(other / "000.png", other / "x.png")
    shutil.move(other / "001.png", other / "y.png")
    summary = anonymize([other], place.out, [place.model], CENTER)
    assert (summary.images, summary.failed) == (2, 0), "a summary counts its own run's pictures"
    assert set(releases_of(place.out)) == {*place.first, "x.png", "y.png"}
    clash = write_pictures(tmp_path / "clash", 1, first=80)
    summary = anonymize([clash], place.out, [place.model], CENTER)
    assert summary.failed == 1
    assert releases_of(place.out)["000.png"] == place.first["000.png"]
    assert place.redone() == set()


def test_counting_counts(place: Workplace) -> None:
    """The proof that no pass was made must not rest on a counter that never counts."""
    place.settings = replace(CENTER, seed=3)
    place.run()
    assert place.network.seen >= 2 * COUNT
    assert torch.is_tensor(place.network(torch.zeros(1, 3, 32, 32)))


def test_a_fingerprint_owes_nothing_to_where_one_stands(
    tiny_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(load_classifier(f"scotoma:{tiny_files[0]}"), spec="embedded")
    monkeypatch.chdir(tmp_path)
    before = CENTER.fingerprint([model], [])
    (tmp_path / "photo.png").write_bytes(b"more")
    assert CENTER.fingerprint([model], []) == before


@pytest.mark.parametrize("spec", ["onnx:{}", "python:{}:scores", "timm:resnet18@{}"])
def test_a_fingerprint_knows_the_file_that_a_model_names(
    tiny_files: tuple[Path, Path], tmp_path: Path, spec: str
) -> None:
    file = tmp_path / "program"
    file.write_text("one")
    plain = load_classifier(f"scotoma:{tiny_files[0]}")
    model = replace(plain, spec=spec.format(file), network=lambda images: images)
    before = CENTER.fingerprint([model], [])
    file.write_text("two")
    assert CENTER.fingerprint([model], []) != before
