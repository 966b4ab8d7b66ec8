"""One cell of the table: pictures are protected, an attack guesses, the guesses are judged.

::

    pictures ─► groups of one key ─► protect ─► Release ─► attack.run ─► guesses ─► Judge
                                         └► grant(threat model) ─► Knowledge ─┘

Groups go through one after another, and of each only numbers stay.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn

from scotoma.attacks.inversion.curve import Point, has_flattened, late_gain
from scotoma.core.errors import (
    NotApplicableError,
    ScotomaError,
    SettingsError,
    UnsupportedModelError,
)
from scotoma.core.keys import Key
from scotoma.core.protocols import Attack, Knowledge, Protection, Release, TrainableAttack
from scotoma.evaluate.groups import Group, drop_untouched, regroup
from scotoma.evaluate.judge import (
    Judge,
    SetJudge,
    best_candidate,
    check_guesses,
    context_of,
    is_stronger,
    private_view,
    strongest,
)
from scotoma.evaluate.records import Choice, Paper, Record
from scotoma.evaluate.subjects import describe
from scotoma.evaluate.threat_models import ThreatModel, draw_key, grant, open_threat_model
from scotoma.evaluate.trivial import Trivial
from scotoma.models.classifier import Classifier
from scotoma.ops.generators import seeded_generator

__all__ = ["DEFAULT_METRICS", "PICTURES_PER_KEY", "Shown", "evaluate"]

PICTURES_PER_KEY = 40
"""Pictures in one release where neither threat model nor caller says."""

DEFAULT_METRICS = ("block_brightness_correlation", "psnr_db", "ssim")
"""What is measured where the caller does not say."""

_OF_ONE_KEY = frozenset({"pairs", "protect", "adapted_model"})

Images = Tensor | Iterable[Tensor | tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Shown:
    """One release with its originals and guesses, for whoever draws pictures.

    Args:
        first: Number of its first picture among all, from 0.
        originals: ``(B, 3, H, W)`` in [0, 1].
        release: Made of them.
        guesses: ``(B, 3, H, W)``, the best candidates.
    """

    first: int
    originals: Tensor
    release: Release
    guesses: Tensor


def evaluate(
    protection: Protection,
    attack: Attack | TrainableAttack,
    images: Images,
    *,
    threat_model: str | ThreatModel = "many-releases",
    auxiliary: Tensor | None = None,
    model: Classifier | None = None,
    pictures_per_key: int = PICTURES_PER_KEY,
    metrics: Sequence[str] = DEFAULT_METRICS,
    set_judges: Callable[[], Sequence[SetJudge]] = tuple,
    seed: int = 0,
    data: str = "pictures",
    chosen: tuple[Choice, Choice] | None = None,
    paper: Mapping[str, Paper] | None = None,
    checkpoint: Path | None = None,
    on_progress: Callable[[str, int, int | None], None] | None = None,
    on_release: Callable[[Shown], None] | None = None,
) -> Record:
    """Measure what an attack gets out of a protection under a threat model.

    Args:
        protection: Takes pictures in [0, 1]; see :func:`.subjects.open_subject`.
        attack: One that runs, or one that learns first.
        images: ``(N, 3, H, W)`` float32 in [0, 1], or batches of them, with or without
            ``(B,)`` labels; batches are read as they are needed.
        threat_model: Name, ``NAME:NUMBER``, or the model itself.
        auxiliary: ``(N, 3, H, W)`` pictures of the same kind, none of them attacked.
        model: Reads what the protection makes; granted where the threat model says so.
        pictures_per_key: Pictures in one release, unless the threat model says.
        metrics: Names in the registry of metrics.
        set_judges: Makes judges of all guesses together; called anew for each trivial guess.
        seed: Of keys, fresh randomness, the attack's randomness and the trivial guess.
        data: Name of the pictures, for the record.
        chosen: Name and settings of protection and attack, for the record.
        paper: Published figures, by metric.
        checkpoint: Where an attack that learns keeps its state.
        on_progress: Called with (what, done, in all or None).
        on_release: Called with each release, its originals and the guesses.

    Returns:
        A record; its status says whether the attack applies and did not fail. An attack's own
        errors end up there, so that a table goes on.

    Raises:
        SettingsError: Arguments that make no measurement: no picture, no such metric.
    """
    known = open_threat_model(threat_model)
    size = known.pictures_per_key or pictures_per_key
    if size < 1:
        raise SettingsError(f"expected at least 1 picture per key, got {size}")
    names = chosen or (describe(protection), _describe_attack(attack))
    blank = Record(
        kind="attack",
        protection=names[0],
        attack=names[1],
        threat_model=known.name,
        model="" if model is None else model.spec,
        data=data,
        n=0,
        seed=seed,
        pictures_per_key=size,
        paper=dict(paper or {}),
    )
    begun = time.perf_counter()
    cell = _Cell(
        protection,
        attack,
        known,
        auxiliary,
        model,
        seed,
        checkpoint,
        on_progress,
        on_release,
        judge=Judge(metrics, set_judges()),
        trivial=Trivial(auxiliary, lambda: Judge(metrics, set_judges()), seed),
    )
    try:
        cell.check()
        for group in regroup(images, size):
            cell.attack_group(group)
        record = cell.finish(blank)
    except (NotApplicableError, UnsupportedModelError) as error:
        record = replace(blank, status="not-applicable", reason=str(error))
    except ScotomaError as error:
        record = replace(blank, status="failed", reason=str(error))
    except Exception as error:  # an attack's own bug costs its cell, not the table
        record = replace(blank, status="failed", reason=f"{type(error).__name__}: {error}")
    return replace(record, seconds=round(time.perf_counter() - begun, 2))


@dataclass
class _Cell:
    """One measurement on its way."""

    protection: Protection
    attack: Attack | TrainableAttack
    threat_model: ThreatModel
    auxiliary: Tensor | None
    model: Classifier | None
    seed: int
    checkpoint: Path | None
    on_progress: Callable[[str, int, int | None], None] | None
    on_release: Callable[[Shown], None] | None
    judge: Judge
    trivial: Trivial
    fitted: Attack | None = None
    n: int = 0
    skipped: int = 0
    keys: int = 0
    largest: int = 0
    candidates: int = 1
    notes: list[str] = field(default_factory=list)
    history: tuple[Mapping[str, float], ...] = ()

    def check(self) -> None:
        """Refuse before any work what the threat model does not grant."""
        granted = self.threat_model.grants
        missing = frozenset(self.attack.needs) - granted
        if self.auxiliary is None:
            missing |= self.attack.needs & {"auxiliary"}
        if missing:
            raise NotApplicableError(
                f"the attack needs {', '.join(sorted(missing))}, which the threat model "
                f"{self.threat_model.name!r} does not grant here"
            )

    def attack_group(self, group: Group) -> None:
        """Protect pictures under one key, attack them, and judge."""
        # A copy, so that what an owner's object keeps of a key goes with the group.
        own = copy.deepcopy(self.protection) if self.protection.keyed else self.protection
        key = draw_key(self._generator("key")) if own.keyed else None
        release = own.protect(group.images, key, generator=self._generator("protect"))
        originals, labels, release = drop_untouched(group, release)
        self.skipped += len(group.images) - len(originals)
        if len(originals) == 0:
            return
        with grant(
            self.threat_model,
            own,
            key,
            auxiliary=self.auxiliary,
            adapted_model=None if self.model is None else lambda: self._adapt(own, key),
            public_model=self._network(),
            generator=self._generator("grants"),
        ) as knowledge:
            guesses = self._guess(release, knowledge)
        self._judge(originals, labels, release, check_guesses(guesses, originals))
        self.keys += 1
        self.largest = max(self.largest, len(originals))
        self._say("attacking", self.n, None)

    def finish(self, blank: Record) -> Record:
        """Return the record of all groups."""
        if self.n == 0:
            raise SettingsError("expected pictures that the protection protects, got none")
        found, trivial = self.judge.figures(), strongest(self.trivial.figures())
        for name, figure in found.items():
            if name in trivial and is_stronger(name, trivial[name].value, figure.value):
                self.notes.append(
                    f"{name}: the trivial guess ({trivial[name].value:.3g}) gets more than the "
                    f"attack ({figure.value:.3g})"
                )
        self.notes += self.judge.unmeasured.values()
        if self.skipped:
            self.notes.append(
                f"{self.skipped} pictures without a region are not released and not judged"
            )
        if self.largest < blank.pictures_per_key:
            self.notes.append(
                f"releases hold {self.largest} pictures, not {blank.pictures_per_key}: "
                "there are no more"
            )
        return replace(
            blank,
            n=self.n,
            keys=self.keys,
            metrics=found,
            trivial=trivial,
            oracle=self.candidates > 1,
            candidates=self.candidates,
            notes=tuple(self.notes),
            history=self.history,
        )

    def _guess(self, release: Release, knowledge: Knowledge) -> Tensor:
        generator = self._generator("attack")
        # What is learned without the attacked key serves for all keys.
        if self.fitted is None or self.attack.needs & _OF_ONE_KEY:
            self.fitted = self._fit(knowledge, generator)
        return self.fitted.run(release, knowledge, generator=generator)

    def _fit(self, knowledge: Knowledge, generator: Generator) -> Attack:
        if not isinstance(self.attack, TrainableAttack):
            return self.attack
        path = self.checkpoint
        if path is not None and self.attack.needs & _OF_ONE_KEY:
            path = path.with_stem(f"{path.stem}-{self.keys}")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        fitted = self.attack.fit(
            knowledge,
            generator=generator,
            checkpoint=path,
            on_step=lambda done, total: self._say("training", done, total),
        )
        if self.keys == 0:
            self._note_training(fitted)
        return fitted

    def _note_training(self, fitted: Attack) -> None:
        """Keep what a fitted attack says of its training, where it says anything."""
        self.notes += getattr(fitted, "notes", ())
        history: Sequence[Point] = getattr(fitted, "history", ())
        if len(history) > 1 and not has_flattened(history):
            self.notes.append(
                f"training had not flattened after {history[-1].step} steps: its last quarter "
                f"gained {100 * late_gain(history):.1f} % of the trivial guess's loss"
            )
        self.history = tuple(asdict(point) for point in history)

    def _judge(
        self, originals: Tensor, labels: Tensor, release: Release, candidates: Tensor
    ) -> None:
        context = context_of(release)
        shown = private_view(originals, release)
        place = 0
        if len(candidates) > 1:
            views = (private_view(one, release) for one in candidates)
            place = best_candidate(views, shown, context)
        guesses = private_view(candidates[place], release)
        self.candidates = max(self.candidates, len(candidates))
        self.judge.add(guesses, shown, labels, context)
        self.trivial.add(shown, labels, release, context, candidates=len(candidates))
        if self.on_release is not None:
            self.on_release(Shown(self.n, originals, release, candidates[place]))
        self.n += len(originals)

    def _adapt(self, protection: Protection, key: Key | None) -> nn.Module:
        network = self._network()
        if network is None:
            raise NotApplicableError("expected a model whose weights can be read, got scores only")
        try:
            return protection.adapt(network, key)
        except ScotomaError as error:
            raise NotApplicableError(f"the model does not read these releases: {error}") from error

    def _network(self) -> nn.Module | None:
        network = None if self.model is None else self.model.network
        return copy.deepcopy(network) if isinstance(network, nn.Module) else None

    def _generator(self, purpose: str) -> Generator:
        return seeded_generator(f"evaluate/{self.seed}/{purpose}/{self.keys}".encode())

    def _say(self, what: str, done: int, total: int | None) -> None:
        if self.on_progress is not None:
            self.on_progress(what, done, total)


def _describe_attack(attack: object) -> Choice:
    """Return class and settings of an attack that nobody named."""
    settings: Any = asdict(attack) if is_dataclass(attack) and not isinstance(attack, type) else {}
    return Choice(type(attack).__name__, settings)
