"""The white-box search: gradient steps inside the region towards each model's own decision.

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

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scotoma.core.errors import ModelError, SettingsError
from scotoma.images.regions import Region
from scotoma.models.classifier import Classifier
from scotoma.models.geometry import geometry
from scotoma.protections.anonymize.canvas import Canvas, Footprint
from scotoma.protections.anonymize.scheduler import Life, Request, run_together
from scotoma.protections.anonymize.settings import SearchSettings

__all__ = ["Outcome", "Search", "Subject"]

Pixels = NDArray[np.uint8]


class Subject(Protocol):
    """A picture as the search sees it."""

    @property
    def original(self) -> Pixels:
        """``(H, W, 3)`` uint8; read once, for the decisions to keep."""
        ...

    @property
    def start(self) -> Pixels:
        """The picture after the naive fill."""
        ...

    @property
    def regions(self) -> Sequence[Region]:
        """Where pixels may change; not empty."""
        ...

    def publish(self, pixels: Pixels) -> Pixels:
        """Return the pixels that a reader of the written file would see."""
        ...


@dataclass(eq=False)
class Outcome:
    """What became of one subject.

    Args:
        subject: The subject itself.
        status: ``kept-naive``, ``ok``, ``not-kept`` or ``failed``.
        pixels: What is to be written, before encoding; None after a failure.
        before: Logits on the original, one ``(K,)`` per model, then per observer.
        naive: The same on the published naive fill.
        after: The same on the published result.
        steps: Gradient steps taken.
        passes: Work of all models in forward passes; a gradient counts as three.
        error: What ended a failed picture.
    """

    subject: Any
    status: str = "failed"
    pixels: Pixels | None = None
    before: list[Tensor] = field(default_factory=list)
    naive: list[Tensor] = field(default_factory=list)
    after: list[Tensor] = field(default_factory=list)
    steps: int = 0
    passes: int = 0
    error: Exception | None = None


@dataclass(frozen=True, eq=False)
class _Pull:
    """One input whose gradient towards a goal is wanted."""

    inputs: Tensor
    goal: Tensor
    margin: float


@dataclass(frozen=True, eq=False)
class _Push:
    """Answer to a pull: distance from the goal, and the gradient on the input."""

    slack: float
    gradient: Tensor


@dataclass(eq=False)
class _State:
    """The search of one picture: its canvas and what each model's input consists of."""

    canvas: Canvas
    footprints: list[Footprint]
    constants: list[Tensor] = field(default_factory=list)

    def inputs(self, model: int) -> Tensor:
        return self.constants[model] + self.canvas.project(self.footprints[model])

    def rebase(self, real: Sequence[Tensor]) -> None:
        """Take what encoding and rounding really did as the new constant part."""
        self.constants = [
            seen - self.canvas.project(footprint)
            for seen, footprint in zip(real, self.footprints, strict=True)
        ]


