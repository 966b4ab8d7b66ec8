"""Whatever fails, and wherever: no file for that picture, its reason on record, the rest done."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.bad_files import bad_files
from support.runs import OURS, entries_of, pixels_of, releases_of
from support.tiny_models import make_picture, write_pictures
from torch import Tensor

from scotoma.core.errors import FileError
from scotoma.images import write
from scotoma.images.region_sources import CenterRegions
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.protections.anonymize.canvas import Canvas
from scotoma.protections.anonymize.search import Search
from scotoma.protections.anonymize.settings import SearchSettings
from scotoma.protections.anonymize.subject import Outcome
from scotoma.run import anonymize as run
from scotoma.run import releases, subject
from scotoma.run.anonymize import anonymize
from scotoma.run.manifest import Manifest
from scotoma.run.settings import AnonymizeSettings

SIZE = (66, 44)
"""Of the one picture that each fault befalls; no other has it."""

OTHERS = 5
CENTER = AnonymizeSettings(regions="center:0.3", search=SearchSettings(batch_size=4))


class BrokenError(RuntimeError):
    """What the faults raise."""


def is_victim(pixels: Any) -> bool:
    return tuple(np.shape(pixels)[:2]) == SIZE[::-1]


@pytest.fixture
def pictures(tmp_path: Path, tiny_files: tuple[Path, Path]) -> Path:
    """Return pictures of which one, in a folder of its own, needs a search."""
    folder = write_pictures(tmp_path / "in", OTHERS)
    victim = folder / "sub" / "victim.png"
    victim.parent.mkdir()
    model = load_classifier(f"scotoma:{tiny_files[0]}")
    for seed in range(200, 230):
        Image.fromarray(make_picture(seed, *SIZE)).save(victim)
        summary = anonymize([victim], tmp_path / "look", [model], CENTER)
        if summary.changed_naive:
            return folder
    raise AssertionError("no picture whose decision the fill changes")


def failing(real: Callable[..., Any], picks: Callable[..., bool]) -> Callable[..., Any]:
    """Return ``real``, except that it breaks where ``picks`` says so."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if picks(*args, **kwargs):
            raise BrokenError("a planted fault")
        return real(*args, **kwargs)

    return call


class FailingNetwork:
    """Breaks whenever the marked picture is in the batch."""

    def __init__(self, network: Callable[[Tensor], Tensor], marked: Tensor) -> None:
        self.network, self.marked = network, marked

    def __call__(self, images: Tensor) -> Tensor:
        if any(torch.equal(image, self.marked) for image in images):
            raise BrokenError("a planted fault")
        return self.network(images)


def _on_victim_pixels(pixels: Any, *_: Any, **__: Any) -> bool:
    return is_victim(pixels)


def _on_victim_path(path: Any, *_: Any, **__: Any) -> bool:
    return "victim" in Path(path).name


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "reading": lambda m: m.setattr(
        subject, "read_file", failing(subject.read_file, _on_victim_path)
    ),
    "decoding": lambda m: m.setattr(
        subject,
        "decode_picture",
        failing(subject.decode_picture, lambda *_, name, **__: "victim" in name),
    ),
    "detecting": lambda m: m.setattr(
        CenterRegions,
        "find",
        failing(CenterRegions.find, lambda _, pixels, relative: is_victim(pixels)),
    ),
    "filling": lambda m: m.setattr(
        subject, "apply_fill", failing(subject.apply_fill, _on_victim_pixels)
    ),
    "publishing": lambda m: m.setattr(
        subject.RunSubject,
        "publish",
        failing(subject.RunSubject.publish, lambda _, pixels: is_victim(pixels)),
    ),
    "opening the search": lambda m: m.setattr(
        Canvas, "__init__", failing(Canvas.__init__, lambda _, naive, *__, **___: is_victim(naive))
    ),
    "stepping": lambda m: m.setattr(
        Canvas, "move", failing(Canvas.move, lambda canvas, _: is_victim(canvas.naive))
    ),
    "rendering a candidate": lambda m: m.setattr(
        Canvas, "render", failing(Canvas.render, lambda canvas: is_victim(canvas.naive))
    ),
    "deciding": lambda m: m.setattr(
        run,
        "decisions",
        failing(run.decisions, lambda outcome, *_: is_victim(outcome.subject.original)),
    ),
    "encoding": lambda m: m.setattr(
        subject, "encode_picture", failing(subject.encode_picture, _on_victim_pixels)
    ),
    "reading back": lambda m: m.setattr(
        releases,
        "sha256_of",
        failing(releases.sha256_of, lambda path: path.parent.name == "sub"),
    ),
    "renaming": lambda m: m.setattr(
        Path,
        "replace",
        failing(Path.replace, lambda part, path: "victim" in path.name),
    ),
    "after the renaming": lambda m: m.setattr(
        write,
        "_sync_folder",
        failing(write._sync_folder, lambda folder: folder.name == "sub"),
    ),
}


def check_fail_closed(out: Path, reason: str) -> None:
    assert set(releases_of(out)) == {f"{n:03d}.png" for n in range(OTHERS)}
    entries = entries_of(out)
    victim = entries.pop("victim.png")
    assert victim.status == "failed"
    assert victim.error is not None
    assert reason in victim.error
    assert (victim.output, victim.sha256_out, victim.decisions) == (None, None, ())
    assert len(entries) == OTHERS
    assert {entry.status for entry in entries.values()} <= {"ok", "kept-naive"}


