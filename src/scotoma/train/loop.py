"""The loop over epochs that every model trained with Fabric goes through.

All randomness of an epoch comes from the seed and the epoch's number, so a checkpoint
holds weights and optimizer only, and a run that goes on from it ends in the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scotoma.core.errors import SettingsError
from scotoma.train import checkpoints
from scotoma.train.hardware import seeded, stream_seed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Epoch", "Schedule", "Task", "adamw", "fit"]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the pictures came to.

    Args:
        number: From 1.
        loss: Mean over the steps.
        score: On the pictures kept for it: accuracy, or average precision.
        seconds: Time of training and scoring.
    """

    number: int
    loss: float
    score: float | None
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine.

    Args:
        epochs: Passes over the pictures.
        warmup_epochs: Length of the rise from 0.
        final_fraction: Where the cosine ends, as a fraction of the peak.
    """

    epochs: int
    warmup_epochs: float = 0.0
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not (self.epochs >= 1 and 0 <= self.warmup_epochs < self.epochs):
            raise SettingsError(
                "expected 1 or more epochs and a warm-up shorter than they are, "
                f"got {self.epochs} and {self.warmup_epochs}"
            )
        if not 0 <= self.final_fraction <= 1:
            raise SettingsError(f"expected final_fraction in [0, 1], got {self.final_fraction}")

    def factor(self, epoch: float) -> float:
        """Return the learning rate after ``epoch`` epochs, as a fraction of the peak."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return self.final_fraction + (1 - self.final_fraction) * cosine


@dataclass(frozen=True)
class Task:
    """What differs between the models that are trained.

    Args:
        batches: Training batches of an epoch, numbered from 0, for this process.
        steps: How many they are.
        loss: Of the network on a batch.
        score: Of the network after an epoch, on pictures kept for it.
        recipe: All that decides the weights besides the pictures, as text.
        pictures: What tells these pictures from others, as text.
        seed: Of drop path.
        clip_norm: Largest norm of the gradient; 0 for none.
    """

    batches: Callable[[int], Iterable[Any]]
    steps: int
    loss: Callable[[nn.Module, Any], Tensor]
    score: Callable[[nn.Module], float | None]
    recipe: str
    pictures: str
    seed: int
    clip_norm: float = 0.0


def adamw(network: nn.Module, rates: Callable[[str], float], weight_decay: float) -> Optimizer:
    """Return AdamW with a peak learning rate by parameter name.

    Biases, norms, tokens and position embeddings do not decay.

    Args:
        network: Whose parameters are trained.
        rates: Peak learning rate of the parameter of that name.
        weight_decay: Of all matrices and kernels.
    """
    no_decay: Callable[[], Iterable[str]] = getattr(network, "no_weight_decay", set)
    kept = set(no_decay())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and name not in kept
            key = (rates(name), weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
            for (peak, decay), parameters in groups.items()
        ]
    )


def fit(
    fabric: Fabric,
    network: nn.Module,
    optimizer: Optimizer,
    task: Task,
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train ``network`` in place and return the history.

    Args:
        fabric: As :func:`scotoma.train.hardware.start` returns it.
        network: With its first weights.
        optimizer: Of its parameters; groups hold their peak rate as ``peak``.
        task: Batches, loss and score.
        schedule: Of the learning rate.
        checkpoint: File of the state after each epoch; removed by the caller once the model
            is written.
        on_step: Called with (steps done, steps in all).
        on_epoch: Called after every epoch.

    Raises:
        SettingsError: The checkpoint is not this run's, or the loss is no number any more.
    """
    wrapped, optimizer = fabric.setup(network, optimizer)
    history = _resume(checkpoint, network, optimizer, task) if checkpoint else []
    while len(history) < schedule.epochs:
        number, started = len(history), perf_counter()
        with seeded(fabric, stream_seed(task.seed, "network", number, fabric.global_rank)):
            loss = _epoch(fabric, wrapped, optimizer, task, schedule, number, on_step)
        if not math.isfinite(loss):
            raise SettingsError(
                f"expected a finite loss, got {loss} in epoch {number + 1}; lower the learning "
                "rate, or train in float32"
            )
        score = task.score(network)
        history.append(Epoch(number + 1, loss, score, perf_counter() - started))
        if checkpoint and fabric.is_global_zero:
            _keep(checkpoint, network, optimizer, task, history)
        fabric.barrier()
        if on_epoch and fabric.is_global_zero:
            on_epoch(history[-1])
    return history


def _epoch(
    fabric: Fabric,
    network: nn.Module,
    optimizer: Optimizer,
    task: Task,
    schedule: Schedule,
    number: int,
    on_step: Callable[[int, int], None] | None,
) -> float:
    network.train()
    total = torch.zeros((), device=fabric.device)
    for step, batch in enumerate(task.batches(number)):
        factor = schedule.factor(number + (step + 1) / task.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        loss = task.loss(network, fabric.to_device(batch))
        optimizer.zero_grad()
        fabric.backward(loss)
        if task.clip_norm > 0:
            fabric.clip_gradients(network, optimizer, max_norm=task.clip_norm)
        optimizer.step()
        total += loss.detach()
        if on_step and fabric.is_global_zero:
            on_step(number * task.steps + step + 1, schedule.epochs * task.steps)
    mean: Any = fabric.all_reduce(total, reduce_op="mean")
    return float(mean) / task.steps


def _keep(
    path: Path, network: nn.Module, optimizer: Optimizer, task: Task, history: list[Epoch]
) -> None:
    checkpoints.keep(
        path,
        {
            "recipe": task.recipe,
            "pictures": task.pictures,
            "history": [asdict(epoch) for epoch in history],
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
    )


def _resume(path: Path, network: nn.Module, optimizer: Optimizer, task: Task) -> list[Epoch]:
    if not path.exists():
        return []
    state = checkpoints.read(path, recipe=task.recipe, pictures=task.pictures)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return [Epoch(**epoch) for epoch in state["history"]]
