"""The loop that trains an attacker's network, the same for every learned attack.

Nothing in it depends on how long it will run: the learning rate stays where the warm-up ends,
and what is judged is an average of the weights whose memory grows with the number of steps. So
a shorter run is the beginning of a longer one, and the history of one long run is the honest
curve over training budgets. All randomness of a step comes from the seed and the step's number:
a run that goes on from a checkpoint ends in the same weights.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from scotoma.attacks import checkpoints
from scotoma.attacks.inversion.curve import Point
from scotoma.core.errors import SettingsError

__all__ = ["Lesson", "Training", "reconstruction_loss", "step_generator", "train"]

_KEEP_EVERY = 200
_FIRST_LOOK = 8
_LOOKS_PER_DOUBLING = 4
_MEMORY = 9  # the average reaches back over about a ninth of all steps
_CLIP_NORM = 1.0
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Training:
    """How an attacker trains.

    Args:
        steps: Batches in all; the budget.
        batch_size: Pictures in each.
        learning_rate: Of AdamW, after the warm-up.
        warmup_steps: Length of the linear rise from 0.
        weight_decay: Of AdamW.
        sobel_weight: Of the edges in the loss; 0 for plain L1.
        device: Of torch, where the network is.
        squared: Learn by squared errors, which is what PSNR counts, instead of L1.

    Raises:
        SettingsError: A value out of range.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 50
    weight_decay: float = 1e-4
    sobel_weight: float = 0.0
    device: str = "cpu"
    squared: bool = False

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.batch_size >= 1 and self.warmup_steps >= 0):
            raise SettingsError(
                "expected at least 1 step of at least 1 picture and no negative warm-up, got "
                f"{self.steps}, {self.batch_size}, {self.warmup_steps}"
            )
        if not (0 < self.learning_rate < math.inf):
            raise SettingsError(f"expected a learning rate above 0, got {self.learning_rate}")
        if not (0 <= self.weight_decay < math.inf and 0 <= self.sobel_weight < math.inf):
            raise SettingsError(
                "expected weight_decay and sobel_weight of at least 0, got "
                f"{self.weight_decay} and {self.sobel_weight}"
            )


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learned.

    Args:
        batch: From a step's generator to inputs and ``(B, 3, H, W)`` originals.
        kept: Inputs and originals that no batch holds, for the curve.
        seed: Of the batches and the first weights.
        recipe: All else that decides the weights, as text.
        weight: From inputs to ``(B, 1, H, W)`` weights of the loss; None weighs all alike.
    """

    batch: Callable[[Generator], tuple[Tensor, Tensor]]
    kept: tuple[Tensor, Tensor]
    seed: int
    recipe: str
    weight: Callable[[Tensor], Tensor] | None = None


def step_generator(seed: int, *labels: object) -> Generator:
    """Return a generator of a stream of its own for each combination of labels."""
    text = "/".join(str(part) for part in (seed, *labels))
    digest = hashlib.sha256(text.encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def reconstruction_loss(
    guesses: Tensor,
    originals: Tensor,
    sobel_weight: float = 0.0,
    weight: Tensor | None = None,
    *,
    squared: bool = False,
) -> Tensor:
    """Return the mean absolute (or squared) error, and the absolute one of edges if asked.

    Args:
        guesses: ``(B, 3, H, W)``.
        originals: The same, in [0, 1].
        sobel_weight: Of ``L1(Sobel(Y), Sobel(Ŷ))``, Y luma.
        weight: ``(B, 1, H, W)`` in [0, 1]; None is 1 everywhere.
        squared: Of the values; edges are always absolute.

    Source:
        Azizian, Bajić, Privacy-Preserving Feature Coding for Machines, PCS 2022 (there 5).
    """
    weight = torch.ones_like(originals[:, :1]) if weight is None else weight
    error = guesses - originals
    total = weight.sum().clamp(min=1)
    size = error.square() if squared else error.abs()
    loss = (size * weight).sum() / (3 * total)
    if sobel_weight > 0:
        luma = (error * error.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
        edges = F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="replicate"), _sobel().to(luma))
        loss = loss + sobel_weight * (edges.abs() * weight).sum() / (2 * total)
    return loss


def train(
    network: nn.Module,
    lesson: Lesson,
    training: Training,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[nn.Module, tuple[Point, ...]]:
    """Train and return the best network by the pictures kept aside, and the history.

    Args:
        network: With its first weights; it is changed.
        lesson: Batches, and what judges.
        training: Budget and rates.
        checkpoint: File of the state, written now and then; a run goes on from it, also one
            with a larger budget than that which wrote it.
        on_step: Called with (steps done, steps in all).

    Returns:
        The network in evaluation mode on the CPU, and points from step 0 to the last.

    Raises:
        SettingsError: The checkpoint is of another run or damaged, or the loss is not finite.
        FileError: The checkpoint cannot be written.
    """
    run, looks = _Run(network, lesson, training), _looks(training.steps)
    if checkpoint is not None and checkpoint.exists():
        run.restore(checkpoint)
    else:
        run.look()
    while run.step < training.steps:
        run.advance()
        looked = run.step in looks
        if looked:
            run.look()
        if checkpoint is not None and (looked or run.step % _KEEP_EVERY == 0):
            run.keep(checkpoint)
        if on_step:
            on_step(run.step, training.steps)
    if checkpoint is not None:
        run.keep(checkpoint)
    # Not in the checkpoint: a longer run would not have looked here.
    if run.history[-1].step < run.step:
        run.look()
    return run.finish()


class _Run:
    """The state of a training."""

    def __init__(self, network: nn.Module, lesson: Lesson, training: Training) -> None:
        self.lesson, self.training = lesson, training
        self.network = network.to(training.device).train()
        self.average = copy.deepcopy(network).eval()
        self.best = {name: value.clone() for name, value in self.average.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=training.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=training.weight_decay,
        )
        self.history: list[Point] = []
        self.step = 0

    def advance(self) -> None:
        training = self.training
        inputs, originals = self.lesson.batch(step_generator(self.lesson.seed, "batch", self.step))
        inputs, originals = inputs.to(training.device), originals.to(training.device)
        rise = min(1.0, (self.step + 1) / max(1, training.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * rise
        weight = self.lesson.weight(inputs) if self.lesson.weight else None
        loss = self._loss(self.network(inputs), originals, weight)
        if not bool(loss.isfinite()):
            raise SettingsError(
                f"expected a finite loss, got {float(loss.detach())} at step {self.step + 1}; "
                "lower the learning rate"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP_NORM)
        self.optimizer.step()
        self.step += 1
        share = _MEMORY / (_MEMORY + self.step)
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for mean, parameter in pairs:
                mean.lerp_(parameter, share)

    @torch.no_grad()
    def look(self) -> None:
        """Judge the averaged weights, and keep them if they are the best so far."""
        inputs, originals = self.lesson.kept
        size, sums = self.training.batch_size, [0.0, 0.0]
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size].to(self.training.device)
            true = originals[start : start + size].to(self.training.device)
            weight = self.lesson.weight(part) if self.lesson.weight else None
            guesses = self.average(part)
            loss = self._loss(guesses, true, weight)
            sums[0] += len(part) * float(loss)
            sums[1] += float(_psnr_db(guesses, true, weight).sum())
        point = Point(self.step, sums[0] / len(inputs), sums[1] / len(inputs))
        if all(point.loss < earlier.loss for earlier in self.history):
            state = self.average.state_dict()
            self.best = {name: value.clone() for name, value in state.items()}
        self.history.append(point)

    def _loss(self, guesses: Tensor, originals: Tensor, weight: Tensor | None) -> Tensor:
        edges, squared = self.training.sobel_weight, self.training.squared
        return reconstruction_loss(guesses, originals, edges, weight, squared=squared)

    def keep(self, path: Path) -> None:
        state = {
            "recipe": self._recipe,
            "step": self.step,
            "history": [asdict(point) for point in self.history],
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
        }
        checkpoints.keep(path, state)

    def restore(self, path: Path) -> None:
        state = checkpoints.read(path, recipe=self._recipe)
        if state["step"] > self.training.steps:
            raise SettingsError(
                f"expected a checkpoint of at most {self.training.steps} steps, got one of "
                f"{state['step']} in {path}; raise steps, or delete it"
            )
        self.step = state["step"]
        self.history = [Point(**fields) for fields in state["history"]]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.best = {name: value.to(self.training.device) for name, value in state["best"].items()}
        self.optimizer.load_state_dict(state["optimizer"])

    def finish(self) -> tuple[nn.Module, tuple[Point, ...]]:
        self.average.load_state_dict(self.best)
        return self.average.cpu().requires_grad_(False), tuple(self.history)

    @property
    def _recipe(self) -> str:
        settings = {**asdict(self.training), "steps": None, "device": None}
        if not settings.pop("squared"):  # as checkpoints from before there was a choice have it
            return f"{settings} {self.lesson.seed} {self.lesson.recipe}"
        settings["squared"] = True
        return f"{settings} {self.lesson.seed} {self.lesson.recipe}"


def _looks(steps: int) -> frozenset[int]:
    """Return the steps after which the network is judged: four to a doubling."""
    count = math.floor(_LOOKS_PER_DOUBLING * math.log2(max(steps, 1))) + 1
    marks = (round(2 ** (mark / _LOOKS_PER_DOUBLING)) for mark in range(count + 1))
    return frozenset(mark for mark in marks if _FIRST_LOOK <= mark <= steps)


def _psnr_db(guesses: Tensor, originals: Tensor, weight: Tensor | None) -> Tensor:
    weight = torch.ones_like(originals[:, :1]) if weight is None else weight
    errors = ((guesses.clamp(0, 1) - originals).square().mean(1, keepdim=True) * weight).flatten(1)
    mean = errors.sum(1) / weight.flatten(1).sum(1).clamp(min=1e-12)
    return -10 * mean.clamp(min=1e-10).log10()


def _sobel() -> Tensor:
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    return torch.stack([across, across.T])[:, None]
