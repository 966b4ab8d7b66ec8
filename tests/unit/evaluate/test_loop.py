"""One cell: the right key to the right pictures, the right candidate, and no more memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from support.evaluation import Ask, Constant, make_unit_images
from torch import Generator, Tensor

from scotoma.attacks.inversion.curve import Point
from scotoma.attacks.look import Look
from scotoma.core.protocols import Attack, Knowledge, Release
from scotoma.evaluate.loop import evaluate
from scotoma.evaluate.measurement import Shown
from scotoma.evaluate.records import Record
from scotoma.evaluate.subjects import open_subject
from scotoma.models.spec import load_classifier

METRICS = ("block_brightness_correlation", "psnr_db")
AUXILIARY = make_unit_images(40, first=500)


def measure(attack: Any, images: Any = None, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "protection": open_subject("orthogonal", {"block": 4}),
        "threat_model": "chosen-plaintext",
        "auxiliary": AUXILIARY,
        "metrics": METRICS,
        "pictures_per_key": 4,
        **changes,
    }
    protection = values.pop("protection")
    pictures = make_unit_images(10) if images is None else images
    return evaluate(protection, attack, pictures, **values)


def test_an_attack_that_breaks_a_protection_is_seen_to_break_it() -> None:
    record = measure(Ask())
    assert record.status == "ok", record.reason
    assert (record.n, record.keys, record.pictures_per_key) == (10, 3, 4)
    assert record.metrics["psnr_db"].value > 40
    assert record.metrics["psnr_db"].n == 10
    assert record.trivial["psnr_db"].value < 20
    assert not record.oracle
    assert record.notes == ()
    assert record.protection.settings == {"block": 4}


def test_an_attack_that_does_not_is_said_to_be_worse_than_nothing() -> None:
    record = measure(Constant(0.0))
    assert record.metrics["block_brightness_correlation"].value == 0
    assert record.trivial["block_brightness_correlation"].value > 0
    assert [note.partition(":")[0] for note in record.notes] == list(METRICS)


def test_the_same_seed_gives_the_same_record_in_any_batches() -> None:
    images = make_unit_images(10)
    whole = measure(Ask(), images)
    parts = measure(Ask(), iter(images.split(3)))
    assert replace(parts, seconds=0) == replace(whole, seconds=0)
    assert measure(Ask(), images, seed=1).metrics != whole.metrics


def test_each_group_has_a_key_of_its_own() -> None:
    seen: list[Release] = []
    measure(Constant(), on_release=lambda shown: seen.append(shown.release))
    assert len({release.metadata["key_id"] for release in seen}) == 3
    assert [len(release.data) for release in seen] == [4, 4, 2]


@dataclass(frozen=True)
class Several:
    """Gives the picture among nonsense, or its negative."""

    negative: bool = False
    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        right = release.data
        noise = torch.rand(right.shape, generator=generator)
        return torch.stack([noise, 1 - right, noise * 0, *([] if self.negative else [right])])


def test_an_oracle_chooses_and_the_record_says_so() -> None:
    shown: list[Shown] = []
    plain = open_subject("none")
    record = measure(Several(), protection=plain, on_release=shown.append)
    assert (record.oracle, record.candidates) == (True, 4)
    assert record.metrics["psnr_db"].value == float("inf")
    assert all(torch.equal(one.guesses, one.originals) for one in shown)
    negative = measure(Several(negative=True), protection=plain)
    assert negative.metrics["block_brightness_correlation"].value > 0.999
    assert negative.metrics["psnr_db"].value < 20


def test_chance_gets_as_many_guesses_as_the_attack() -> None:
    plain = open_subject("none")
    images, settings = make_unit_images(12), {"protection": plain, "pictures_per_key": 1}
    one = measure(Look(), images, **settings).trivial["block_brightness_correlation"].value
    many = measure(Several(), images, **settings).trivial["block_brightness_correlation"].value
    assert many > one


def test_what_is_not_granted_does_not_apply() -> None:
    record = measure(Ask(), threat_model="one-release")
    assert record.status == "not-applicable"
    assert "protect" in record.reason
    assert measure(Ask(), auxiliary=None).status == "not-applicable"


@dataclass(frozen=True)
class Liar:
    """Reads what it does not name."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        return knowledge.protect(release.data).data


@dataclass(frozen=True)
class Wrong:
    """Returns what is no guess."""

    make: Callable[[Tensor], Any] = field(default=lambda data: data)
    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        return self.make(torch.full((len(release.data), 3, 32, 32), 0.5))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (Liar(), "grants 'protect'"),
        (Wrong(lambda guess: guess * 3), "in \\[0, 1\\]"),
        (Wrong(lambda guess: guess / 0), "in \\[0, 1\\]"),
        (Wrong(lambda guess: guess * torch.nan), "in \\[0, 1\\]"),
        (Wrong(lambda guess: guess[:1]), "expected guesses"),
        (Wrong(lambda guess: guess[None, None]), "expected guesses"),
        (Wrong(lambda guess: guess.double()), "float32"),
        (Wrong(lambda guess: guess.tolist()), "got list"),
        (Wrong(lambda guess: {}["x"]), "KeyError"),
    ],
    ids=str,
)
def test_an_attacks_own_mistake_costs_its_cell_alone(attack: Attack, reason: str) -> None:
    record = measure(attack, threat_model="many-releases")
    assert record.status == "failed"
    assert record.metrics == {}
    import re

    assert re.search(reason, record.reason), record.reason


