"""The white-box search of one picture: gradients pull its cells towards the decisions.

::

    [an exemplar of the decided class is put into the region]     (only with exemplars)
           v
    ┌─> pull, step, pull, step ... until every active model has the margin
    │      v
    │   encode, decode ── look ──> as a reader of the file sees it, at three sizes
    │      │ all agree: done
    └──────┘ else: what encoding did becomes a constant, and models that disagree are active

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
from torch import Tensor

from scotoma.protections.anonymize.exemplars import largest_region, paste
from scotoma.protections.anonymize.life import PictureLife, looks, read_all
from scotoma.protections.anonymize.scheduler import Life, Request
from scotoma.protections.anonymize.sight import Sight
from scotoma.protections.anonymize.subject import Outcome, Subject

__all__ = ["GradientLife", "Pull", "Push"]

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
class _State(Sight):
    """What the search holds of a picture."""

    momentum: list[Tensor] | None = None
    strides: Iterator[float] = field(default_factory=lambda: cycle(_STRIDES))
    stride: float = 1.0

    def change_stride(self) -> None:
        """Stuck short of the goal: steps may be too long to settle, or too short to get away."""
        self.stride = next(self.strides)
        self.momentum = None


class GradientLife(PictureLife):
    """Lives whose models all have gradients."""

    def _adapt(
        self, subject: Subject, goals: Sequence[Tensor], seen: Sequence[Tensor], outcome: Outcome
    ) -> Life[None]:
        start, stride = subject.start, 1.0
        if self.exemplars is not None:
            exemplar = self.exemplars.best(goals, apart_from=subject.original)
            if exemplar is not None:
                # Its pixels owe nothing to the private picture: the decisions alone chose it.
                start = paste(start, largest_region(subject.regions), exemplar)
                stride = _EXEMPLAR_STRIDE
                seen = read_all(self.models, subject.publish(start))
        state = _State.open(self.models, start, subject.regions, self.settings)
        state.stride = stride
        if not state.reaches:
            return  # the regions lie outside of what the models read: nothing can be changed
        state.rebase(seen)
        yield from self._search(subject, state, goals, outcome)

    def _search(
        self, subject: Subject, state: _State, goals: Sequence[Tensor], outcome: Outcome
    ) -> Life[None]:
        """Alternate steps and checks until a candidate passes or the steps are spent."""
        settings = self.settings
        slacks = self.slacks(outcome.naive, goals)
        everyone = set(range(len(self.models)))
        active = everyone if settings.transfer else {m for m in everyone if slacks[m] <= 0}
        margin = settings.aim
        while outcome.steps < settings.max_steps and margin <= 4 * settings.aim + 1:
            is_reached = yield from self._step_until(margin, sorted(active), state, goals, outcome)
            candidate = state.canvas.render()
            published = subject.publish(candidate)
            real = read_all(self.models, published)
            after = yield looks(real)
            outcome.looks += len(after)
            outcome.queries += 1
            slacks = self.slacks(after, goals)
            if min(slacks) > 0:
                # Good as written; stays the answer even if resized copies never agree.
                outcome.status, outcome.pixels, outcome.after = "ok", candidate, list(after)
                if not is_reached:
                    return  # kept, and nothing more to gain
                if min(slacks) >= settings.margin / 2 and (
                    yield from self.survives_resize(published, goals, outcome)
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
