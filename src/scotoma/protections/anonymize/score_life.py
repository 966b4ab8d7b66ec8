"""The black-box search of one picture: its regions' content, by scores alone.

::

    an exemplar, then echoes of the surroundings      the best is where it begins
           v
    what keeps the decisions of surrogates            (only with surrogates)
           v
    ┌─> pieces of the surroundings are laid, one by one, what helps stays
    │      v no more gain
    │   few numbers (low frequencies) are moved, by a model of the scores or an optimizer
    │      v no more gain
    └──────┘ until the margin is reached or the queries are spent

Whatever reaches the margin is encoded, decoded and asked about as a reader of the file sees it,
at three sizes, like in the search by gradients.

Source:
    Black-Box Optimization Based Adaptive Image Anonymization, CEC 2024.

Differences from the paper:
    What it leaves open: the numbers are low-frequency cosines; a search begins at what the
    surroundings suggest (:mod:`.echoes`, :mod:`.patchwork`); its own guide learns from whole
    score vectors (:mod:`.guides`). The paper's kind of optimizer can be named instead.
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
from scotoma.protections.anonymize.surrogates import Surrogates

__all__ = ["ScoreLife"]

Pixels = NDArray[np.uint8]
_TOGETHER = 4  # echoes asked about at once
_GAIN = 0.1  # logits within the patience that make going on worth while
_POLISH = 60  # queries at most, once decisions are kept, to keep them by a margin too
_FIRMER = 2.0  # margins that are reached for where resized copies do not agree yet


@dataclass(frozen=True, eq=False)
class _Seen:
    """A picture as written, and what the models say of it."""

    pixels: Pixels
    inputs: list[Tensor]
    scores: list[Tensor]
    slack: float


@dataclass(eq=False)
class _Quest:
    """One picture under search."""

    subject: Subject
    goals: Sequence[Tensor]
    outcome: Outcome
    best: _Seen
    margin: float
    left: int
    round: int = 0
    is_over: bool = False

    def spend(self, queries: int, models: int) -> None:
        """Count queries, each of which asks every model."""
        self.left -= queries
        self.outcome.queries += queries
        self.outcome.looks += queries * models


@dataclass(frozen=True, eq=False)
class ScoreLife(PictureLife):
    """Lives that ask for scores only.

    Args:
        blackbox: How to search.
        surrogates: Networks with gradients to take candidates from; None has none.
    """

    blackbox: BlackBox = field(default_factory=BlackBox)
    surrogates: Surrogates | None = None

    @property
    def labels_only(self) -> bool:
        """Whether nothing but decisions is looked at."""
        return self.blackbox.labels_only or any(model.labels_only for model in self.models)

    def slacks(self, logits: Sequence[Tensor], goals: Sequence[Tensor]) -> list[float]:
        """As for every life; only their signs where nothing but decisions is looked at."""
        slacks = super().slacks(logits, goals)
        if not self.labels_only:
            return slacks
        return [self.blackbox.margin if slack > 0 else -self.blackbox.margin for slack in slacks]

    def _adapt(
        self, subject: Subject, goals: Sequence[Tensor], seen: Sequence[Tensor], outcome: Outcome
    ) -> Life[None]:
        if not Sight.open(self.models, subject.start, subject.regions, self.settings).reaches:
            return  # the regions lie outside of what the models read: nothing can be changed
        naive = list(outcome.naive[: len(self.models)])
        best = _Seen(subject.start, list(seen), naive, min(self.slacks(naive, goals)))
        left = self.blackbox.queries - outcome.queries
        quest = _Quest(subject, goals, outcome, best, self.blackbox.margin, left)
        yield from self._listen(quest)
        yield from self._consult(quest)
        named = self.blackbox.optimizer not in ("linear", "patchwork")
        while quest.left > 0 and not quest.is_over:
            before = quest.left
            if self.labels_only or self.blackbox.optimizer == "patchwork":
                yield from self._piece_together(quest)
            if not self.labels_only:
                yield from self._search(quest, math.inf if named else self.blackbox.patience)
            quest.round += 1
            if quest.left == before:
                return  # an optimizer that ends at once would do so again

    def _listen(self, quest: _Quest) -> Life[None]:
        """Ask about an exemplar and about echoes, a few at once."""
        pictures = self._candidates(quest)
        while quest.left > 0 and not quest.is_over:
            group = list(islice(pictures, min(_TOGETHER, quest.left)))
            if not group:
                return
            yield from self._offer(quest, group)

    def _consult(self, quest: _Quest) -> Life[None]:
        """Ask about what keeps the surrogates' decisions."""
        if self.surrogates is None or quest.left <= 0 or quest.is_over:
            return
        pixels = yield from self.surrogates.candidate(quest.subject)
        if pixels is not None:
            yield from self._offer(quest, [pixels])

    def _candidates(self, quest: _Quest) -> Iterator[Pixels]:
        """Yield pictures to begin at; they owe nothing to the private pixels."""
        subject, shown = quest.subject, list[Pixels]()
        if self.exemplars is not None:
            exemplar = self.exemplars.best(quest.goals, apart_from=subject.original)
            if exemplar is not None:
                shown = [paste(subject.start, largest_region(subject.regions), exemplar)]
        return chain(shown, echoes(subject.start, subject.regions))

    def _offer(self, quest: _Quest, pictures: Sequence[Pixels]) -> Life[_Seen]:
        """Ask about pictures as written, and take up the best of them, which is returned."""
        read = [read_all(self.models, quest.subject.publish(pixels)) for pixels in pictures]
        answers = yield [request for inputs in read for request in looks(inputs)]
        quest.spend(len(pictures), len(self.models))
        found: list[_Seen] = []
        for pixels, inputs in zip(pictures, read, strict=True):
            first = len(found) * len(self.models)
            scores = list(answers[first : first + len(self.models)])
            found.append(_Seen(pixels, inputs, scores, min(self.slacks(scores, quest.goals))))
        best = max(found, key=lambda seen: seen.slack)
        if best.slack >= quest.best.slack:  # equals too: by labels alone all that fail are equal
            quest.best = best
            yield from self._judge(quest)
        return best

    def _judge(self, quest: _Quest) -> Life[None]:
        """End the quest where its best keeps the decisions, by a margin and at other sizes."""
        best, outcome = quest.best, quest.outcome
        if best.slack <= 0:
            return
        if outcome.status != "ok":
            quest.left = min(quest.left, _POLISH)
        outcome.status, outcome.pixels, outcome.after = "ok", best.pixels, list(best.scores)
        if best.slack < quest.margin:
            return
        if quest.margin >= _FIRMER * self.blackbox.margin or quest.left < len(self.settings.views):
            quest.is_over = True
            return
        before = outcome.queries
        published = quest.subject.publish(best.pixels)
        quest.is_over = yield from self.survives_resize(published, quest.goals, outcome)
        quest.left -= outcome.queries - before
        quest.margin = _FIRMER * self.blackbox.margin

    def _piece_together(self, quest: _Quest) -> Life[None]:
        """Lay pieces of the surroundings over the regions, as long as that helps."""
        subject, total = quest.subject, self.blackbox.queries
        work = Patchwork(subject.start, subject.regions, seed=self.blackbox.seed + quest.round)
        idle, patience = 0, math.inf if self.labels_only else self.blackbox.patience
        while quest.left > 0 and idle < patience and not quest.is_over:
            count = min(self.blackbox.pieces, quest.left)
            before = quest.best.slack
            variants = work.variants(quest.best.pixels, count, 1 - quest.left / total)
            found = yield from self._offer(quest, variants)
            idle += count
            if found.slack > before:
                work.praise(next(n for n, one in enumerate(variants) if one is found.pixels))
                idle = 0

    def _search(self, quest: _Quest, patience: float) -> Life[None]:
        """Move few numbers of the content, as long as that helps."""
        start = quest.best
        sight = Sight.open(self.models, start.pixels, quest.subject.regions, self.settings)
        sight.rebase(start.inputs)
        content = Content(sight.canvas, self.blackbox.coefficients, self.blackbox.basis)
        guide = self._open_guide(content, quest)
        best, shown, idle, mark = start.slack, list[Tensor](), 0, start.slack + _GAIN
        while quest.left > 1 and idle < patience and not quest.is_over:
            points = guide.ask()[: quest.left - 1]  # the last query is for the best, as written
            if not len(points):
                break
            cells = content.cells(torch.tensor(points, dtype=torch.float32))
            scores = yield from self._ask(quest, sight, cells)
            slacks = self._worst(scores, quest.goals)
            guide.tell(scores, slacks)
            place = int(slacks.argmax())
            idle += len(points)
            if slacks[place] > best:
                best, shown = float(slacks[place]), [part[place] for part in cells]
            if best >= mark:
                idle, mark = 0, best + _GAIN
            if shown and best >= quest.margin:
                sight.canvas.show(shown)
                written = yield from self._offer(quest, [sight.canvas.render()])
                sight.rebase(written.inputs)
                guide.correct(points[place], written.scores, written.slack)
                best, shown = written.slack, []
        if shown and not quest.is_over and quest.left > 0:
            sight.canvas.show(shown)
            yield from self._offer(quest, [sight.canvas.render()])

    def _ask(self, quest: _Quest, sight: Sight, cells: Sequence[Tensor]) -> Life[list[Tensor]]:
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
        quest.spend(count, len(self.models))
        return [
            torch.stack(list(answers[number * count : (number + 1) * count]))
            for number in range(len(inputs))
        ]

    def _worst(self, scores: Sequence[Tensor], goals: Sequence[Tensor]) -> NDArray[np.float64]:
        """Return how far points, ``(n,)``, are from losing the decision that they lose first."""
        slacks = [
            self.settings.keep.slack(part, goal.expand(len(part), *goal.shape))
            for part, goal in zip(scores, goals, strict=True)
        ]
        return torch.stack(slacks).amin(0).double().numpy()

    def _open_guide(self, content: Content, quest: _Quest) -> Guide:
        settings, keep, goals = self.blackbox, self.settings.keep, quest.goals
        seed = settings.seed + quest.round
        if settings.optimizer not in ("linear", "patchwork"):
            reach = settings.reach * content.weights
            return OptimizerGuide(
                settings.optimizer, reach, budget=quest.left, batch=settings.batch, seed=seed
            )

        def loss(model: int, scores: Tensor) -> Tensor:
            goal = goals[model].expand(len(scores), *goals[model].shape)
            return keep.loss(scores, goal, torch.full((len(scores),), settings.margin))

        best = quest.best
        return LinearGuide(
            content.weights, best.scores, best.slack, loss, batch=settings.batch, seed=seed
        )


def _within_range(inputs: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return normalized inputs ``(n, 3, h, w)`` as far as pixels can follow."""
    mean, std = (
        torch.tensor(part).view(3, 1, 1) for part in (preprocessing.mean, preprocessing.std)
    )
    return torch.minimum(torch.maximum(inputs, -mean / std), (1 - mean) / std)
