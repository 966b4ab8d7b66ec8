"""The search by scores alone: what it may look at, what it may spend, what it may depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.tiny_models import make_picture, naively_filled
from torch import Tensor

from scotoma.core.errors import ModelError, SettingsError, SilentModelError, UnknownNameError
from scotoma.images.region_sources import CenterRegions
from scotoma.images.regions import Region
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.protections.anonymize.content import BASES, Content
from scotoma.protections.anonymize.echoes import echoes
from scotoma.protections.anonymize.patchwork import Patchwork
from scotoma.protections.anonymize.score_model import ScoreModel
from scotoma.protections.anonymize.search import Search
from scotoma.protections.anonymize.settings import BlackBox, SearchSettings
from scotoma.protections.anonymize.sight import Sight
from scotoma.protections.anonymize.subject import Outcome

Pixels = NDArray[np.uint8]
SEEDS = range(300, 330)


@dataclass(eq=False)
class Memory:
    """A subject without a file."""

    original: Pixels
    start: Pixels
    regions: Sequence[Region]
    publisher: Callable[[Pixels], Pixels] = lambda pixels: pixels

    def publish(self, pixels: Pixels) -> Pixels:
        return self.publisher(pixels)


class Opaque:
    """A network that lets no gradient out, and counts."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network, self.batches = network, list[int]()

    def __call__(self, images: Tensor) -> Tensor:
        assert not images.requires_grad
        self.batches.append(len(images))
        return self.network(images).detach()


@pytest.fixture
def model(tiny_files: tuple[Path, Path]) -> Classifier:
    return opaque(tiny_files[0])


def opaque(path: Path) -> Classifier:
    plain = load_classifier(f"scotoma:{path}")
    return replace(plain, network=Opaque(plain.network), differentiable=False)


def make_subject(seed: int, **changes: Any) -> Memory:
    original = make_picture(seed)
    regions = CenterRegions(0.3).find(original, Path())
    return replace(Memory(original, naively_filled(original), regions), **changes)


def decide(model: Classifier, pixels: Pixels) -> int:
    return int(model.logits(model.read(Image.fromarray(pixels))[None]).argmax())


def search(
    model: Classifier | Sequence[Classifier],
    subjects: Sequence[Memory],
    settings: SearchSettings | None = None,
    **blackbox: Any,
) -> list[Outcome]:
    models = [model] if isinstance(model, Classifier) else model
    found = Search(models, settings, blackbox=BlackBox(**blackbox)).run(subjects)
    outcomes = {id(outcome.subject): outcome for outcome in found}
    return [outcomes[id(subject)] for subject in subjects]


@pytest.mark.parametrize("optimizer", ["patchwork", "linear", "fda", "random"])
def test_decisions_come_back_inside_the_region_alone(model: Classifier, optimizer: str) -> None:
    subjects = [make_subject(seed) for seed in SEEDS]
    flipped = kept = 0
    for subject, outcome in zip(
        subjects, search(model, subjects, optimizer=optimizer, queries=300), strict=True
    ):
        assert outcome.pixels is not None
        same = decide(model, outcome.pixels) == decide(model, subject.original)
        assert same == (outcome.status in ("ok", "kept-naive"))
        x0, y0, x1, y1 = subject.regions[0].box
        outside = np.ones(subject.original.shape[:2], bool)
        outside[y0:y1, x0:x1] = False
        assert np.array_equal(outcome.pixels[outside], subject.start[outside])
        if decide(model, subject.start) != decide(model, subject.original):
            flipped += 1
            kept += same
    assert flipped >= 7
    assert kept >= flipped - (0 if optimizer in ("patchwork", "linear") else 2)


@pytest.mark.parametrize("optimizer", ["fda", "fda-lines", "cma-es", "de", "random"])
def test_queries_that_run_out_in_the_middle_of_a_batch_fail_no_picture(
    model: Classifier, optimizer: str
) -> None:
    flipped = [
        subject
        for subject in map(make_subject, SEEDS)
        if decide(model, subject.start) != decide(model, subject.original)
    ]
    subjects = flipped[:3]
    for queries in range(17, 24):
        outcomes = search(model, subjects, optimizer=optimizer, queries=queries, margin=50.0)
        assert {outcome.status for outcome in outcomes} <= {"ok", "not-kept"}
        assert all(outcome.queries <= queries for outcome in outcomes)
        assert all(outcome.pixels is not None for outcome in outcomes)


