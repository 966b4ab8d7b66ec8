"""The turns that adversaries and a private bottleneck take, batch by batch.

All randomness of an epoch comes from the seed and the epoch's number, so a run that goes on
from a checkpoint ends in the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scotoma.attacks.inversion.training import reconstruction_loss
from scotoma.core.errors import SettingsError
from scotoma.models.split_model import SplitModel
from scotoma.train import checkpoints
from scotoma.train.hardware import Share, generator_for, seeded, stream_seed
from scotoma.train.loop import Epoch, Schedule, adamw
from scotoma.train.sources import Source
from scotoma.train.split_adversaries import Population
from scotoma.train.split_losses import Prior, answer_loss, compressibility, rounded, task_loss

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.optim import Optimizer

    from scotoma.train.split import Recipe

__all__ = ["Duel", "accuracy", "first_pictures", "fit_range"]

_MOMENTUM = 0.937
_MOST_WIDE = 128


class Duel:
    """Bottleneck, prior and adversaries with their optimizers.

    Args:
        fabric: As :func:`scotoma.train.hardware.start` returns it.
        model: Its bottleneck is trained in place.
        source: Training pictures.
        recipe: Settings.
        text: All that decides the weights, for the checkpoint.
        logits: Which logit each class of the source is; None where labels are not read.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: SplitModel,
        source: Source,
        recipe: Recipe,
        text: str,
        logits: Tensor | None = None,
    ) -> None:
        self.fabric, self.model, self.source, self.recipe = fabric, model, source, recipe
        self.text = text
        self.logits = None if logits is None else logits.to(fabric.device)
        self.share = Share(fabric.global_rank, fabric.world_size)
        model.to(fabric.device)
        self.coder = _Coder(model, recipe)
        self.coder.requires_grad_(True)
        preprocessing = model.description.preprocessing
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(recipe.seed, "adversaries"))
            self.population = Population(
                recipe.adversaries,
                model.latent_shape,
                preprocessing.input_size[1:],
                recipe.adversary_width or min(_MOST_WIDE, 2 * model.point.shape[0]),
            )
        self._mean = torch.tensor(preprocessing.mean, device=fabric.device)[:, None, None]
        self._std = torch.tensor(preprocessing.std, device=fabric.device)[:, None, None]
        self.steps = max(1, source.count // recipe.batch_size)
        self._coder, self.optimizer = fabric.setup(self.coder, _optimizer(self.coder, recipe))
        self._population, self.rival = self.population, None
        if recipe.adversaries:
            rates = adamw(self.population, lambda _: recipe.adversary_rate, recipe.weight_decay)
            self._population, self.rival = fabric.setup(self.population, rates)

    def run(
        self,
        test: Source | None,
        *,
        checkpoint: Path | None,
        on_step: Callable[[int, int], None] | None,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> list[Epoch]:
        """Train to the end of the recipe and return the history."""
        recipe, fabric = self.recipe, self.fabric
        epochs = recipe.alone_epochs + recipe.epochs
        history = self._resume(checkpoint) if checkpoint else []
        while len(history) < epochs:
            number, started = len(history), perf_counter()
            with seeded(fabric, stream_seed(recipe.seed, "network", number, self.share.rank)):
                loss = self._epoch(number, epochs, on_step)
            if not math.isfinite(loss):
                raise SettingsError(
                    f"expected a finite loss, got {loss} in epoch {number + 1}; lower the "
                    "learning rate"
                )
            score = None
            if test is not None:
                fit_range(self.model, self.source, recipe, fabric.device)
                score = accuracy(self.model, test, fabric, self.logits)
            history.append(Epoch(number + 1, loss, score, perf_counter() - started))
            if checkpoint and fabric.is_global_zero:
                self._keep(checkpoint, history)
            fabric.barrier()
            if on_epoch and fabric.is_global_zero:
                on_epoch(history[-1])
        self.coder.requires_grad_(False)
        return history

    def _epoch(self, number: int, epochs: int, on_step: Callable[[int, int], None] | None) -> float:
        recipe = self.recipe
        limited = number >= recipe.alone_epochs
        begun, length = 0, recipe.alone_epochs
        if limited:
            begun, length = recipe.alone_epochs, recipe.epochs
            self._restart(number - begun)
        schedule = Schedule(length, 0.0, recipe.final_fraction)
        noise = generator_for(recipe.seed, "noise", number, self.share.rank)
        total = torch.zeros((), device=self.fabric.device)
        batches = self.source.training(number, recipe.batch_size, recipe.seed, self.share)
        for step, (images, labels) in enumerate(batches):
            factor = schedule.factor(number - begun + (step + 1) / self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            images, labels = self.fabric.to_device((images, labels))
            total += self._turn(images, labels, noise, limited=limited)
            if on_step and self.fabric.is_global_zero:
                on_step(number * self.steps + step + 1, epochs * self.steps)
        mean: Any = self.fabric.all_reduce(total, reduce_op="mean")
        return float(mean) / self.steps

    def _turn(
        self, images: Tensor, labels: Tensor, noise: torch.Generator, *, limited: bool
    ) -> Tensor:
        recipe = self.recipe
        labels = labels if self.logits is None else self.logits[labels]
        with torch.no_grad(), self.fabric.autocast():
            features = self.model.head(images)
            plain = self.model.tail(features) if recipe.task == "answers" else None
        drawn = torch.rand(len(images), *self.model.latent_shape, generator=noise) - 0.5
        sent, decoded, bits = self._coder(features, drawn.to(self.fabric.device), limited)
        pictures = images * self._std + self._mean
        contested = limited and self.rival is not None
        if contested:
            self._attack(sent.detach(), pictures)
        with self.fabric.autocast():
            loss = task_loss(recipe.task, self.model.tail(decoded), plain, labels)
        if recipe.imitation > 0 and not limited:
            loss = loss + recipe.imitation * answer_loss([decoded], [features])
        if limited and recipe.compressibility > 0:
            loss = loss + recipe.compressibility * compressibility(sent.float())
        if recipe.rate > 0:
            loss = loss + bits.mean() / (images.shape[2] * images.shape[3])
        if contested:
            loss = loss - recipe.reconstruction * self._distance(sent, pictures)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if recipe.clip_norm > 0:
            self.fabric.clip_gradients(self._coder, self.optimizer, max_norm=recipe.clip_norm)
        self.optimizer.step()
        return loss.detach()

    def _attack(self, sent: Tensor, pictures: Tensor) -> None:
        """Let every adversary learn from the latents as they are now."""
        if self.rival is None:
            return
        self.population.requires_grad_(True)
        for _ in range(self.recipe.adversary_steps):
            guesses = self._population(sent)
            losses = [reconstruction_loss(g.float(), pictures, self.recipe.sobel) for g in guesses]
            self.rival.zero_grad()
            self.fabric.backward(torch.stack(losses).sum())
            self.rival.step()
        self.population.requires_grad_(False)

    def _distance(self, sent: Tensor, pictures: Tensor) -> Tensor:
        """Return the best adversary's loss, as far as it is below the mean picture's."""
        with self.fabric.autocast():
            guesses = self.population(sent)
        losses = [reconstruction_loss(g.float(), pictures, self.recipe.sobel) for g in guesses]
        mean = pictures.mean(0, keepdim=True).expand_as(pictures)
        trivial = reconstruction_loss(mean, pictures, self.recipe.sobel)
        return torch.minimum(torch.stack(losses).min(), trivial)

    def _restart(self, contested: int) -> None:
        """Give one adversary in turn fresh weights, and forget what its optimizer knew."""
        every = self.recipe.restart_epochs
        if every == 0 or contested == 0 or contested % every or self.rival is None:
            return
        place = (contested // every - 1) % len(self.recipe.adversaries)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.recipe.seed, "restart", contested))
            fresh = self.population.restart(place)
        for parameter in fresh:
            self.rival.state.pop(parameter, None)

    def _keep(self, path: Path, history: list[Epoch]) -> None:
        checkpoints.keep(
            path,
            {
                "recipe": self.text,
                "pictures": self._pictures,
                "history": [asdict(epoch) for epoch in history],
                "coder": self.coder.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "population": self.population.state_dict(),
                "rival": self.rival.state_dict() if self.rival else {},
            },
        )

    def _resume(self, path: Path) -> list[Epoch]:
        if not path.exists():
            return []
        state = checkpoints.read(path, recipe=self.text, pictures=self._pictures)
        self.coder.load_state_dict(state["coder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.population.load_state_dict(state["population"])
        if self.rival:
            self.rival.load_state_dict(state["rival"])
        return [Epoch(**epoch) for epoch in state["history"]]

    @property
    def _pictures(self) -> str:
        return f"{self.source.count} of {', '.join(self.source.classes)}"


class _Coder(nn.Module):
    """What is trained besides the adversaries: bottleneck and prior, as one step needs them."""

    def __init__(self, model: SplitModel, recipe: Recipe) -> None:
        super().__init__()
        if model.bottleneck is None:
            raise SettingsError("expected a split model with a bottleneck to train, got none")
        self.bottleneck = model.bottleneck
        self.prior = Prior(model.latent_shape[0]) if recipe.rate > 0 else None
        self.step = recipe.step
        self.rate = recipe.rate

    def forward(
        self, features: Tensor, noise: Tensor, limited: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the latent as it is sent, the features decoded from it, and weighted bits."""
        latent = self.bottleneck.encode(features)
        sent = rounded(latent, self.step)
        down, across = features.shape[-2:]
        decoded = self.bottleneck.decode(sent, (down, across))
        bits = latent.new_zeros(len(latent))
        if self.prior is not None:
            # Before the limits come, the prior learns what there will be to limit.
            counted = latent.float() if limited else latent.detach().float()
            bits = self.rate * self.prior.bits(counted, self.step, noise)
        return sent, decoded, bits


def _optimizer(coder: nn.Module, recipe: Recipe) -> Optimizer:
    if recipe.optimizer == "adamw":
        return adamw(coder, lambda _: recipe.learning_rate, recipe.weight_decay)
    group = {
        "params": list(coder.parameters()),
        "lr": recipe.learning_rate,
        "peak": recipe.learning_rate,
    }
    return torch.optim.SGD(
        [group],
        lr=recipe.learning_rate,
        momentum=_MOMENTUM,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )


def fit_range(model: SplitModel, source: Source, recipe: Recipe, device: torch.device) -> None:
    """Take the range of the latents from the first training pictures, whole and unchanged."""
    model.fit_range(first_pictures(source, recipe.calibration, device), recipe.step)


def first_pictures(source: Source, count: int, device: torch.device) -> Iterator[Tensor]:
    """Yield the first pictures of a source in batches, as the model reads them."""
    for images, _ in source.evaluation(Share()):
        if count <= 0:
            return
        yield images[:count].to(device)
        count -= len(images)


@torch.no_grad()
def accuracy(
    model: SplitModel, source: Source, fabric: Fabric, logits: Tensor | None
) -> float | None:
    """Return the fraction of pictures decided right, from bytes, in float32.

    Args:
        model: With its range.
        source: Pictures.
        fabric: Where to run.
        logits: Which logit each label is; None holds decisions against the plain network's.

    Returns:
        In [0, 1]; None for networks that do not answer logits.
    """
    right = torch.zeros((), dtype=torch.int64, device=fabric.device)
    for images, labels in source.evaluation(Share(fabric.global_rank, fabric.world_size)):
        pictures = images.to(fabric.device)
        answers = model(pictures)
        if not isinstance(answers, Tensor) or answers.ndim != 2:
            return None
        wanted = (
            model.tail(model.head(pictures)).argmax(1)
            if logits is None
            else logits[labels.to(fabric.device)]
        )
        right += (answers.argmax(1) == wanted).sum()
    total: Any = fabric.all_reduce(right, reduce_op="sum")
    return int(total) / source.count
