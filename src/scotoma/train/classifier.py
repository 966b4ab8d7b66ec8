"""Train a small ConvMixer on labelled pictures, with exact resume.

Source:
    Trockman, Kolter, Patches Are All You Need?, TMLR 2023 (architecture and the
    AdamW, one-cycle, crop-flip-erase recipe it uses for CIFAR-10).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from scotoma.core.errors import SettingsError
from scotoma.models import saved
from scotoma.models.preprocessing import Preprocessing
from scotoma.train import checkpoints
from scotoma.train.augment import augment
from scotoma.train.data import LabelledPictures, normalize

__all__ = ["Epoch", "Recipe", "accuracy", "train"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights besides the pictures.

    Args:
        dim: Channels of every block.
        depth: Number of blocks.
        kernel_size: Side of the depthwise convolutions.
        patch_size: Side of a patch, in pixels; divides the input size.
        preprocessing: How pictures are read, at training and later.
        epochs: Passes over the pictures.
        batch_size: Pictures per step.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: AdamW's.
        label_smoothing: Mass spread over the other classes.
        shift: Largest random translation, in pixels of the input.
        erase_probability: Chance that a rectangle of a picture is blanked.
        bfloat16: Run convolutions in bfloat16 (autocast).
        seed: Of weights, order and augmentation.
    """

    dim: int = 192
    depth: int = 8
    kernel_size: int = 3
    patch_size: int = 4
    preprocessing: Preprocessing = field(
        default_factory=lambda: Preprocessing(
            input_size=(3, 64, 64),
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            interpolation="bilinear",
            crop_pct=1.0,
        )
    )
    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 0.01
    weight_decay: float = 0.005
    label_smoothing: float = 0.1
    shift: int = 8
    erase_probability: float = 0.1
    bfloat16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.epochs >= 1 and self.batch_size >= 2):
            raise SettingsError(
                f"expected epochs >= 1 and batch_size >= 2, got {self.epochs}, {self.batch_size}"
            )
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise SettingsError(
                "expected a positive learning rate and a weight decay of 0 or more, "
                f"got {self.learning_rate}, {self.weight_decay}"
            )
        if not (0 <= self.erase_probability <= 1 and 0 <= self.label_smoothing < 1):
            raise SettingsError(
                "expected erase_probability in [0, 1] and label_smoothing in [0, 1), "
                f"got {self.erase_probability}, {self.label_smoothing}"
            )
        if not 0 <= self.shift < min(self.preprocessing.input_size[1:]):
            raise SettingsError(
                f"expected a shift of 0 or more, less than the sides "
                f"{self.preprocessing.input_size[1:]}, got {self.shift}"
            )
        if any(side % self.patch_size for side in self.preprocessing.input_size[1:]):
            raise SettingsError(
                f"expected a patch size that divides {self.preprocessing.input_size[1:]}, "
                f"got {self.patch_size}"
            )


@dataclass(frozen=True)
class Epoch:
    """What one pass over the pictures came to."""

    number: int
    loss: float
    test_accuracy: float | None


def train(
    pictures: LabelledPictures,
    output: Path,
    recipe: Recipe,
    *,
    test: LabelledPictures | None = None,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train, write the model to ``output``, and return the history.

    A run that was stopped goes on from ``checkpoint`` and ends in the same weights.

    Args:
        pictures: Training pictures.
        output: Where the ``.safetensors`` goes.
        recipe: Settings.
        test: Pictures whose accuracy is reported after every epoch.
        checkpoint: File of the state after each epoch; removed at the end.
        on_step: Called with (steps done, steps in all).
        on_epoch: Called after every epoch.

    Raises:
        SettingsError: The checkpoint is damaged, or belongs to another recipe or other pictures.
    """
    run = _Run(pictures, recipe)
    history = run.resume(checkpoint) if checkpoint and checkpoint.exists() else []
    while len(history) < recipe.epochs:
        loss = run.epoch(len(history), on_step)
        score = accuracy(run.network, test, recipe.preprocessing) if test else None
        history.append(Epoch(len(history) + 1, loss, score))
        if checkpoint:
            run.keep(checkpoint, history)
        if on_epoch:
            on_epoch(history[-1])
    saved.save(
        output,
        run.network.state_dict(),
        saved.SavedModel("convmixer", run.arguments, recipe.preprocessing, pictures.classes),
    )
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return history


def accuracy(network: nn.Module, pictures: LabelledPictures, preprocessing: Preprocessing) -> float:
    """Return the fraction of pictures whose top-1 decision is their label, in float32."""
    was_training = network.training
    network.eval()
    right = 0
    with torch.no_grad():
        batches = zip(
            torch.split(pictures.images, 250), torch.split(pictures.labels, 250), strict=True
        )
        for images, labels in batches:
            logits = network(normalize(images, preprocessing))
            right += int((logits.argmax(1) == labels).sum())
    network.train(was_training)
    return right / len(pictures.labels)


class _Run:
    """Network, optimizer and random stream of one training run."""

    def __init__(self, pictures: LabelledPictures, recipe: Recipe) -> None:
        self.recipe = recipe
        self.pictures = pictures
        self.arguments: dict[str, Any] = {
            "dim": recipe.dim,
            "depth": recipe.depth,
            "kernel_size": recipe.kernel_size,
            "patch_size": recipe.patch_size,
            "num_classes": len(pictures.classes),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = saved.build("convmixer", self.arguments)
        self.network: nn.Module = network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.generator = Generator().manual_seed(recipe.seed)
        self.steps_per_epoch = max(1, len(pictures.labels) // recipe.batch_size)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            recipe.learning_rate,
            total_steps=recipe.epochs * self.steps_per_epoch,
            pct_start=0.3,
        )

    def epoch(self, number: int, on_step: Callable[[int, int], None] | None) -> float:
        recipe = self.recipe
        self.network.train()
        order = torch.randperm(len(self.pictures.labels), generator=self.generator)
        total = 0.0
        for step in range(self.steps_per_epoch):
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            images = augment(
                self.pictures.images[chosen],
                shift=recipe.shift,
                erase_probability=recipe.erase_probability,
                generator=self.generator,
            )
            total += self._step(images, self.pictures.labels[chosen])
            if on_step:
                done = number * self.steps_per_epoch + step + 1
                on_step(done, recipe.epochs * self.steps_per_epoch)
        return total / self.steps_per_epoch

    def _step(self, images: Tensor, labels: Tensor) -> float:
        recipe = self.recipe
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            logits = self.network(normalize(images, recipe.preprocessing))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())

    def keep(self, path: Path, history: list[Epoch]) -> None:
        """Write the whole state, so that going on from it equals never having stopped."""
        state = {
            "recipe": self._describe_recipe(),
            "pictures": self._describe_pictures(),
            "history": [asdict(epoch) for epoch in history],
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
        }
        checkpoints.keep(path, state)

    def resume(self, path: Path) -> list[Epoch]:
        state = checkpoints.read(
            path, recipe=self._describe_recipe(), pictures=self._describe_pictures()
        )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        return [Epoch(**epoch) for epoch in state["history"]]

    def _describe_recipe(self) -> str:
        return json.dumps(asdict(self.recipe), sort_keys=True)

    def _describe_pictures(self) -> str:
        return f"{len(self.pictures.labels)} of {', '.join(self.pictures.classes)}"
