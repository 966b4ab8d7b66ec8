"""Fractional filters fitted to the answers of the whole network, by gradient or by search.

::

    numbers of all filters ──► weights ──► network ──► answers
          ▲                                              │ divergence from the answers of the
          └── Adam, or any optimizer of scores alone ◄───┘ network as it was, in nats a picture
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from scotoma.compress.fractional_layer import FractionalLayer
from scotoma.core.errors import ModelError, SettingsError, UnknownNameError
from scotoma.ops.fractional_filters import shape_bounds

__all__ = ["AccuracyFit", "AccuracyFitSettings", "find_divergence", "fit_answers"]

_GRADIENT = "gradient"
_BATCH = 250


@dataclass(frozen=True)
class AccuracyFitSettings:
    """How answers are fitted.

    Args:
        method: ``"gradient"``, or the name of an optimizer, which sees the divergence alone.
        budget: Of the search, in passes over all pictures; the gradient takes as many steps,
            each of one batch.
        reach: How far a search goes from where it starts: for shapes in widths of their
            bounds, for amplitudes in root mean squares of their layer's.
        rate: Of learning, in the same units; falls to zero linearly.
        batch: Pictures of a step of the gradient.
        seed: Of the order of batches, and of the optimizer.

    Raises:
        UnknownNameError: No such method.
        SettingsError: A number out of range.
    """

    method: str = _GRADIENT
    budget: int = 200
    reach: float = 0.1
    rate: float = 0.0005
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method != _GRADIENT:
            from scotoma.optimize.registry import optimizers

            names = optimizers.names()
            if self.method not in names:
                raise UnknownNameError("fitting method", self.method, [_GRADIENT, *names])
        for name in ("budget", "batch"):
            if not getattr(self, name) >= 1:
                raise SettingsError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if not 0 < self.reach <= 1:
            raise SettingsError(f"expected reach above 0 and at most 1, got {self.reach}")
        if not self.rate > 0:
            raise SettingsError(f"expected a positive rate, got {self.rate}")
        if not self.seed >= 0:
            raise SettingsError(f"expected a seed of at least 0, got {self.seed}")


@dataclass(frozen=True, eq=False)
class AccuracyFit:
    """Layers fitted to the network's answers.

    Args:
        layers: By convolution's name.
        before: Divergence at the start, in nats a picture.
        after: Divergence in the end, on the same pictures; never above ``before``.
        evaluations: Passes over all pictures, without those that measured the two.
    """

    layers: dict[str, FractionalLayer]
    before: float
    after: float
    evaluations: float


def find_divergence(
    network: nn.Module,
    layers: Mapping[str, FractionalLayer],
    images: Tensor,
    answers: Tensor,
    *,
    biases: Mapping[str, Tensor] | None = None,
) -> float:
    """Return how far the answers are from those wanted, in nats a picture.

    Args:
        network: In evaluation mode; not changed.
        layers: What stands for the weights of some of its convolutions.
        images: ``(N, 3, H, W)`` as it reads them.
        answers: ``(N, classes)`` logits wanted.
        biases: By convolution's name, in the place of its own.
    """
    with torch.no_grad():
        weights = _parameters(layers, biases)
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(images), _BATCH):
            part = slice(first, first + _BATCH)
            total += float(_divergence(network, weights, images[part], answers[part]).sum())
    return total / len(images)


def fit_answers(
    network: nn.Module,
    layers: Mapping[str, FractionalLayer],
    images: Tensor,
    settings: AccuracyFitSettings | None = None,
    *,
    biases: Mapping[str, Tensor] | None = None,
) -> AccuracyFit:
    """Return layers with which the network answers as it did, as nearly as is found.

    No labels are needed: the answers wanted are the network's own.

    Args:
        network: With its own weights, in evaluation mode; not changed.
        layers: By convolution's name, where to start; masks and plain kernels stay.
        images: ``(N, 3, H, W)`` as it reads them.
        settings: How.
        biases: By convolution's name, in the place of its own; see
            :func:`~scotoma.compress.output_fitting.bias_shift`. They stay.

    Raises:
        ModelError: In training mode, or no such convolution.
        SettingsError: No layers or no pictures.
    """
    settings = settings or AccuracyFitSettings()
    if network.training:
        raise ModelError("expected a network in evaluation mode, got training; call .eval() first")
    if not layers or not len(images):
        raise SettingsError("expected at least one layer and one picture, got none")
    modules = dict(network.named_modules())
    for name in layers:
        if not isinstance(modules.get(name), nn.Conv2d):
            raise ModelError(f"expected a convolution named {name!r}, got none")
    with torch.no_grad():
        answers = torch.cat([network(part) for part in torch.split(images, _BATCH)])
    numbers = _Numbers(layers)
    task = _Task(network, images, answers, dict(biases or {}))
    before = task.divergence(layers)
    if settings.method == _GRADIENT:
        found = _descend(task, numbers, settings)
        evaluations = settings.budget * min(settings.batch, len(images)) / len(images)
    else:
        found, evaluations = _search(task, numbers, settings)
    with torch.no_grad():
        moved = numbers.at(found)
    after = task.divergence(moved)
    if not after < before:
        moved, after = dict(layers), before
    return AccuracyFit(moved, before, after, evaluations)


@dataclass(frozen=True, eq=False)
class _Task:
    """What is asked of whom, and the answers wanted."""

    network: nn.Module
    images: Tensor
    answers: Tensor
    biases: dict[str, Tensor]

    def divergence(self, layers: Mapping[str, FractionalLayer]) -> float:
        return find_divergence(self.network, layers, self.images, self.answers, biases=self.biases)


class _Numbers:
    """All numbers of some layers in one vector: 0 is where they are, 1 is their unit away."""

    def __init__(self, layers: Mapping[str, FractionalLayer]) -> None:
        self.layers = {name: _still(layer) for name, layer in layers.items()}
        self.count = sum(
            int(layer.shapes_used.sum()) * layer.shapes[0, 0].numel()
            + int(layer.mask.sum()) * layer.amplitudes.shape[2]
            for layer in self.layers.values()
        )

    def at(self, moves: Tensor) -> dict[str, FractionalLayer]:
        """Return the layers moved by ``(count,)``, differentiable; shapes stay in bounds."""
        found, place = {}, 0
        for name, layer in self.layers.items():
            lower, upper = (
                torch.tensor(side).to(layer.shapes) for side in shape_bounds(layer.size)
            )
            used, mask = layer.shapes_used, layer.mask
            first = place + int(used.sum()) * layer.shapes[0, 0].numel()
            last = first + int(mask.sum()) * layer.amplitudes.shape[2]
            shapes, amplitudes = layer.shapes.clone(), layer.amplitudes.clone()
            unit = layer.amplitudes[mask].square().mean().sqrt() if mask.any() else 1.0
            near = layer.shapes[used]
            step = moves[place:first].reshape(near.shape).to(near) * (upper - lower)
            shapes[used] = torch.minimum(torch.maximum(near + step, lower), upper)
            held = layer.amplitudes[mask]
            amplitudes[mask] = held + moves[first:last].reshape(held.shape).to(held) * unit
            found[name] = FractionalLayer(shapes, amplitudes, mask, layer.plain)
            place = last
        return found


def _still(layer: FractionalLayer) -> FractionalLayer:
    return FractionalLayer(
        layer.shapes.detach(), layer.amplitudes.detach(), layer.mask, layer.plain.detach()
    )


def _divergence(
    network: nn.Module, weights: Mapping[str, Tensor], images: Tensor, answers: Tensor
) -> Tensor:
    """Return ``(N,)``: Kullback–Leibler, of the answers wanted from those given."""
    given = torch.func.functional_call(network, dict(weights), (images,)).log_softmax(1)
    wanted = answers.log_softmax(1)
    divergence: Tensor = (wanted.exp() * (wanted - given)).sum(1)
    return divergence


def _parameters(
    layers: Mapping[str, FractionalLayer], biases: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    weights = {f"{name}.weight": layer.weight() for name, layer in layers.items()}
    return weights | {f"{name}.bias": bias for name, bias in (biases or {}).items()}


def _descend(task: _Task, numbers: _Numbers, settings: AccuracyFitSettings) -> Tensor:
    images, answers = task.images, task.answers
    moves = torch.zeros(numbers.count, requires_grad=True)
    optimizer = torch.optim.Adam([moves], lr=settings.rate)
    generator = Generator().manual_seed(settings.seed)
    order = torch.empty(0, dtype=torch.int64)
    with torch.enable_grad():
        for step in range(settings.budget):
            if len(order) < min(settings.batch, len(images)):
                order = torch.randperm(len(images), generator=generator)
            part, order = order[: settings.batch], order[settings.batch :]
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * (1 - step / settings.budget)
            weights = _parameters(numbers.at(moves), task.biases)
            loss = _divergence(task.network, weights, images[part], answers[part]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return moves.detach()


def _search(task: _Task, numbers: _Numbers, settings: AccuracyFitSettings) -> tuple[Tensor, int]:
    from scotoma.optimize.bounds import Bounds
    from scotoma.optimize.search import Search

    search = Search(
        settings.method,
        Bounds.cube(numbers.count, -settings.reach, settings.reach),
        budget=settings.budget,
        seed=settings.seed,
        start=np.zeros(numbers.count),
    )
    while not search.is_over:
        values = [task.divergence(numbers.at(torch.tensor(point))) for point in search.ask()]
        search.tell(np.array(values))
    return torch.tensor(search.best.point), search.evaluations