@pytest.mark.parametrize("stage", FAULTS)
def test_a_fault_in_any_stage_releases_nothing(
    pictures: Path,
    tmp_path: Path,
    tiny_files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    model = load_classifier(f"scotoma:{tiny_files[0]}")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        FAULTS[stage](patch)
        summary = anonymize([pictures], out, [model], CENTER)
    assert (summary.images, summary.failed) == (OTHERS + 1, 1)
    check_fail_closed(out, "BrokenError: a planted fault")
    assert {path.name for path in out.iterdir()} <= {*OURS, *releases_of(out), "sub"}

    summary = anonymize([pictures], out, [model], CENTER)  # the fault is gone
    assert summary.failed == 0
    assert set(releases_of(out)) == {"sub/victim.png", *(f"{n:03d}.png" for n in range(OTHERS))}


@pytest.mark.parametrize("moment", ["original", "naive"])
def test_a_fault_of_a_model_costs_one_picture_not_its_batch(
    pictures: Path, tmp_path: Path, tiny_files: tuple[Path, Path], moment: str
) -> None:
    model = load_classifier(f"scotoma:{tiny_files[0]}")
    marked = pictures / "sub/victim.png"
    if moment == "naive":
        settings = replace(CENTER, adapt="none")
        anonymize([marked], tmp_path / "naive", [model], settings)
        marked = tmp_path / "naive/victim.png"
    network = FailingNetwork(model.network, model.read(Image.fromarray(pixels_of(marked))))
    broken: Classifier = replace(model, network=network)
    summary = anonymize([pictures], tmp_path / "out", [broken], CENTER)
    assert summary.failed == 1
    check_fail_closed(tmp_path / "out", "BrokenError: a planted fault")


def test_a_place_that_cannot_be_written(
    pictures: Path, tmp_path: Path, tiny_files: tuple[Path, Path]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sub").write_text("a file where a folder is needed")
    model = load_classifier(f"scotoma:{tiny_files[0]}")
    assert anonymize([pictures], out, [model], CENTER).failed == 1
    assert (out / "sub").read_text() == "a file where a folder is needed"
    (out / "sub").unlink()
    check_fail_closed(out, "sub")


def lies() -> dict[str, Callable[[subject.RunSubject, Any], Any]]:
    """Return what a search gone wrong could return instead of its pixels."""

    def one_pixel(of: subject.RunSubject, pixels: Any) -> Any:
        wrong = pixels.copy()
        wrong[0, 0, 0] ^= 1
        return wrong

    return {
        "the original": lambda of, pixels: of.original,
        "a pixel outside": one_pixel,
        "another size": lambda of, pixels: pixels[:-1],
        "another type": lambda of, pixels: pixels.astype(np.float32),
        "nothing": lambda of, pixels: None,
    }


@pytest.mark.parametrize("lie", lies())
def test_a_search_that_lies_is_caught(
    pictures: Path,
    tmp_path: Path,
    tiny_files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    lie: str,
) -> None:
    real = Search.run

    def lying(self: Search, subjects: Any) -> Any:
        for outcome in real(self, subjects):
            assert isinstance(outcome, Outcome)
            if is_victim(outcome.subject.original):
                outcome.pixels = lies()[lie](outcome.subject, outcome.pixels)
            yield outcome

    monkeypatch.setattr(Search, "run", lying)
    model = load_classifier(f"scotoma:{tiny_files[0]}")
    assert anonymize([pictures], tmp_path / "out", [model], CENTER).failed == 1
    check_fail_closed(tmp_path / "out", "without a picture" if lie == "nothing" else "expected")


def test_a_full_disk_ends_the_run_with_nothing_unaccounted_for(
    pictures: Path,
    tmp_path: Path,
    tiny_files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load_classifier(f"scotoma:{tiny_files[0]}")
    real, left = Manifest.append, [3]

    def append(self: Manifest, entry: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise FileError(f"could not write: {errno.errorcode[errno.ENOSPC]}")
        real(self, entry)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "append", append)
        with pytest.raises(FileError, match="ENOSPC"):
            anonymize([pictures], out, [model], CENTER)
    accounted = {entry.output for entry in entries_of(out).values()}
    assert set(releases_of(out)) == accounted
    assert len(accounted) == 3
    assert anonymize([pictures], out, [model], CENTER).failed == 0
    assert len(releases_of(out)) == OTHERS + 1


def test_every_bad_file_has_its_error_and_stops_nothing(
    tmp_path: Path, tiny_files: tuple[Path, Path]
) -> None:
    folder = write_pictures(tmp_path / "in", 2)
    kinds = bad_files()
    for name, data, _ in kinds.values():
        (folder / name).write_bytes(data)
    assert len(kinds) >= 30
    model = load_classifier(f"scotoma:{tiny_files[0]}")
    summary = anonymize([folder], tmp_path / "out", [model], CENTER)
    assert (summary.images, summary.failed) == (len(kinds) + 2, len(kinds))
    entries = entries_of(tmp_path / "out")
    for kind, (name, _, fragment) in kinds.items():
        assert entries[name].status == "failed", kind
        assert fragment in (entries[name].error or ""), kind
    assert set(releases_of(tmp_path / "out")) == {"000.png", "001.png"}
