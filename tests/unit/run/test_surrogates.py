"""Black boxes that are first asked about what networks with gradients suggest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.black_boxes import Endpoint, asked
from support.runs import Witness, entries_of, releases_of
from support.tiny_models import write_pictures

from scotoma.core.errors import ModelError, SettingsError, SilentModelError
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.protections.anonymize.settings import SearchSettings
from scotoma.run.anonymize import anonymize
from scotoma.run.settings import AnonymizeSettings

COUNT = 16
CENTER = AnonymizeSettings(regions="center:0.5", search=SearchSettings(max_steps=30))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "in", COUNT, first=300)


@pytest.fixture
def alike(tiny_files: tuple[Path, Path]) -> Classifier:
    """The black box's own network, with its gradients."""
    return load_classifier(f"scotoma:{tiny_files[0]}")


@pytest.fixture
def other(tiny_files: tuple[Path, Path]) -> Classifier:
    """A network that decides otherwise."""
    return load_classifier(f"scotoma:{tiny_files[1]}")


def boxed(plain: Classifier, until: float = float("inf")) -> Classifier:
    return replace(plain, spec="box", network=Endpoint(plain.network, until), differentiable=False)


def test_a_surrogate_that_is_alike_saves_queries(
    alike: Classifier, pictures: Path, tmp_path: Path
) -> None:
    alone, helped = boxed(alike), boxed(alike)
    anonymize([pictures], tmp_path / "alone", [alone], CENTER)
    summary = anonymize([pictures], tmp_path / "helped", [helped], CENTER, surrogates=[alike])
    assert summary.changed_naive >= 5
    assert summary.changed_after == 0
    before, after = (
        [entry.queries for entry in entries_of(tmp_path / name).values()]
        for name in ("alone", "helped")
    )
    assert max(before) > 1.5 * max(after), "echoes, one candidate, and its resized copies"
    # Looks at the surrogate are no queries, those at its candidate are.
    assert summary.queries == sum(after) == asked(helped)


def test_what_the_surrogate_says_is_not_what_the_black_box_says(
    alike: Classifier,
    other: Classifier,
    pictures: Path,
    tmp_path: Path,
    tiny_files: tuple[Path, Path],
) -> None:
    box, out = boxed(alike), tmp_path / "out"
    few = replace(CENTER, blackbox=replace(CENTER.blackbox, queries=30))
    summary = anonymize([pictures], out, [box], few, surrogates=[other])
    witness = Witness(tiny_files[0])
    entries = entries_of(out)
    assert len(entries) == COUNT
    for name, entry in entries.items():
        assert entry.output is not None
        same = witness.label(out / entry.output) == witness.label(pictures / name)
        assert same == (entry.status in ("ok", "kept-naive"))
        assert [decision.model for decision in entry.decisions] == ["box"]
        assert entry.queries <= 30
    assert summary.queries == asked(box)


@pytest.mark.parametrize("until", [50, 110])
def test_a_run_that_was_cut_short_asks_nothing_twice(
    alike: Classifier, other: Classifier, pictures: Path, tmp_path: Path, until: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = replace(CENTER, search=replace(CENTER.search, batch_size=4))
    box, silent, again = boxed(alike), boxed(alike, until), boxed(alike)
    anonymize([pictures], whole, [box], settings, surrogates=[other])
    with pytest.raises(SilentModelError):
        anonymize([pictures], broken, [silent], settings, surrogates=[other])
    anonymize([pictures], broken, [again], settings, surrogates=[other])
    assert asked(silent) + asked(again) == asked(box)
    assert releases_of(broken) == releases_of(whole)


def test_another_surrogate_is_another_run(
    alike: Classifier, other: Classifier, pictures: Path, tmp_path: Path
) -> None:
    box = boxed(alike)
    anonymize([pictures], tmp_path / "out", [box], CENTER)
    first = asked(box)
    anonymize([pictures], tmp_path / "out", [box], CENTER)
    assert asked(box) == first, "done already"
    anonymize([pictures], tmp_path / "out", [box], CENTER, surrogates=[other])
    assert asked(box) > first


def test_what_cannot_be_is_said_and_nothing_written(
    alike: Classifier, other: Classifier, pictures: Path, tmp_path: Path
) -> None:
    out, box = tmp_path / "out", boxed(alike)
    with pytest.raises(ModelError, match="surrogate with gradients, got box"):
        anonymize([pictures], out, [other], replace(CENTER, adapt="blackbox"), surrogates=[box])
    with pytest.raises(SettingsError, match="only where models give scores alone"):
        anonymize([pictures], out, [alike], CENTER, surrogates=[other])
    with pytest.raises(SettingsError, match="every model once"):
        anonymize([pictures], out, [box], CENTER, surrogates=[other, other])
    assert not out.exists()
