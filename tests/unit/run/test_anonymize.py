"""Whole runs with small models: what is released, and that the manifest says the truth of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.runs import Witness, entries_of, inside, pixels_of, releases_of
from support.tiny_models import make_picture, write_pictures

from scotoma.core.errors import SettingsError, UnknownNameError, UnsafePathError
from scotoma.images.coco import write_coco
from scotoma.images.regions import Region
from scotoma.images.write import Encoding
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.protections.anonymize.objectives import parse_keep
from scotoma.protections.anonymize.settings import SearchSettings
from scotoma.run.anonymize import anonymize
from scotoma.run.manifest import Summary, sha256_of
from scotoma.run.settings import AnonymizeSettings

COUNT = 18
CENTER = AnonymizeSettings(regions="center:0.3")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), COUNT)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="module")
def models(tiny_files: tuple[Path, Path]) -> list[Classifier]:
    return [load_classifier(f"scotoma:{path}") for path in tiny_files]


def search(**changes: Any) -> AnonymizeSettings:
    return replace(CENTER, search=SearchSettings(**changes))


def statuses(out: Path) -> dict[str, str]:
    return {name: entry.status for name, entry in entries_of(out).items()}


@pytest.mark.parametrize(
    ("format_", "number"), [("png", 1), ("png", 2), ("jpeg", 2), ("webp", 1), ("avif", 1)]
)
def test_decisions_of_the_written_files_are_kept(
    pictures: Path,
    out: Path,
    models: list[Classifier],
    tiny_files: tuple[Path, Path],
    format_: str,
    number: int,
) -> None:
    settings = replace(CENTER, encoding=Encoding(format_, 90))
    summary = anonymize([pictures], out, models[:number], settings)
    assert summary.changed_naive >= COUNT // 5, "too few flips to prove anything"
    assert summary.changed_after == summary.failed == 0
    witnesses = [Witness(path) for path in tiny_files[:number]]
    entries = entries_of(out)
    assert len(entries) == COUNT
    for name, entry in entries.items():
        assert entry.status in ("ok", "kept-naive")
        assert entry.output is not None
        assert Path(entry.output).suffix == settings.encoding.suffix
        assert entry.sha256_out == sha256_of(out / entry.output)
        assert entry.sha256_in == sha256_of(pictures / name)
        assert len(entry.decisions) == number
        for witness, decision in zip(witnesses, entry.decisions, strict=True):
            assert decision.before.label == witness.label(pictures / name)
            assert decision.after is not None
            logits = witness.logits(out / entry.output)
            assert decision.after.label == int(logits.argmax()) == decision.before.label
            score = float(logits.softmax(0)[decision.after.label])
            assert decision.after.score == pytest.approx(score, abs=1e-4)
            assert decision.after.name == witness.classes[decision.after.label]
            assert decision.kept


def test_naive_answers_are_those_to_the_fill_alone(
    pictures: Path, out: Path, tmp_path: Path, models: list[Classifier], tiny_files: list[Path]
) -> None:
    anonymize([pictures], out, models[:1], CENTER)
    bare = tmp_path / "bare"
    summary = anonymize([pictures], bare, models[:1], replace(CENTER, adapt="none"))
    assert summary.changed_after == summary.changed_naive > 0
    witness = Witness(tiny_files[0])
    for name, entry in entries_of(out).items():
        unsearched = entries_of(bare)[name]
        assert entry.decisions[0].naive == unsearched.decisions[0].naive
        assert unsearched.output is not None
        assert unsearched.decisions[0].naive == unsearched.decisions[0].after
        assert unsearched.decisions[0].after.label == witness.label(bare / unsearched.output)
        assert unsearched.steps == 0
        kept = unsearched.decisions[0].naive.label == unsearched.decisions[0].before.label
        assert unsearched.status == ("kept-naive" if kept else "not-kept")
        # What the fill alone keeps is not touched further.
        assert (entry.status == "kept-naive") == kept
        if kept:
            assert entry.sha256_out == unsearched.sha256_out
        else:
            assert entry.sha256_out != unsearched.sha256_out


DISC = np.hypot(*np.mgrid[-10:10, -10:10]) < 9
"""A round mask in a box of 20 by 20 pixels."""


def private_pixels(kind: str, pictures: Path) -> tuple[str, dict[str, NDArray[np.bool_]]]:
    """Return a regions SPEC and, drawn by hand, which pixels of each picture it makes private."""
    masks = {path.name: np.zeros(pixels_of(path).shape[:2], bool) for path in pictures.iterdir()}
    for mask in masks.values():
        height, width = mask.shape
        if kind == "center:0.3":
            high, wide = round(height * 0.3**0.5), round(width * 0.3**0.5)
            top, left = (height - high) // 2, (width - wide) // 2
            mask[top : top + high, left : left + wide] = True
        elif kind == "box:20,4,47,31":
            mask[4:31, 20:47] = True
        elif kind == "masks":
            mask[10:30, 15:35] |= DISC
            mask[2:9, 1:7] = True
        else:  # two regions of one file, the second of them round and partly over the first
            mask[5:25, 8:30] = True
            mask[15:35, 20:40] |= DISC
    if kind == "masks":
        folder = pictures.with_name("masks")
        folder.mkdir()
        for name, mask in masks.items():
            Image.fromarray(mask).save(folder / name)
        return str(folder), masks
    if kind == "overlapping":
        file = pictures.with_name("regions.json")
        regions = [Region((8, 5, 30, 25)), Region((20, 15, 40, 35), DISC)]
        write_coco(file, [(Path(name), mask.T.shape, regions) for name, mask in masks.items()])
        return str(file), masks
    return kind, masks


@pytest.mark.parametrize("kind", ["center:0.3", "box:20,4,47,31", "masks", "overlapping"])
@pytest.mark.parametrize("fill", ["solid", "blur"])
def test_outside_the_regions_nothing_changes(
    tmp_path: Path, out: Path, models: list[Classifier], kind: str, fill: str
) -> None:
    pictures = write_pictures(tmp_path / "in", 3)
    spec, private = private_pixels(kind, pictures)
    settings = replace(search(keep=parse_keep("scores:0.02"), max_steps=5), regions=spec, fill=fill)
    summary = anonymize([pictures], out, models[:1], settings)
    assert summary.with_regions == 3
    assert max(entry.steps for entry in entries_of(out).values()) == 5, "nothing was searched"
    for name, mask in private.items():
        original, released = pixels_of(pictures / name), pixels_of(out / name)
        assert np.array_equal(original[~mask], released[~mask])
        assert (original[mask] != released[mask]).any(1).mean() > 0.9


def test_keep_names_the_whole_order(
    pictures: Path, out: Path, models: list[Classifier], tiny_files: tuple[Path, Path]
) -> None:
    settings = search(keep=parse_keep("top3"), max_steps=400)
    summary = anonymize([pictures], out, models[:1], settings)
    assert summary.changed_after == summary.failed == 0
    witness = Witness(tiny_files[0])
    reordered = 0
    for name, entry in entries_of(out).items():
        before = witness.logits(pictures / name).topk(3).indices
        assert torch.equal(before, witness.logits(out / name).topk(3).indices)
        reordered += entry.status == "ok"
    assert reordered > summary.changed_naive, "the order must be harder to keep than the class"


def test_keep_holds_every_score_within_the_tolerance(
    pictures: Path, out: Path, models: list[Classifier], tiny_files: tuple[Path, Path]
) -> None:
    settings = search(keep=parse_keep("scores:0.1"), max_steps=400)
    summary = anonymize([pictures], out, models[:1], settings)
    witness = Witness(tiny_files[0])
    found = statuses(out)
    for name, status in found.items():
        change = witness.logits(pictures / name).sigmoid() - witness.logits(out / name).sigmoid()
        # A rounding's breadth around the limit either verdict is fair.
        assert (float(change.abs().max()) < 0.1 + 1e-4) == (status != "not-kept"), name
    assert list(found.values()).count("ok") >= COUNT // 2
    assert summary.changed_after == list(found.values()).count("not-kept")


def test_observers_are_reported_and_take_no_part(
    pictures: Path, out: Path, tmp_path: Path, models: list[Classifier], tiny_files: list[Path]
) -> None:
    anonymize([pictures], out, models[:1], CENTER)
    watched = tmp_path / "watched"
    summary = anonymize([pictures], watched, models[:1], CENTER, observers=models[1:])
    assert releases_of(out) == releases_of(watched)
    assert summary.changed_after == 0, "an observer's loss is not the run's"
    figures = summary.per_model[models[1].spec]
    assert figures.checked_only
    assert figures.changed_after > 0
    witness = Witness(tiny_files[1])
    for name, entry in entries_of(watched).items():
        searched, checked = entry.decisions
        assert (searched.checked_only, checked.checked_only) == (False, True)
        assert checked.before.label == witness.label(pictures / name)
        assert checked.after is not None
        assert checked.after.label == witness.label(watched / name)
        assert checked.kept == (checked.after.label == checked.before.label)


def test_same_inputs_give_the_same_bytes(
    pictures: Path, tmp_path: Path, models: list[Classifier]
) -> None:
    settings = replace(CENTER, fill="noise", seed=5)
    for name in ("one", "two"):
        anonymize([pictures], tmp_path / name, models, settings)
    assert releases_of(tmp_path / "one") == releases_of(tmp_path / "two")
    assert len(releases_of(tmp_path / "one")) == COUNT
    anonymize([pictures], tmp_path / "other", models, replace(settings, seed=6))
    assert releases_of(tmp_path / "one") != releases_of(tmp_path / "other")


def test_batching_changes_no_decision(
    pictures: Path, tmp_path: Path, models: list[Classifier]
) -> None:
    found = []
    for size in (1, 3, 16):
        anonymize([pictures], tmp_path / str(size), models, search(batch_size=size))
        found.append(
            {
                name: (
                    entry.status,
                    [(d.before.label, d.naive, d.after) for d in map(_labels, entry.decisions)],
                )
                for name, entry in entries_of(tmp_path / str(size)).items()
            }
        )
    assert found[0] == found[1] == found[2]
    assert "ok" in {status for status, _ in found[0].values()}


def _labels(decision: Any) -> Any:
    return replace(decision, naive=decision.naive.label, after=decision.after.label)


def test_what_cannot_be_kept_is_the_naive_picture(
    pictures: Path, out: Path, tmp_path: Path, models: list[Classifier]
) -> None:
    summary = anonymize([pictures], out, models[:1], search(max_steps=1, step=0.01))
    anonymize([pictures], tmp_path / "bare", models[:1], replace(CENTER, adapt="none"))
    assert summary.changed_after == summary.changed_naive > 0
    assert "not-kept" in statuses(out).values()
    assert releases_of(out) == releases_of(tmp_path / "bare")


def test_no_status_releases_the_private_pixels(
    pictures: Path, tmp_path: Path, models: list[Classifier]
) -> None:
    seen = set()
    for name, settings in {"searched": CENTER, "given up": search(max_steps=1, step=0.01)}.items():
        anonymize([pictures], tmp_path / name, models[:1], settings)
        for entry in entries_of(tmp_path / name).values():
            assert entry.output is not None
            released = pixels_of(tmp_path / name / entry.output)
            original = pixels_of(Path(entry.input))
            mask = inside(entry.regions, original.shape)
            assert 0.25 < mask.mean() < 0.35
            assert (released[mask] != original[mask]).any(1).mean() > 0.9
            seen.add(entry.status)
    assert seen == {"ok", "kept-naive", "not-kept"}


def test_without_regions_nothing_is_written_unless_asked(
    tmp_path: Path, out: Path, models: list[Classifier]
) -> None:
    source = tmp_path / "in" / "sub"
    source.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x010E] = "a private remark"
    image = Image.fromarray(make_picture(3))
    image.save(source / "a.jpg", exif=exif, quality=95, comment=b"another remark")
    settings = AnonymizeSettings(regions="none")
    summary = anonymize([tmp_path / "in"], out, models[:1], settings)
    assert (summary.images, summary.with_regions, summary.failed) == (1, 0, 0)
    assert releases_of(out) == {}
    assert entries_of(out)["a.jpg"].status == "no-region"

    summary = anonymize([tmp_path / "in"], out, models, replace(settings, copy_unchanged=True))
    released = releases_of(out)
    assert list(released) == ["sub/a.png"]
    assert b"remark" not in released["sub/a.png"]
    assert np.array_equal(pixels_of(out / "sub/a.png"), pixels_of(source / "a.jpg"))
    entry = entries_of(out)["a.jpg"]
    assert (entry.status, entry.output, entry.decisions) == ("no-region", "sub/a.png", ())


def test_metadata_survives_only_by_name(
    tmp_path: Path, out: Path, models: list[Classifier]
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0132], exif[0x010E] = 6, "2024:05:01 10:00:00", "a private remark"
    exif.get_ifd(0x8825)[1] = "N"
    picture = tmp_path / "turned.jpg"
    Image.fromarray(make_picture(4, 72, 40)).save(picture, exif=exif, quality=95)
    anonymize([picture], out, models[:1], CENTER)
    with Image.open(out / "turned.png") as file:
        assert file.size == (40, 72), "upright, as its orientation tag says"
        assert not dict(file.getexif())
    settings = replace(CENTER, keep_metadata=frozenset({"date", "orientation"}))
    anonymize([picture], out, models[:1], settings)
    with Image.open(out / "turned.png") as file:
        assert dict(file.getexif()) == {0x0132: "2024:05:01 10:00:00", 0x0112: 1}
        assert not file.getexif().get_ifd(0x8825)


def test_the_tree_is_mirrored_and_originals_are_untouched(
    tmp_path: Path, models: list[Classifier]
) -> None:
    source = tmp_path / "in"
    write_pictures(source / "a" / "b", 2)
    write_pictures(source / "c", 1, suffix=".jpg")
    before = {path: path.read_bytes() for path in source.rglob("*.*")}
    out = source / "released"  # within the input: it is no input itself
    for _ in range(2):
        summary = anonymize([source], out, models[:1], CENTER)
        assert (summary.images, summary.failed) == (3, 0)
    assert set(releases_of(out)) == {"a/b/000.png", "a/b/001.png", "c/000.png"}
    assert {path: path.read_bytes() for path in before} == before


def test_files_of_others_are_never_replaced(tmp_path: Path, models: list[Classifier]) -> None:
    """Not even by a second run, when the manifest is there already."""
    write_pictures(tmp_path / "in", 2)
    out = tmp_path / "out"
    theirs = out / "000.png"
    write_pictures(out, 1, first=500)
    content = theirs.read_bytes()
    for _ in range(2):
        summary = anonymize([tmp_path / "in"], out, models[:1], CENTER)
        assert summary.failed == 1
        assert theirs.read_bytes() == content
        entry = entries_of(out)["000.png"]
        assert entry.error is not None
        assert "scotoma did not write" in entry.error
    assert statuses(out)["001.png"] != "failed"


def test_an_output_folder_that_is_the_input_is_refused_untouched(
    tmp_path: Path, models: list[Classifier]
) -> None:
    write_pictures(tmp_path, 2)
    with pytest.raises(UnsafePathError, match="output folder"):
        anonymize([tmp_path], tmp_path, models[:1], CENTER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000.png", "001.png"]


def test_progress_and_summary_tell_the_same(
    pictures: Path, out: Path, models: list[Classifier]
) -> None:
    heard = []
    summary = anonymize([pictures], out, models[:1], CENTER, on_progress=heard.append)
    assert [p.skipped for p in heard] == [False] * COUNT
    assert {Path(p.entry.input).name: p.entry for p in heard} == entries_of(out)
    written = json.loads((out / "summary.json").read_text("utf-8"))
    assert written == summary.to_dict()
    assert isinstance(summary, Summary)
    assert summary.images == summary.with_regions == COUNT


def test_settings_are_checked_before_anything_is_written(
    pictures: Path, out: Path, models: list[Classifier]
) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'solid'"):
        replace(CENTER, fill="soild")
    with pytest.raises(UnknownNameError, match="did you mean 'gradient'"):
        replace(CENTER, adapt="gradiant")
    with pytest.raises(SettingsError, match="every model once"):
        anonymize([pictures], out, models[:1], CENTER, observers=models[:1])
    with pytest.raises(SettingsError, match="at least one model"):
        anonymize([pictures], out, [], CENTER)
    assert not out.exists()