class Search:
    """Searches many pictures against one ensemble of classifiers.

    Args:
        models: All differentiable; each keeps its own decision.
        settings: How to search; ``max_steps=0`` judges the naive fill and stops there.
        observers: Classifiers that are asked but take no part.
        gradient_networks: Faster equivalents of the models' networks for the gradient
            passes (for example with folded batch norm); the models themselves judge.

    Raises:
        ModelError: A model without gradients.
    """

    def __init__(
        self,
        models: Sequence[Classifier],
        settings: SearchSettings | None = None,
        *,
        observers: Sequence[Classifier] = (),
        gradient_networks: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        if not models:
            raise SettingsError("expected at least one model whose decisions are kept, got none")
        for model in models:
            if not model.differentiable and (settings is None or settings.max_steps):
                raise ModelError(
                    f"{model.spec} gives scores only, and the gradient search needs gradients; "
                    "name a torch model instead"
                )
        self.models = list(models)
        self.observers = list(observers)
        self.settings = settings or SearchSettings()
        faster = gradient_networks or {}
        self._gradient_networks = [faster.get(m.spec, m.network) for m in self.models]

    def run(self, subjects: Iterable[Subject]) -> Iterator[Outcome]:
        """Yield each subject's outcome as it is done, not in the order of the input."""
        settings = self.settings
        lives = ((self._life(subject), subject.start.size // 3) for subject in subjects)
        return run_together(
            lives,
            self._execute,
            batch_size=settings.batch_size,
            pool_size=settings.batch_size * (2 * len(self.models) + 1),
            pool_weight=settings.pool_pixels,
        )

    # -- the life of one picture --------------------------------------------------------

    def _life(self, subject: Subject) -> Life[Outcome]:
        """Run one picture; an error ends this picture alone."""
        outcome = Outcome(subject)
        try:
            yield from self._anonymize(subject, outcome)
        except Exception as error:  # one bad picture must not stop the run: the caller reports it
            outcome.status, outcome.error = "failed", error
        return outcome

    def _anonymize(self, subject: Subject, outcome: Outcome) -> Life[None]:
        everyone = [*self.models, *self.observers]
        published = subject.publish(subject.start)
        real = _read(everyone, published)
        looks = _looks(_read(everyone, subject.original)) + _looks(real)
        answers = yield looks
        outcome.passes += len(answers)
        outcome.before, outcome.naive = answers[: len(real)], answers[len(real) :]
        outcome.after, outcome.pixels = outcome.naive, subject.start
        goals = [self.settings.keep.goals(logits[None])[0] for logits in outcome.before]
        outcome.status = "kept-naive"
        if all(slack > 0 for slack in self._slacks(outcome.naive, goals)):
            return
        outcome.status = "not-kept"
        if self.settings.max_steps == 0:
            return
        state = self._open(subject)
        state.rebase(real)
        yield from self._search(subject, state, goals, outcome)
        if self.observers and outcome.status == "ok":
            seen = _read(self.observers, subject.publish(outcome.pixels))
            outcome.after = outcome.after + (yield _looks(seen, first=len(self.models)))

    def _search(
        self, subject: Subject, state: _State, goals: Sequence[Tensor], outcome: Outcome
    ) -> Life[None]:
        """Alternate steps and checks until a candidate passes or the steps are spent."""
        naive_slacks = self._slacks(outcome.naive, goals)
        active = {m for m, slack in enumerate(naive_slacks) if slack <= 0}
        margin = self.settings.margin
        highest = 4 * self.settings.margin + 1
        while outcome.steps < self.settings.max_steps and margin <= highest:
            yield from self._step_until(margin, active, state, goals, outcome)
            candidate = state.canvas.render()
            published = subject.publish(candidate)
            real = _read(self.models, published)
            after = yield _looks(real)
            outcome.passes += len(after)
            slacks = self._slacks(after, goals)
            if min(slacks) > 0:
                # Good as written; kept as the answer even if resized copies never agree.
                outcome.status, outcome.pixels, outcome.after = "ok", candidate, list(after)
                if min(slacks) >= self.settings.margin / 2 and (
                    yield from self._survives_resize(published, goals, outcome)
                ):
                    return
            active |= {m for m, slack in enumerate(slacks) if slack < self.settings.margin / 2}
            margin += max(0.25, self.settings.margin / 4)
            state.rebase(real)

    def _step_until(
        self,
        margin: float,
        active: Collection[int],
        state: _State,
        goals: Sequence[Tensor],
        outcome: Outcome,
    ) -> Life[None]:
        """Step until every active model agrees with the margin.

        Models that the last check found to agree are not active and cost nothing.
        """
        order = sorted(active) or range(len(self.models))
        while outcome.steps < self.settings.max_steps:
            pushes = yield [
                Request(("pull", m), _Pull(state.inputs(m), goals[m], margin)) for m in order
            ]
            outcome.passes += 3 * len(pushes)
            short = [
                (m, push) for m, push in zip(order, pushes, strict=True) if push.slack < margin
            ]
            if not short:
                return
            gradients = [state.canvas.gather(state.footprints[m], p.gradient) for m, p in short]
            state.canvas.move(_steps(gradients, self.settings.step))
            outcome.steps += 1

    def _survives_resize(
        self, published: Pixels, goals: Sequence[Tensor], outcome: Outcome
    ) -> Life[bool]:
        picture = Image.fromarray(published)
        for scale in self.settings.views:
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            copy = picture.resize(size, Image.Resampling.BICUBIC)
            logits = yield _looks([model.read(copy) for model in self.models])
            outcome.passes += len(logits)
            if min(self._slacks(logits, goals)) <= 0:
                return False
        return True

    def _open(self, subject: Subject) -> _State:
        height, width = subject.start.shape[:2]
        canvas = Canvas(
            subject.start,
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
        pairs = zip(logits[: len(self.models)], goals, strict=False)  # observers do not count
        return [float(slack(seen[None], goal[None])) for seen, goal in pairs]

    # -- batches ------------------------------------------------------------------------

    def _execute(self, queue: Hashable, items: Sequence[Any]) -> Sequence[Any]:
        kind, model = queue  # type: ignore[misc]
        if kind == "look":
            return list([*self.models, *self.observers][model].logits(_stack(items)))
        return self._pull(model, items)

    def _pull(self, model: int, pulls: Sequence[_Pull]) -> list[_Push]:
        keep = self.settings.keep
        inputs = _stack([pull.inputs for pull in pulls]).requires_grad_()
        goals = torch.stack([pull.goal for pull in pulls])
        logits = self._gradient_networks[model](inputs)
        loss = keep.loss(logits, goals, torch.tensor([pull.margin for pull in pulls]))
        (gradients,) = torch.autograd.grad(loss.sum(), inputs)
        slacks = keep.slack(logits.detach(), goals)
        return [_Push(float(s), g) for s, g in zip(slacks, gradients, strict=True)]


def _read(models: Sequence[Classifier], pixels: Pixels) -> list[Tensor]:
    picture = Image.fromarray(pixels)
    return [model.read(picture) for model in models]


def _looks(inputs: Sequence[Tensor], first: int = 0) -> list[Request]:
    return [Request(("look", m), item) for m, item in enumerate(inputs, first)]


def _stack(items: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(items)).contiguous(memory_format=torch.channels_last)


def _steps(gradients: Sequence[Sequence[Tensor]], step: float) -> list[Tensor]:
    """Descend the models' gradients, each given the same weight, cells limited to ``step``.

    Cells move in proportion to their gradient, so that quiet cells stay quiet; a cell of
    average size moves half a step.
    """
    total = [torch.zeros_like(part) for part in gradients[0]]
    for parts in gradients:
        norm = float(sum(part.abs().sum() for part in parts)) + 1e-20
        total = [sum_ + part / norm for sum_, part in zip(total, parts, strict=True)]
    count = sum(part.numel() for part in total)
    rms = (float(sum(part.square().sum() for part in total)) / count) ** 0.5 + 1e-20
    return [-(part / rms * (step / 2)).clamp(-step, step) for part in total]