@dataclass(frozen=True)
class Learner:
    """Counts how often it learns, in its checkpoint's folder."""

    own_key: bool = False
    log: ClassVar[list[tuple[Path | None, frozenset[str]]]] = []

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pairs"} if self.own_key else {"simulate"})

    def fit(
        self,
        knowledge: Knowledge,
        *,
        generator: Generator,
        checkpoint: Path | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Attack:
        self.log.append((checkpoint, knowledge.granted))
        if on_step:
            on_step(1, 1)
        return Constant()


@dataclass(frozen=True)
class Taught(Constant):
    """What a learner leaves behind: a guess, and how its training went."""

    notes: ClassVar[tuple[str, ...]] = ("seen on a Sunday",)
    history: ClassVar[tuple[Point, ...]] = (
        Point(0, 1.0, 9.0),
        Point(75, 0.5, 12.0),
        Point(100, 0.3, 14.0),
    )


class Teller(Learner):
    def fit(self, *arguments: Any, **options: Any) -> Attack:
        return Taught()


def test_how_a_training_went_is_in_the_record() -> None:
    record = measure(Teller())
    assert [point["psnr_db"] for point in record.history] == [9.0, 12.0, 14.0]
    assert "seen on a Sunday" in record.notes
    assert any("had not flattened after 100 steps" in n and "20.0 %" in n for n in record.notes)
    assert Record.from_json(record.to_json()).history == record.history


def test_a_history_of_another_kind_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Taught, "history", ({"epoch": 1}, {"epoch": 2}))
    record = measure(Teller())
    assert (record.status, record.history) == ("ok", ())


@pytest.mark.parametrize(("own_key", "times"), [(False, 1), (True, 3)])
def test_what_depends_on_the_key_is_learned_for_each(
    own_key: bool, times: int, tmp_path: Path
) -> None:
    Learner.log.clear()
    told: list[str] = []
    record = measure(
        Learner(own_key),
        threat_model="known-plaintext",
        checkpoint=tmp_path / "deep" / "state.pt",
        on_progress=lambda what, done, total: told.append(what),
    )
    assert record.status == "ok", record.reason
    assert len(Learner.log) == times
    assert len({path for path, _ in Learner.log}) == times
    assert all(path is not None and path.parent.is_dir() for path, _ in Learner.log)
    assert told.count("training") == times


def test_pictures_without_a_region_are_not_counted_as_protected() -> None:
    class Half:
        keyed = False

        def protect(
            self, images: Tensor, key: object = None, *, generator: object = None
        ) -> Release:
            regions = [[[0, 0, 16, 16]] if place % 2 else [] for place in range(len(images))]
            return Release(images, {"scheme": "anonymize", "regions": regions})

    record = measure(Look(), protection=Half())
    assert (record.n, record.keys) == (5, 3), record.reason
    assert any("5 pictures without a region" in note for note in record.notes)


def test_of_an_anonymized_picture_the_region_is_judged() -> None:
    fill = open_subject("solid", {"regions": "center:0.25"})
    record = measure(Look(), protection=fill)
    assert record.metrics["block_brightness_correlation"].value < 0.1
    assert record.metrics["psnr_db"].value < 25
    # The fill itself is a trivial guess, so looking at it is not worse than trivial by much.
    assert record.trivial["psnr_db"].value >= record.metrics["psnr_db"].value


def test_a_server_gets_the_adapted_model_and_a_model_that_cannot_be_does_not_apply() -> None:
    @dataclass(frozen=True)
    class Peek:
        needs: ClassVar[frozenset[str]] = frozenset({"adapted_model", "public_model"})

        def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
            with torch.no_grad():
                logits.append(knowledge.adapted_model(release.data))
            return torch.full((len(release.data), 3, 64, 64), 0.5)

    logits: list[Tensor] = []
    model = load_classifier("embedded")
    images = make_unit_images(3, 64)
    settings: dict[str, Any] = {
        "threat_model": "server-public",
        "model": model,
        "auxiliary": None,
        "protection": open_subject("permute", {"block": 8}, preprocessing=model.preprocessing),
    }
    assert measure(Peek(), images, **settings).status == "ok"
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std)
    )
    expected = model.logits((images - mean) / std)
    assert (logits[0] - expected).abs().max() < 1e-4 * expected.abs().max()
    settings["protection"] = open_subject("mix", preprocessing=model.preprocessing)
    record = measure(Peek(), images, **settings)
    assert record.status == "not-applicable"
    assert "train one" in record.reason


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 8, 8),
        torch.full((1, 3, 8, 8), 2.0),
        torch.full((1, 3, 8, 8), torch.nan),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
    ],
    ids=lambda images: f"{images.dtype} {tuple(images.shape)}",
)
def test_what_is_no_picture_fails(images: Tensor) -> None:
    record = measure(Constant(), images, auxiliary=None, threat_model="many-releases")
    assert record.status == "failed"
    assert record.reason.startswith("expected")


def test_no_picture_is_no_measurement() -> None:
    assert measure(Constant(), iter(()), threat_model="many-releases").status == "failed"


def test_memory_does_not_grow_with_the_pictures() -> None:
    def peak(batches: int) -> int:
        def stream() -> Iterator[Tensor]:
            for number in range(batches):
                yield make_unit_images(4, 64, first=number)

        held = [0]

        def note(shown: Shown) -> None:
            held[0] = max(
                held[0], sum(value.numel() for value in _tensors() if value.shape[-2:] == (64, 64))
            )

        record = measure(
            Constant(), stream(), auxiliary=None, threat_model="many-releases", on_release=note
        )
        assert record.n == 4 * batches, record.reason
        return held[0]

    assert peak(24) <= 1.2 * peak(3)


def _tensors() -> Iterator[Tensor]:
    import gc

    return (thing for thing in gc.get_objects() if type(thing) is Tensor)
