"""Whole runs against black boxes: counted, resumed, and asked nothing twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.black_boxes import Endpoint, asked
from support.endpoint import serve
from support.runs import Witness, entries_of, releases_of
from support.tiny_models import write_pictures

from scotoma.core.errors import SilentModelError
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.protections.anonymize.settings import BlackBox
from scotoma.run.anonymize import anonymize
from scotoma.run.answers import AnswerFolder
from scotoma.run.settings import AnonymizeSettings

COUNT = 16
CENTER = AnonymizeSettings(regions="center:0.3")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "in", COUNT, first=300)


@pytest.fixture
def model(tiny_files: tuple[Path, Path]) -> Classifier:
    plain = load_classifier(f"scotoma:{tiny_files[0]}")
    return replace(plain, network=Endpoint(plain.network), differentiable=False)


def test_scores_are_enough_where_there_are_no_gradients(
    model: Classifier, pictures: Path, tmp_path: Path, tiny_files: tuple[Path, Path]
) -> None:
    out = tmp_path / "out"
    summary = anonymize([pictures], out, [model], CENTER)
    assert summary.changed_naive >= 2
    assert summary.changed_after == 0
    entries = entries_of(out)
    assert summary.queries == asked(model) == sum(entry.queries for entry in entries.values())
    assert summary.queries_most == max(entry.queries for entry in entries.values())
    assert json.loads((out / "summary.json").read_text("utf-8"))["queries"] == summary.queries
    witness = Witness(tiny_files[0])
    for name, entry in entries.items():
        assert entry.output is not None
        assert witness.label(out / entry.output) == witness.label(pictures / name)
    assert not (out / ".answers").exists()


def test_gradients_count_no_queries(
    pictures: Path, tmp_path: Path, tiny_files: tuple[Path, Path]
) -> None:
    plain = load_classifier(f"scotoma:{tiny_files[0]}")
    summary = anonymize([pictures], tmp_path / "out", [plain], CENTER)
    assert summary.queries == 0
    forced = replace(CENTER, adapt="blackbox")
    assert anonymize([pictures], tmp_path / "forced", [plain], forced).queries > 2 * COUNT


@pytest.mark.parametrize("until", [7, 40, 60])
def test_a_silent_endpoint_loses_nothing(
    model: Classifier, pictures: Path, tmp_path: Path, until: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = replace(CENTER, search=replace(CENTER.search, batch_size=4))
    anonymize([pictures], whole, [model], settings)
    total = asked(model)
    assert total > 60
    inner = model.network.network  # type: ignore[attr-defined]
    silent = replace(model, network=Endpoint(inner, until))
    with pytest.raises(SilentModelError):
        anonymize([pictures], broken, [silent], settings)
    assert all(entry.status != "failed" for entry in entries_of(broken).values())
    again = replace(model, network=Endpoint(inner))
    summary = anonymize([pictures], broken, [again], settings)
    assert asked(silent) + asked(again) == total == summary.queries
    assert releases_of(broken) == releases_of(whole)
    assert not (broken / ".answers").exists()


def test_a_remote_classifier_from_end_to_end(
    pictures: Path, tmp_path: Path, tiny_files: tuple[Path, Path]
) -> None:
    plain = load_classifier(f"scotoma:{tiny_files[0]}")
    mean, std = (
        torch.tensor(part).view(3, 1, 1)
        for part in (plain.preprocessing.mean, plain.preprocessing.std)
    )

    def score(pixels: NDArray[np.uint8]) -> list[list[float]]:
        inputs = (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
        return plain.logits(inputs.contiguous()).softmax(1).tolist()

    with serve(score) as endpoint:
        config = {**plain.preprocessing.to_config(), "answers": "probabilities"}
        (tmp_path / "remote.json").write_text(json.dumps({**config, "classes": plain.classes}))
        remote = load_classifier(f"{endpoint.url}@{tmp_path / 'remote.json'}")
        summary = anonymize([pictures], tmp_path / "out", [remote], CENTER)
        assert sum(endpoint.batches) == summary.queries + 1  # one when it was loaded
    assert summary.changed_naive >= 2
    assert summary.changed_after == 0


def test_the_budget_is_part_of_what_decides_a_run(
    model: Classifier, pictures: Path, tmp_path: Path
) -> None:
    few = replace(CENTER, blackbox=BlackBox(queries=3))
    anonymize([pictures], tmp_path / "out", [model], few)
    assert max(entry.queries for entry in entries_of(tmp_path / "out").values()) == 3
    more = anonymize([pictures], tmp_path / "out", [model], CENTER)
    assert more.changed_after == 0, "lost decisions are searched again with more queries"


def test_answers_survive_a_torn_end(tmp_path: Path) -> None:
    folder = AnswerFolder(tmp_path / "answers")
    rows = [torch.randn(5), torch.randn(3), torch.randn(5)]
    file = folder.open("a", "b")
    for question, row in enumerate(rows):
        assert file.recall(question) is None
        file.keep(question, row)
        assert file.recall(question) is None, "what this run asked for counts as asked for"
    (path,) = (tmp_path / "answers").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    again = folder.open("a", "b")
    for question, row in enumerate(rows[:2]):
        known = again.recall(question)
        assert known is not None
        assert torch.equal(known, row)
    assert again.recall(2) is None
    again.keep(2, rows[2])
    third = folder.open("a", "b")
    assert [third.recall(question) is not None for question in range(4)] == [True] * 3 + [False]
    assert folder.open("b").recall(0) is None, "another picture has its own"
    third.forget()
    folder.close()
    assert not (tmp_path / "answers").exists()
