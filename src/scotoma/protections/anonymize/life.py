"""The search of one picture, written down as if it were alone.

::

    original, naive fill ── look ──> decisions to keep
           │ naive keeps them (with a lead, where unseen models are to agree): done
           v
    [an exemplar of the decided class is put into the region]     (only with exemplars)
           v
    ┌─> pull, step, pull, step ... until every active model has the margin
    │      v
    │   encode, decode ── look ──> as a reader of the file sees it, at three sizes
    │      │ all agree: done
    └──────┘ else: what encoding did becomes a constant, and models that disagree are active

Each ``yield`` hands work to the batches of :mod:`.scheduler`.

Source:
    Shvai, Llanza Carmona, Nakib, Adaptive image anonymization in the context of image
    classification with neural networks, ICCV 2023 Workshops, Algorithm 1.

Differences from the paper:
    The paper moves every pixel by a rounded step until the decision on the float image
    returns. We move coarse cells (see :mod:`.canvas`), aim at a margin, and judge only
    what a reader of the file would see: each candidate is encoded and decoded, read
    through the model's own preprocessing, also at other sizes. What encoding and
    rounding changed is carried as a constant into the next steps (straight-through).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scotoma.models.classifier import Classifier
from scotoma.models.geometry import geometry
from scotoma.protections.anonymize.canvas import Canvas, Footprint
from scotoma.protections.anonymize.exemplars import Exemplars, largest_region, paste
from scotoma.protections.anonymize.scheduler import Life, Request
from scotoma.protections.anonymize.settings import SearchSettings
from scotoma.protections.anonymize.subject import Outcome, Subject

__all__ = ["PictureSearch", "Pull", "Push"]

Pixels = NDArray[np.uint8]
_STRIDES = (0.5, 0.25, 0.125, 2.0, 4.0, 1.0)  # of a search that is stuck, one after the other

_EXEMPLAR_STRIDE = 0.5  # what the exemplar shows transfers better than what is added to it


@dataclass(frozen=True, eq=False)
class Pull:
    """One input whose gradient towards a goal is wanted.

    Args:
        inputs: ``(3, h, w)`` normalized.
        goal: Of the objective.
        margin: Slack to aim at.
        view: Seed of the random view under which to look; None looks straight.
    """

    inputs: Tensor
    goal: Tensor
    margin: float
    view: int | None = None


@dataclass(frozen=True, eq=False)
class Push:
    """Answer to a pull: the slack, and the gradient of the loss on the input."""

    slack: float
    gradient: Tensor


@dataclass(eq=False)
class _State:
    """A canvas, and what each model's input consists of besides it."""

    canvas: Canvas
    footprints: list[Footprint]
    constants: list[Tensor] = field(default_factory=list)
    momentum: list[Tensor] | None = None
    strides: Iterator[float] = field(default_factory=lambda: cycle(_STRIDES))
    stride: float = 1.0

    def inputs(self, model: int) -> Tensor:
        return self.constants[model] + self.canvas.project(self.footprints[model])

    def change_stride(self) -> None:
        """Stuck short of the goal: steps may be too long to settle, or too short to get away."""
        self.stride = next(self.strides)
        self.momentum = None

    def rebase(self, real: Sequence[Tensor]) -> None:
        """Take what encoding and rounding really did as the new constant part."""
        self.constants = [
            seen - self.canvas.project(footprint)
            for seen, footprint in zip(real, self.footprints, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class PictureSearch:
    """What every picture's life has in common.

    Args:
        models: Keep their decisions.
        observers: Are asked but take no part.
        settings: How to search.
        exemplars: Public pictures to start from; None starts from the naive fill.
    """

    models: Sequence[Classifier]
    observers: Sequence[Classifier]
    settings: SearchSettings
    exemplars: Exemplars | None = None

    def live(self, subject: Subject) -> Life[Outcome]:
        """Run one picture; an error ends this picture alone."""
        outcome = Outcome(subject)
        try:
            yield from self._anonymize(subject, outcome)
        except Exception as error:  # one bad picture must not stop the run: the caller reports it
            outcome.status, outcome.error, outcome.pixels = "failed", error, None
        return outcome

    def _anonymize(self, subject: Subject, outcome: Outcome) -> Life[None]:
        everyone = [*self.models, *self.observers]
        published = subject.publish(subject.start)
        real = _read(everyone, published)
        answers = yield _looks(_read(everyone, subject.original)) + _looks(real)
        outcome.looks += len(answers)
        outcome.before, outcome.naive = list(answers[: len(real)]), list(answers[len(real) :])
        outcome.after, outcome.pixels = outcome.naive, subject.start
        searched = outcome.before[: len(self.models)]
        goals = [self.settings.keep.goals(logits[None])[0] for logits in searched]
        slack = min(self._slacks(outcome.naive, goals))
        outcome.status = "kept-naive" if slack > 0 else "not-kept"
        # Where the models searched for keep a decision narrowly, others have lost it.
        enough = self.settings.aim if self.settings.transfer else 0.0
        if (slack > 0 and slack >= enough) or self.settings.max_steps == 0:
            return
        start, stride = subject.start, 1.0
        if self.exemplars is not None:
            exemplar = self.exemplars.best(goals, apart_from=subject.original)
            if exemplar is not None:
                # Its pixels owe nothing to the private picture: the decisions alone chose it.
                start = paste(start, largest_region(subject.regions), exemplar)
                stride = _EXEMPLAR_STRIDE
                real = _read(self.models, subject.publish(start))
        state = self._open(subject, start)
        state.stride = stride
        if not any(foot.reaches for foot in state.footprints):
            return  # the regions lie outside of what the models read: nothing can be changed
        state.rebase(real[: len(self.models)])
        yield from self._search(subject, state, goals, outcome)
        if self.observers and outcome.status == "ok":
            seen = _read(self.observers, subject.publish(outcome.pixels))
            outcome.after = outcome.after + list((yield _looks(seen, first=len(self.models))))

    def _search(
        self, subject: Subject, state: _State, goals: Sequence[Tensor], outcome: Outcome
    ) -> Life[None]:
        """Alternate steps and checks until a candidate passes or the steps are spent."""
        settings = self.settings
        slacks = self._slacks(outcome.naive, goals)
        everyone = set(range(len(self.models)))
        active = everyone if settings.transfer else {m for m in everyone if slacks[m] <= 0}
        margin = settings.aim
        while outcome.steps < settings.max_steps and margin <= 4 * settings.aim + 1:
            is_reached = yield from self._step_until(margin, sorted(active), state, goals, outcome)
            candidate = state.canvas.render()
            published = subject.publish(candidate)
            real = _read(self.models, published)
            after = yield _looks(real)
            outcome.looks += len(after)
            slacks = self._slacks(after, goals)
            if min(slacks) > 0:
                # Good as written; stays the answer even if resized copies never agree.
                outcome.status, outcome.pixels, outcome.after = "ok", candidate, list(after)
                if not is_reached:
                    return  # kept, and nothing more to gain
                if min(slacks) >= settings.margin / 2 and (
                    yield from self._survives_resize(published, goals, outcome)
                ):
                    return
            if not is_reached:
                state.change_stride()
            active |= {m for m in everyone if slacks[m] < settings.margin / 2}
            margin += max(0.25, settings.aim / 4)
            state.rebase(real)

    def _step_until(
        self,
        margin: float,
        active: Sequence[int],
        state: _State,
        goals: Sequence[Tensor],
        outcome: Outcome,
    ) -> Life[bool]:
        """Step until every active model has the margin; False when there is no more progress.

        Models that the last check found to agree are not active and cost nothing.
        """
        transfer = self.settings.transfer
        least = transfer.steps if transfer else 0
        order = active or range(len(self.models))
        best, idle = -math.inf, 0
        while outcome.steps < self.settings.max_steps:
            view = None
            if transfer is not None and outcome.steps < least:
                view = zlib.crc32(f"{outcome.steps} {state.canvas.naive.shape}".encode())
            pushes = yield [
                Request(("pull", m), Pull(state.inputs(m), goals[m], margin, view)) for m in order
            ]
            outcome.pulls += len(pushes)
            short = [
                (m, push)
                for m, push in zip(order, pushes, strict=True)
                if push.slack < margin or view is not None
            ]
            if not short:
                return True
            worst = min(push.slack for push in pushes)
            best, idle = (worst, 0) if worst > best + 0.02 * margin else (best, idle + 1)
            if idle > self.settings.patience and outcome.steps >= least:
                return False
            gradients = [state.canvas.gather(state.footprints[m], p.gradient) for m, p in short]
            total = _with_momentum(state, _balanced(gradients), self.settings.momentum)
            state.canvas.move(_steps(total, self.settings.step * state.stride))
            outcome.steps += 1
        return False

    def _survives_resize(
        self, published: Pixels, goals: Sequence[Tensor], outcome: Outcome
    ) -> Life[bool]:
        picture = Image.fromarray(published)
        for scale in self.settings.views:
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            copy = picture.resize(size, Image.Resampling.BICUBIC)
            logits = yield _looks([model.read(copy) for model in self.models])
            outcome.looks += len(logits)
            if min(self._slacks(logits, goals)) <= 0:
                return False
        return True

    def _open(self, subject: Subject, start: Pixels) -> _State:
        height, width = start.shape[:2]
        canvas = Canvas(
            start,
            subject.regions,
            cell=self.settings.cell * min(height, width) / 256,
            least=self.settings.least_cells,
            smooth=self.settings.smooth,
        )
        footprints = [
            canvas.footprint(geometry(m.preprocessing, width, height), m.preprocessing.std)
            for m in self.models
        ]
        return _State(canvas, footprints)

    def _slacks(self, logits: Sequence[Tensor], goals: Sequence[Tensor]) -> list[float]:
        slack = self.settings.keep.slack
        pairs = zip(logits[: len(goals)], goals, strict=True)  # observers do not count
        return [float(slack(seen[None], goal[None])) for seen, goal in pairs]


def _read(models: Sequence[Classifier], pixels: Pixels) -> list[Tensor]:
    picture = Image.fromarray(pixels)
    return [model.read(picture) for model in models]


def _looks(inputs: Sequence[Tensor], first: int = 0) -> list[Request]:
    return [Request(("look", m), item) for m, item in enumerate(inputs, first)]


def _balanced(gradients: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Sum the models' gradients, each given the same weight."""
    total = [torch.zeros_like(part) for part in gradients[0]]
    for parts in gradients:
        norm = sum(float(part.abs().sum()) for part in parts) + 1e-20
        total = [summed + part / norm for summed, part in zip(total, parts, strict=True)]
    return total


def _with_momentum(state: _State, gradient: list[Tensor], share: float) -> list[Tensor]:
    if state.momentum is not None:
        gradient = [new + share * old for new, old in zip(gradient, state.momentum, strict=True)]
    state.momentum = gradient
    return gradient


def _steps(gradient: Sequence[Tensor], step: float) -> list[Tensor]:
    """Descend, with no cell moving more than ``step``.

    Cells move in proportion to their gradient, so that quiet cells stay quiet; a cell of
    average size moves half a step.
    """
    count = sum(part.numel() for part in gradient)
    square = sum(float(part.square().sum()) for part in gradient)
    rms = (square / count) ** 0.5 + 1e-20
    return [-(part / rms * (step / 2)).clamp(-step, step) for part in gradient]
