"""Recognizing people: what counts as a match, what chance gives, and the trap of the original."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from scotoma.core.errors import ModelError, SettingsError
from scotoma.evaluate.reidentification import (
    Reidentification,
    load_embedder,
    pair_auc,
    rank_one,
)

PEOPLE, EACH = 6, 5


def flat(images: Tensor) -> Tensor:
    """Stands in for a network: a picture is its own embedding."""
    return F.normalize(images.double().flatten(1) - 0.5, dim=1)


def people(likeness: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures of people who look like themselves by ``likeness``, 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    faces = torch.rand((PEOPLE, 1, 3, 6, 6), generator=generator)
    own = torch.rand((PEOPLE, EACH, 3, 6, 6), generator=generator)
    images = (likeness * faces + (1 - likeness) * own).flatten(0, 1)
    return images, torch.arange(PEOPLE).repeat_interleave(EACH)


def judged(guesses: Tensor, originals: Tensor, labels: Tensor, **options: Any) -> dict[str, float]:
    judge = Reidentification(flat, **options)  # type: ignore[arg-type]
    for part in range(0, len(labels), 7):
        there = slice(part, part + 7)
        judge.add(guesses[there], originals[there], labels[there])
    return {name: figure.value for name, figure in judge.figures().items()}


def test_people_who_look_like_themselves_are_recognized() -> None:
    images, labels = people(0.8)
    found = judged(images, images, labels)
    assert found["reid_rank1"] == found["linkage_rank1"] == 1.0
    assert found["auc_reid"] > 0.99


def test_the_original_itself_is_no_recognition() -> None:
    """Pictures of one person have nothing in common: only the very original can be linked."""
    images, labels = people(0.0)
    found = judged(images, images, labels)
    assert found["linkage_rank1"] == 1.0
    assert found["reid_rank1"] < 0.4
    assert abs(found["auc_reid"] - 0.5) < 0.1


def test_chance_is_what_a_guess_without_knowledge_gets() -> None:
    images, labels = people(0.8)
    found = judged(images.mean(0, keepdim=True).expand_as(images), images, labels)
    assert found["chance_linkage_rank1"] == pytest.approx(1 / PEOPLE)
    assert found["chance_reid_rank1"] == pytest.approx((EACH - 1) / (PEOPLE * EACH - 1))
    assert found["linkage_rank1"] == pytest.approx(1 / PEOPLE)
    assert found["auc_linkage"] == pytest.approx(0.5, abs=0.01)


def test_a_gallery_of_ones_own_replaces_the_other_originals() -> None:
    images, labels = people(0.8)
    known = labels < 3
    found = judged(images, images, labels, gallery=(images[known], labels[known]))
    judge = Reidentification(flat, gallery=(images[known], labels[known]))  # type: ignore[arg-type]
    judge.add(images, images, labels)
    # Guesses of people who are not in the gallery cannot be right and are not counted.
    assert judge.figures()["reid_rank1"].n == 3 * EACH
    assert found["chance_reid_rank1"] == pytest.approx(1 / 3)


def test_unknown_people_are_left_out() -> None:
    images, labels = people(0.8)
    assert judged(images, images, torch.full_like(labels, -1)) == {}
    half = torch.where(labels < 3, labels, -1)
    judge = Reidentification(flat)  # type: ignore[arg-type]
    judge.add(images, images, half)
    assert judge.figures()["reid_rank1"].n == 3 * EACH


def test_a_person_with_one_picture_cannot_be_recognized_by_another() -> None:
    images, labels = people(0.8)
    one_each = torch.arange(0, len(labels), EACH)
    found = judged(images[one_each], images[one_each], labels[one_each])
    assert "reid_rank1" not in found
    assert found["linkage_rank1"] == 1.0


def test_rank_one_looks_at_the_allowed_only() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.8, 0.3], [0.5, 0.4, 0.3]])
    same = torch.tensor([[True, True, False], [True, False, False], [False, False, True]])
    allowed = ~torch.eye(3, dtype=torch.bool)
    # The first finds its twin, the second the wrong one, the third has nobody.
    assert rank_one(scores, same, allowed).tolist() == [True, False]


def test_auc_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 40)
    same = labels[:, None] == labels[None]
    scores = np.round(rng.normal(size=(40, 40)) + 0.7 * same, 1)  # rounded: with ties
    allowed = ~np.eye(40, dtype=bool)
    found, low, high = pair_auc(scores, same, allowed, labels)
    assert found == pytest.approx(roc_auc_score(same[allowed], scores[allowed]))
    assert low < found < high


def test_the_interval_of_an_auc_knows_that_people_come_in_pairs() -> None:
    """Ten times as many pictures of the same few people make nothing much surer."""
    rng = np.random.default_rng(1)

    def width(each: int) -> float:
        labels = np.repeat(np.arange(6), each)
        ease = rng.normal(0, 1, 6)[labels]
        same = labels[:, None] == labels[None]
        scores = rng.normal(size=same.shape) + (1 + ease)[:, None] * same
        _, low, high = pair_auc(scores, same, np.ones_like(same), labels)
        return high - low

    assert np.mean([width(20) for _ in range(10)]) > 0.4 * np.mean([width(2) for _ in range(10)])


def test_auc_without_both_kinds_is_not_a_number() -> None:
    same = np.ones((2, 2), dtype=bool)
    assert all(map(math.isnan, pair_auc(np.zeros((2, 2)), same, same, np.zeros(2, dtype=np.int64))))


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="onnx:FILE"):
        load_embedder("timm:resnet18")
    with pytest.raises(ModelError, match="no such file"):
        load_embedder(f"onnx:{tmp_path / 'none.onnx'}")
    with pytest.raises(SettingsError, match="protocol out of"):
        Reidentification(flat, protocols=("any",))  # type: ignore[arg-type]


def read_faces(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    rows = []
    for label, person in enumerate(sorted(folder.iterdir())[:count]):
        for path in sorted(person.iterdir())[:3]:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            rows.append((torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255, label))
    return torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])


@pytest.mark.shared
def test_a_real_embedder_knows_real_people_and_not_their_blurs(
    shared: Path, tmp_path: Path
) -> None:
    images, labels = read_faces(shared / "data" / "faces" / "orl", 8)
    path = tmp_path / "embedder.onnx"
    path.symlink_to(shared / "models" / "face_embedder.onnx")
    embedder = load_embedder(f"onnx:{path}")
    assert embedder.size == (112, 96)
    blurred = F.interpolate(F.avg_pool2d(images, 14), images.shape[2:])
    judges = [Reidentification(embedder), Reidentification(embedder)]
    for judge, guesses in zip(judges, (images, blurred), strict=True):
        judge.add(guesses, images, labels)
    clear, hidden = (judge.figures() for judge in judges)
    assert clear["reid_rank1"].value == 1.0
    assert clear["auc_reid"].value > 0.95
    # Eight by eight means are no face, and yet not quite chance.
    assert hidden["reid_rank1"].value < 0.5
    assert hidden["auc_reid"].value < 0.85
    # A JSON beside the file is read: a wrong normalization hurts.
    path.with_suffix(".json").write_text(json.dumps({"mean": [0.5] * 3, "std": [50.0] * 3}))
    worse = load_embedder(f"onnx:{path}")(images)
    assert float((embedder(images) * worse).sum(1).min()) < 0.9
    path.with_suffix(".json").write_text("[")
    with pytest.raises(ModelError, match="expected JSON"):
        load_embedder(f"onnx:{path}")
