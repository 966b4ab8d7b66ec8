"""What happens within one cell: protect, grant, attack, judge, for one key after another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path

from torch import Generator, Tensor, nn

from scotoma.attacks.inversion.curve import Point, has_flattened, late_gain
from scotoma.core.errors import NotApplicableError, ScotomaError, SettingsError
from scotoma.core.keys import Key
from scotoma.core.protocols import Attack, Knowledge, Protection, Release, TrainableAttack
from scotoma.evaluate.groups import Group, drop_untouched
from scotoma.evaluate.judge import (
    Judge,
    best_candidate,
    check_guesses,
    context_of,
    is_stronger,
    private_view,
    strongest,
)
from scotoma.evaluate.records import Record
from scotoma.evaluate.threat_models import ThreatModel, draw_key, grant
from scotoma.evaluate.trivial import Trivial
from scotoma.models.classifier import Classifier
from scotoma.ops.generators import seeded_generator

__all__ = ["Measurement", "Shown"]

_OF_ONE_KEY = frozenset({"pairs", "protect", "adapted_model"})


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


@dataclass
class Measurement:
    """One attack on one protection on its way: group after group, then the record.

    Made by :func:`.loop.evaluate`, whose arguments it holds.
    """

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
        # What a plugin calls its history may be anything.
        found = tuple(getattr(fitted, "history", ()))
        is_ours = all(is_dataclass(p) and hasattr(p, "step") and hasattr(p, "loss") for p in found)
        history: tuple[Point, ...] = found if is_ours else ()
        if len(history) > 1 and history[0].step == 0 and not has_flattened(history):
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
