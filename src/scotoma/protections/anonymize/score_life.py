"""The black-box search of one picture: its region's content in few numbers, by scores alone.

::

    an exemplar, then echoes of the surroundings ── ask ──> one keeps the decisions: judge it
           v the best of them
    ┌─> a few points ── ask ──> scores
    │      v reaches the margin
    │   encode, decode ── ask ──> as a reader of the file sees it, at three sizes
    │      │ all agree: done
    └──────┘ else: what encoding did becomes a constant, and the margin grows

Source:
    Black-Box Optimization Based Adaptive Image Anonymization, CEC 2024.

Differences from the paper:
    What it leaves open: the numbers are low-frequency cosines; a search begins at what the
    surroundings suggest (:mod:`.echoes`); its own guide learns from whole score vectors
    (:mod:`.guides`), and the paper's kind of optimizer can be named instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.anonymize.content import Content
from scotoma.protections.anonymize.echoes import echoes
from scotoma.protections.anonymize.exemplars import largest_region, paste
from scotoma.protections.anonymize.guides import Guide, LinearGuide, OptimizerGuide
from scotoma.protections.anonymize.life import PictureLife, looks, read_all
from scotoma.protections.anonymize.patchwork import Patchwork
from scotoma.protections.anonymize.scheduler import Life, Request
from scotoma.protections.anonymize.settings import BlackBox
from scotoma.protections.anonymize.sight import Sight
from scotoma.protections.anonymize.subject import Outcome, Subject

__all__ = ["ScoreLife"]

Pixels = NDArray[np.uint8]
_TOGETHER = 4  # echoes asked about at once
_VIEWS = 2  # margins beyond which a kept decision is not made to survive resizing any more


@dataclass(frozen=True, eq=False)
class _Start:
    """A picture that a search may begin at, and what the models say of it."""

    pixels: Pixels
    seen: list[Tensor]
    scores: list[Tensor]
    slack: float


@dataclass(frozen=True, eq=False)
class ScoreLife(PictureLife):
    """Lives that ask for scores only.

    Args:
        blackbox: How to search.
    """

    blackbox: BlackBox = field(default_factory=BlackBox)

    def _adapt(
        self, subject: Subject, goals: Sequence[Tensor], seen: Sequence[Tensor], outcome: Outcome
    ) -> Life[None]:
        naive = list(outcome.naive[: len(self.models)])
        start = _Start(subject.start, list(seen), naive, min(self.slacks(naive, goals)))
        if not Sight.open(self.models, subject.start, subject.regions, self.settings).reaches:
            return  # the regions lie outside of what the models read: nothing can be changed
        candidates = self._candidates(subject, goals)
        while room := min(_TOGETHER, self._left(outcome)):
            group = yield from self._try(subject, islice(candidates, room), goals, outcome)
            if not group:
                break
            start = max(start, *group, key=lambda one: one.slack)
            if start.slack > 0 and (yield from self._accept(subject, start, goals, outcome)):
                return
        if self.blackbox.optimizer == "patchwork" or self._labels_only:
            start = yield from self._piece_together(subject, start, goals, outcome)
        if outcome.status != "ok" and not self._labels_only:
            yield from self._search(subject, start, goals, outcome)

    @property
    def _labels_only(self) -> bool:
        return self.blackbox.labels_only or any(model.labels_only for model in self.models)

    def slacks(self, logits: Sequence[Tensor], goals: Sequence[Tensor]) -> list[float]:
        """As for every life; only their signs where nothing but decisions is looked at."""
        slacks = super().slacks(logits, goals)
        if not self._labels_only:
            return slacks
        return [math.copysign(self.blackbox.margin, slack or -1.0) for slack in slacks]

    def _left(self, outcome: Outcome) -> int:
        return max(0, self.blackbox.queries - outcome.queries)

    def _candidates(self, subject: Subject, goals: Sequence[Tensor]) -> Iterator[Pixels]:
        """Yield whole pictures to begin at; they owe nothing to the private pixels."""
        shown: list[Pixels] = []
        if self.exemplars is not None:
            exemplar = self.exemplars.best(goals, apart_from=subject.original)
            if exemplar is not None:
                shown = [paste(subject.start, largest_region(subject.regions), exemplar)]
        return chain(shown, echoes(subject.start, subject.regions))

    def _try(
        self,
        subject: Subject,
        pictures: Iterator[Pixels],
        goals: Sequence[Tensor],
        outcome: Outcome,
    ) -> Life[list[_Start]]:
        """Ask about whole pictures as written."""
        shown = list(pictures)
        read = [read_all(self.models, subject.publish(pixels)) for pixels in shown]
        answers = yield [request for inputs in read for request in looks(inputs)]
        outcome.looks += len(answers)
        outcome.queries += len(shown)
        count = len(self.models)
        found = []
        for place, (pixels, inputs) in enumerate(zip(shown, read, strict=True)):
            scores = list(answers[place * count : (place + 1) * count])
            found.append(_Start(pixels, inputs, scores, min(self.slacks(scores, goals))))
        return found

    def _accept(
        self, subject: Subject, found: _Start, goals: Sequence[Tensor], outcome: Outcome
    ) -> Life[bool]:
        """Take a picture that keeps the decisions as written; true when it will do."""
        outcome.status, outcome.pixels = "ok", found.pixels
        outcome.after = list(found.scores)
        if found.slack < self.blackbox.margin / 2:
            return False
        if self._left(outcome) < len(self.settings.views):
            return True
        published = subject.publish(found.pixels)
        return (yield from self.survives_resize(published, goals, outcome))

    def _piece_together(
        self, subject: Subject, best: _Start, goals: Sequence[Tensor], outcome: Outcome
    ) -> Life[_Start]:
        """Lay pieces of the surroundings over the regions; return the best that came of it."""
        work = Patchwork(subject.start, subject.regions, seed=self.blackbox.seed)
        first, idle = outcome.queries, 0
        patience = math.inf if self._labels_only else self.blackbox.patience
        while (room := min(self.blackbox.pieces, self._left(outcome))) and idle < patience:
            progress = (outcome.queries - first) / (self.blackbox.queries - first)
            variants = work.variants(best.pixels, room, progress)
            group = yield from self._try(subject, iter(variants), goals, outcome)
            found = max(group, key=lambda one: one.slack)
            idle = 0 if found.slack > best.slack else idle + room
            if found.slack >= best.slack:  # equals too: by labels alone, all that fail are equal
                best = found
            if found.slack >= self.blackbox.margin and (
                yield from self._accept(subject, found, goals, outcome)
            ):
                break
        if best.slack > 0 and outcome.status != "ok":
            yield from self._accept(subject, best, goals, outcome)
        return best

    def _search(
        self, subject: Subject, start: _Start, goals: Sequence[Tensor], outcome: Outcome
    ) -> Life[None]:
        """Ask about points until one is accepted, or the queries are spent."""
        sight = Sight.open(self.models, start.pixels, subject.regions, self.settings)
        sight.rebase(start.seen)
        content = Content(sight.canvas, self.blackbox.coefficients, self.blackbox.basis)
        guide = self._open_guide(content, start, goals, self._left(outcome))
        margin, best, shown = self.blackbox.margin, start.slack, None
        while room := self._left(outcome) - 1:  # the last query judges the best that was found
            points = guide.ask()[:room]
            if not len(points) or room < 0:
                break
            cells = content.cells(torch.tensor(points, dtype=torch.float32))
            scores = yield from self._ask(sight, cells, outcome)
            slacks = np.array(
                [self.slacks([s[n] for s in scores], goals) for n in range(len(points))]
            )
            worst = slacks.min(1)
            guide.tell(scores, worst)
            place = int(worst.argmax())
            if worst[place] > best:
                best, shown = float(worst[place]), [part[place] for part in cells]
            if best >= margin and shown is not None:
                found = yield from self._show(subject, sight, shown, goals, outcome)
                if found.slack > 0 and (yield from self._accept(subject, found, goals, outcome)):
                    return
                sight.rebase(found.seen)
                guide.correct(points[place], found.scores, found.slack)
                best = found.slack
                margin *= 2
                if outcome.status == "ok" and margin > _VIEWS * self.blackbox.margin:
                    return
        if outcome.status != "ok" and shown is not None and best > 0:
            found = yield from self._show(subject, sight, shown, goals, outcome)
            if found.slack > 0:
                yield from self._accept(subject, found, goals, outcome)

    def _ask(self, sight: Sight, cells: Sequence[Tensor], outcome: Outcome) -> Life[list[Tensor]]:
        """Return what each model says of points, one ``(n, K)`` each."""
        inputs = [
            # No pixel gets darker than black, whatever a linear map says.
            _within_range(sight.inputs(number, cells), model.preprocessing)
            for number, model in enumerate(self.models)
        ]
        answers = yield [
            Request(("look", number), item) for number, part in enumerate(inputs) for item in part
        ]
        count = len(inputs[0])
        outcome.looks += len(answers)
        outcome.queries += count
        return [
            torch.stack(list(answers[number * count : (number + 1) * count]))
            for number in range(len(inputs))
        ]

    def _worst(self, scores: Sequence[Tensor], goals: Sequence[Tensor]) -> NDArray[np.float64]:
        """Return how far points ``(n,)`` are from losing the first decision that they lose."""
        slacks = [
            self.settings.keep.slack(part, goal.expand(len(part), *goal.shape))
            for part, goal in zip(scores, goals, strict=True)
        ]
        return torch.stack(slacks).amin(0).double().numpy()

    def _show(
        self,
        subject: Subject,
        sight: Sight,
        cells: Sequence[Tensor],
        goals: Sequence[Tensor],
        outcome: Outcome,
    ) -> Life[_Start]:
        """Put a point on the canvas and ask about the picture as written."""
        sight.canvas.show(cells)
        (found,) = yield from self._try(subject, iter([sight.canvas.render()]), goals, outcome)
        return found

    def _open_guide(
        self, content: Content, start: _Start, goals: Sequence[Tensor], budget: int
    ) -> Guide:
        settings = self.blackbox
        if settings.optimizer not in ("linear", "patchwork"):
            return OptimizerGuide(
                settings.optimizer,
                settings.reach * content.weights,
                budget=max(1, budget),
                batch=settings.batch,
                seed=settings.seed,
            )

        def loss(model: int, scores: Tensor) -> Tensor:
            goal = goals[model].expand(len(scores), *goals[model].shape)
            margin = torch.full((len(scores),), settings.margin)
            return self.settings.keep.loss(scores, goal, margin)

        return LinearGuide(
            content.weights,
            start.scores,
            start.slack,
            loss,
            batch=settings.batch,
            seed=settings.seed,
        )


def _within_range(inputs: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return normalized inputs ``(n, 3, h, w)`` as far as pixels can follow."""
    mean, std = (
        torch.tensor(part).view(3, 1, 1) for part in (preprocessing.mean, preprocessing.std)
    )
    return torch.minimum(torch.maximum(inputs, -mean / std), (1 - mean) / std)