@pytest.mark.parametrize("queries", [3, 9, 40])
def test_the_budget_holds_and_the_count_is_true(model: Classifier, queries: int) -> None:
    subjects = [make_subject(seed) for seed in SEEDS]
    network = model.network
    assert isinstance(network, Opaque)
    outcomes = search(model, subjects, queries=queries)
    assert max(outcome.queries for outcome in outcomes) <= queries
    assert sum(network.batches) == sum(outcome.queries for outcome in outcomes)
    assert {outcome.queries for outcome in outcomes if outcome.status == "kept-naive"} == {2}
    lost = sum(outcome.status == "not-kept" for outcome in outcomes)
    if queries == 3:
        assert lost >= 3
    if queries == 40:
        assert lost <= 1


def test_batches_are_full_though_each_picture_asks_little(model: Classifier) -> None:
    network = model.network
    assert isinstance(network, Opaque)
    search(model, [make_subject(seed) for seed in range(300, 360)], SearchSettings(batch_size=8))
    assert sum(network.batches) / len(network.batches) > 6


@pytest.mark.parametrize("labels_only", [False, True])
def test_a_release_depends_on_what_is_private_through_the_decision_alone(
    model: Classifier, labels_only: bool
) -> None:
    subject = next(
        found
        for found in map(make_subject, SEEDS)
        if decide(model, found.start) != decide(model, found.original)
    )
    x0, y0, x1, y1 = subject.regions[0].box
    generator = np.random.default_rng(1)
    for _ in range(400):  # another content, the same decision
        other = subject.original.copy()
        colours = generator.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        content = Image.fromarray(colours).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC)
        other[y0:y1, x0:x1] = np.asarray(content)
        if decide(model, other) == decide(model, subject.original):
            break
    else:
        pytest.fail("found no other content with the same decision")
    twin = replace(subject, original=other)
    first, second = (
        search(model, [one], labels_only=labels_only, queries=200)[0] for one in (subject, twin)
    )
    assert first.pixels is not None
    assert second.pixels is not None
    assert first.queries == second.queries > 2
    assert np.array_equal(first.pixels, second.pixels)


def test_what_is_written_is_what_is_judged(model: Classifier) -> None:
    """A publisher that halves the depth of colour: only what survives it counts."""

    def coarse(pixels: Pixels) -> Pixels:
        return (pixels // 64 * 64).astype(np.uint8)

    subjects = [make_subject(seed, publisher=coarse) for seed in SEEDS]
    found = 0
    for subject, outcome in zip(subjects, search(model, subjects), strict=True):
        assert outcome.pixels is not None
        same = decide(model, coarse(outcome.pixels)) == decide(model, subject.original)
        assert same == (outcome.status in ("ok", "kept-naive"))
        found += outcome.status == "ok"
    assert found >= 5


def test_several_black_boxes_at_once(tiny_files: tuple[Path, Path]) -> None:
    models = [opaque(path) for path in tiny_files]
    subjects = [make_subject(seed) for seed in SEEDS]
    outcomes = search(models, subjects)
    kept = 0
    for subject, outcome in zip(subjects, outcomes, strict=True):
        assert outcome.pixels is not None
        same = all(decide(m, outcome.pixels) == decide(m, subject.original) for m in models)
        assert same == (outcome.status in ("ok", "kept-naive"))
        kept += same
    assert kept >= len(subjects) - 2


def test_labels_alone(model: Classifier) -> None:
    """Logits that say the label and nothing else: the search sees no more, and finds some."""
    network = model.network

    def first(images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(network(images).argmax(1), 5).float()

    blind = replace(model, network=first, labels_only=True)
    subjects = [make_subject(seed) for seed in SEEDS]
    by_labels, told = search(blind, subjects), search(model, subjects, labels_only=True)
    for one, other in zip(by_labels, told, strict=True):
        assert one.pixels is not None
        assert np.array_equal(one.pixels, other.pixels)
    flipped = [outcome for outcome in by_labels if outcome.status != "kept-naive"]
    assert len(flipped) >= 7
    assert sum(outcome.status == "ok" for outcome in flipped) >= len(flipped) / 2


def test_nan_fails_its_picture_and_no_other(model: Classifier) -> None:
    network = model.network

    def spoiled(images: Tensor) -> Tensor:
        logits = network(images).clone()
        logits[images.std((2, 3)).amax(1) < 1e-6] = float("nan")
        return logits

    subjects = [make_subject(seed) for seed in SEEDS]
    subjects[3] = make_subject(1, original=np.full_like(subjects[3].original, 255))
    outcomes = search(replace(model, network=spoiled), subjects)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert [outcome.subject for outcome in failed] == [subjects[3]]
    assert isinstance(failed[0].error, ModelError)
    assert "finite" in str(failed[0].error)


def test_silence_ends_the_run(model: Classifier) -> None:
    calls = []

    def silent(images: Tensor) -> Tensor:
        calls.append(len(images))
        raise SilentModelError("no answer")

    with pytest.raises(SilentModelError):
        search(replace(model, network=silent), [make_subject(seed) for seed in SEEDS])
    assert len(calls) == 1, "nobody is asked again, picture by picture"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"queries": 0}, "queries of at least 3, got 0"),
        ({"queries": 2}, "queries"),
        ({"batch": 1}, "batch"),
        ({"coefficients": 0}, "coefficients"),
        ({"margin": float("nan")}, "margin"),
        ({"reach": 0.0}, "reach"),
    ],
)
def test_settings_out_of_range(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        BlackBox(**setting)


def test_an_unknown_optimizer_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="linear"):
        BlackBox(optimizer="linaer")


