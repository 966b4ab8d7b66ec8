"""The search by itself: no files, no runs, only pictures, models and what they are asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
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

from scotoma.core.errors import ModelError, SettingsError
from scotoma.images.region_sources import CenterRegions
from scotoma.images.regions import Region
from scotoma.models.classifier import Classifier
from scotoma.models.spec import load_classifier
from scotoma.protections.anonymize.objectives import Scores
from scotoma.protections.anonymize.scheduler import Request, run_together
from scotoma.protections.anonymize.search import Search
from scotoma.protections.anonymize.settings import SearchSettings, Transfer
from scotoma.protections.anonymize.subject import Outcome

Pixels = NDArray[np.uint8]


@dataclass(eq=False)
class Memory:
    """A subject without a file."""

    original: Pixels
    start: Pixels
    regions: Sequence[Region]
    publisher: Callable[[Pixels], Pixels] = lambda pixels: pixels

    def publish(self, pixels: Pixels) -> Pixels:
        return self.publisher(pixels)


def make_subject(seed: int, **changes: Any) -> Memory:
    original = make_picture(seed)
    regions = CenterRegions(0.3).find(original, Path())
    return replace(Memory(original, naively_filled(original), regions), **changes)


class Counted:
    """Counts what goes through a network."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network, self.batches = network, list[int]()

    def __call__(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return self.network(images)

    @property
    def count(self) -> int:
        return sum(self.batches)


@pytest.fixture(scope="module")
def models(tiny_files: tuple[Path, Path]) -> list[Classifier]:
    return [load_classifier(f"scotoma:{path}") for path in tiny_files]


def decide(model: Classifier, pixels: Pixels) -> int:
    return int(model.logits(model.read(Image.fromarray(pixels))[None]).argmax())


def search_all(search: Search, subjects: Sequence[Memory]) -> list[Outcome]:
    """Return the outcomes in the order of the subjects."""
    outcomes = {id(outcome.subject): outcome for outcome in search.run(subjects)}
    assert len(outcomes) == len(subjects)
    return [outcomes[id(subject)] for subject in subjects]


def test_decisions_come_back_inside_the_region_alone(models: list[Classifier]) -> None:
    subjects = [make_subject(seed) for seed in range(300, 320)]
    outcomes = search_all(Search(models[:1]), subjects)
    searched = 0
    for subject, outcome in zip(subjects, outcomes, strict=True):
        assert outcome.pixels is not None
        assert decide(models[0], outcome.pixels) == decide(models[0], subject.original)
        outside = np.ones(subject.original.shape[:2], bool)
        x0, y0, x1, y1 = subject.regions[0].box
        outside[y0:y1, x0:x1] = False
        assert np.array_equal(outcome.pixels[outside], subject.start[outside])
        flipped = decide(models[0], subject.start) != decide(models[0], subject.original)
        assert outcome.status == ("ok" if flipped else "kept-naive")
        assert (outcome.steps > 0) == flipped
        searched += flipped
    assert searched >= 5


def test_a_narrow_lead_is_widened_only_where_unseen_models_shall_agree(
    models: list[Classifier],
) -> None:
    subjects = [make_subject(seed) for seed in range(300, 330)]
    transfer = SearchSettings(transfer=Transfer(steps=4, margin=3.0), views=())
    plain = search_all(Search(models[:1]), subjects)
    wide = search_all(Search(models[:1], transfer), subjects)
    narrow = 0
    for before, after in zip(plain, wide, strict=True):
        if before.status != "kept-naive":
            continue
        top = before.naive[0].topk(2).values
        if top[0] - top[1] >= 3:
            assert after.status == "kept-naive"
            assert after.steps == 0
        else:
            narrow += 1
            assert after.steps >= 4
            assert after.pixels is not None
            label = decide(models[0], before.subject.original)
            assert decide(models[0], after.pixels) == label
            assert after.status in ("ok", "kept-naive")
    assert narrow >= 2


def test_no_steps_only_judge(models: list[Classifier]) -> None:
    subjects = [make_subject(seed) for seed in range(300, 310)]
    outcomes = search_all(Search(models, SearchSettings(max_steps=0)), subjects)
    assert {outcome.status for outcome in outcomes} == {"kept-naive", "not-kept"}
    for subject, outcome in zip(subjects, outcomes, strict=True):
        assert outcome.pixels is subject.start
        assert outcome.after == outcome.naive
        assert (outcome.steps, outcome.pulls, outcome.looks) == (0, 0, 4)


def test_giving_up_returns_the_start(models: list[Classifier]) -> None:
    subjects = [make_subject(seed) for seed in range(300, 310)]
    outcomes = search_all(Search(models[:1], SearchSettings(max_steps=2, step=1e-3)), subjects)
    lost = [outcome for outcome in outcomes if outcome.status == "not-kept"]
    assert lost
    for outcome in lost:
        assert outcome.steps == 2
        assert outcome.pixels is outcome.subject.start
        assert int(outcome.after[0].argmax()) != int(outcome.before[0].argmax())


def test_what_is_asked_of_the_models_is_what_outcomes_say(models: list[Classifier]) -> None:
    """Pictures leave when they are done, and models that agree are not pulled."""
    looks = [Counted(model.network) for model in models]
    pulls = [Counted(model.network) for model in models]
    counted = [replace(model, network=look) for model, look in zip(models, looks, strict=True)]
    search = Search(
        counted,
        SearchSettings(batch_size=4),
        gradient_networks={model.spec: pull for model, pull in zip(models, pulls, strict=True)},
    )
    subjects = [make_subject(seed) for seed in range(300, 330)]
    outcomes = search_all(search, subjects)
    assert sum(outcome.looks for outcome in outcomes) == sum(look.count for look in looks)
    assert sum(outcome.pulls for outcome in outcomes) == sum(pull.count for pull in pulls)
    assert max(size for look in (*looks, *pulls) for size in look.batches) == 4
    steps = sum(outcome.steps for outcome in outcomes)
    assert sum(pull.count for pull in pulls) < 2 * steps + 2 * len(subjects), "no model was skipped"
    # Refilled as pictures leave, batches stay full but for the end.
    assert np.mean(looks[0].batches) > 3


def test_the_search_judges_what_is_published(models: list[Classifier]) -> None:
    """An encoder with a colour cast and few levels: decisions must hold after it, not before."""

    def publish(pixels: Pixels) -> Pixels:
        return (pixels // 32 * 32 + np.array([60.0, -30, -60])).clip(0, 255).astype(np.uint8)

    subjects = [make_subject(seed, publisher=publish) for seed in range(300, 316)]
    outcomes = search_all(Search(models[:1]), subjects)
    kept_unpublished = 0
    for outcome in outcomes:
        if outcome.status == "not-kept":
            continue
        goal = decide(models[0], outcome.subject.original)
        assert decide(models[0], publish(outcome.pixels)) == goal
        kept_unpublished += decide(models[0], outcome.pixels) == goal
    kept = [outcome for outcome in outcomes if outcome.status != "not-kept"]
    assert len(kept) >= 14
    assert kept_unpublished < len(kept), "publishing made no difference"


def test_decisions_have_a_margin(models: list[Classifier]) -> None:
    subjects = [make_subject(seed) for seed in range(300, 340)]
    settings = SearchSettings(margin=2.0)
    searched = [o for o in search_all(Search(models[:1], settings), subjects) if o.status == "ok"]
    survived = 0
    for outcome in searched:
        assert outcome.pixels is not None
        top = outcome.after[0].topk(2).values
        goal = int(outcome.before[0].argmax())
        picture = Image.fromarray(outcome.pixels)
        copies = [
            picture.resize((round(60 * scale), round(48 * scale)), Image.Resampling.BICUBIC)
            for scale in settings.views
        ]
        strong = float(top[0] - top[1]) >= settings.margin / 2
        survived += strong and all(decide(models[0], np.asarray(c)) == goal for c in copies)
    assert len(searched) >= 8
    assert survived >= 0.9 * len(searched)


def test_models_judge_and_faster_networks_only_pull(models: list[Classifier]) -> None:
    """A gradient network that disagrees with its model must not decide anything."""

    def upside_down(images: Tensor) -> Tensor:
        return -models[0].network(images)

    subjects = [make_subject(seed) for seed in range(300, 310)]
    honest = search_all(Search(models[:1], SearchSettings(max_steps=0)), subjects)
    search = Search(
        models[:1],
        SearchSettings(max_steps=6),
        gradient_networks={models[0].spec: upside_down},
    )
    for before, outcome in zip(honest, search_all(search, subjects), strict=True):
        assert torch.equal(outcome.before[0], before.before[0])
        assert torch.equal(outcome.naive[0], before.naive[0])
        if outcome.status == "ok":
            goal = decide(models[0], outcome.subject.original)
            assert decide(models[0], outcome.pixels) == goal


def test_an_error_ends_one_picture(models: list[Classifier]) -> None:
    def fail(pixels: Pixels) -> Pixels:
        raise OSError("no space left")

    subjects = [make_subject(300), make_subject(301, publisher=fail), make_subject(302)]
    outcomes = search_all(Search(models[:1]), subjects)
    assert [outcome.status == "failed" for outcome in outcomes] == [False, True, False]
    assert outcomes[1].pixels is None
    assert isinstance(outcomes[1].error, OSError)


def test_a_failing_batch_is_tried_one_by_one() -> None:
    """The bad item's life is thrown its error; the others get their answers, each once."""
    executed = []

    def execute(queue: Hashable, items: Sequence[Any]) -> list[Any]:
        executed.append(list(items))
        if 2 in items:
            raise ValueError("two")
        return [10 * item for item in items]

    def live(number: int) -> Any:
        try:
            (answer,) = yield [Request("q", number)]
        except ValueError as error:
            return str(error)
        (again,) = yield [Request("q", number + 100)]
        return answer + again

    lives = ((live(number), 1) for number in range(5))
    ended = list(run_together(lives, execute, batch_size=4, pool_size=4, pool_weight=9))
    assert sorted(ended, key=str) == [1000, 1020, 1060, 1080, "two"]
    assert [2] in executed


def test_models_without_gradients_are_refused_but_may_observe(models: list[Classifier]) -> None:
    blind = replace(models[1], differentiable=False)
    with pytest.raises(ModelError, match="scores only"):
        Search([blind])
    with pytest.raises(SettingsError, match="at least one model"):
        Search([])
    assert Search([blind], SearchSettings(max_steps=0)).models == [blind]
    subjects = [make_subject(seed) for seed in range(300, 306)]
    for outcome in search_all(Search(models[:1], observers=[blind]), subjects):
        assert len(outcome.before) == len(outcome.naive) == len(outcome.after) == 2
        assert outcome.pixels is not None
        assert int(outcome.after[1].argmax()) == decide(blind, outcome.pixels)


def test_scores_can_be_kept_in_regions_of_any_form(models: list[Classifier]) -> None:
    disc = np.hypot(*np.mgrid[-9:9, -9:9]) < 8
    regions = [Region((4, 4, 30, 30)), Region((22, 22, 40, 40), disc)]
    original = make_picture(340)
    start = original.copy()
    start[4:30, 4:30] = 128
    start[22:40, 22:40][disc] = 90
    subject = Memory(original, start, regions)
    settings = SearchSettings(keep=Scores(0.05), max_steps=300)
    (outcome,) = search_all(Search(models[:1], settings), [subject])
    assert outcome.status == "ok"
    assert outcome.pixels is not None
    private = np.zeros(original.shape[:2], bool)
    private[4:30, 4:30] = True
    private[22:40, 22:40] |= disc
    assert np.array_equal(outcome.pixels[~private], original[~private])
    seen = models[0].logits(models[0].read(Image.fromarray(outcome.pixels))[None]).sigmoid()
    assert float((seen - outcome.before[0].sigmoid()).abs().max()) < 0.05


def test_batches_of_one_do_not_depend_on_the_company(models: list[Classifier]) -> None:
    """With one picture per pass, the bytes are a picture's own affair."""
    settings = SearchSettings(batch_size=1)
    subjects = [make_subject(seed) for seed in range(300, 312)]
    together = search_all(Search(models, settings), subjects)
    for subject, outcome in zip(subjects, together, strict=True):
        (alone,) = search_all(Search(models, settings), [subject])
        assert outcome.pixels is not None
        assert alone.pixels is not None
        assert np.array_equal(outcome.pixels, alone.pixels)