def test_gradients_are_not_asked_of_a_black_box(model: Classifier) -> None:
    with pytest.raises(ModelError, match="--adapt blackbox"):
        Search([model])


@pytest.mark.parametrize("basis", BASES)
def test_numbers_move_pixels_by_their_size(model: Classifier, basis: str) -> None:
    subject = make_subject(0, start=np.full((48, 60, 3), 128, np.uint8))
    sight = Sight.open([model], subject.start, subject.regions, SearchSettings())
    content = Content(sight.canvas, 30, basis)
    for number in (0, content.size // 2, content.size - 1):
        point = torch.zeros(1, content.size)
        point[0, number] = 10.0
        sight.canvas.show([part[0] for part in content.cells(point)])
        x0, y0, x1, y1 = subject.regions[0].box
        change = sight.canvas.render()[y0:y1, x0:x1].astype(float) - 128
        assert np.sqrt((change**2).mean()) == pytest.approx(10, rel=0.25)


@pytest.mark.parametrize("basis", BASES)
def test_every_region_gets_numbers(model: Classifier, basis: str) -> None:
    regions = [Region((2, 2, 6, 6)), Region((10, 4, 50, 40)), Region((52, 40, 58, 46))]
    sight = Sight.open([model], make_picture(0), regions, SearchSettings())
    content = Content(sight.canvas, 60, basis)
    assert 40 <= content.size <= 90
    parts = content.cells(torch.ones(2, content.size))
    assert [part.shape[:2] for part in parts] == [(2, 3)] * 3
    assert all(bool(part.any()) for part in parts)


@pytest.mark.parametrize("make", ["echoes", "patchwork"])
def test_surroundings_alone_are_repeated(make: str) -> None:
    """Regions of any shape, at any border: nothing outside them moves, nothing flat is left."""
    mask = np.zeros((20, 14), bool)
    mask[4:18, 3:12] = True
    regions = [Region((0, 0, 14, 20), mask), Region((30, 10, 60, 48)), Region((20, 0, 22, 3))]
    start = make_picture(5)
    inside = np.zeros(start.shape[:2], bool)
    inside[0:20, 0:14] |= mask
    inside[10:48, 30:60] = inside[0:3, 20:22] = True
    start[inside] = 128
    if make == "echoes":
        made = list(echoes(start, regions))
    else:
        work = Patchwork(start, regions, seed=0)
        made = [start]
        for step in range(60):
            made = work.variants(made[0], 2, step / 60)
    for picture in made:
        assert np.array_equal(picture[~inside], start[~inside])
    changed = np.any([(picture != start).any(2) for picture in made], axis=0)
    assert changed[inside].mean() > 0.8


def test_a_linear_black_box_is_learned_exactly() -> None:
    generator = np.random.default_rng(0)
    slopes = generator.normal(0, 0.05, (7, 12))
    model = ScoreModel(np.full(12, 0.05), [7])
    moves = generator.normal(0, 30, (24, 12))
    changes = torch.tensor(moves @ slopes.T, dtype=torch.float32)
    for part in range(0, 24, 4):  # in portions, as answers come
        model.learn(moves[part : part + 4], [changes[part : part + 4]], np.full(4, 1e-3))
    assert np.allclose(model.slopes[0].numpy(), slopes, atol=1e-4)

    def loss(number: int, scores: Tensor) -> Tensor:
        assert number == 0
        return -scores[:, 2]

    move = model.climb([torch.zeros(7)], loss, np.array([20.0]), np.zeros((1, 12)))[0]
    best = slopes[2] / np.linalg.norm(slopes[2])
    assert np.linalg.norm(move) == pytest.approx(20, rel=1e-3)
    assert move @ best > 19.9
