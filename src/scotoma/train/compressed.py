"""Fine-tune a compressed network: its weights stay whole numbers while they learn.

The forward pass uses rounded weights, the gradient passes the rounding as if it were not there
(straight-through). What is learned is what compressing minimizes: the loss on labels plus the
price of the bits that the weights take.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from scotoma.compress.pictures import Pictures
from scotoma.core.errors import SettingsError
from scotoma.models.compressed_tensors import (
    CompressedTensor,
    FractionalTensor,
    GridTensor,
    step_of,
)
from scotoma.train import checkpoints
from scotoma.train.augment import augment
from scotoma.train.hardware import generator_for

__all__ = ["TuneSettings", "fine_tune", "fine_tune_float"]

_MOST_CODE = 1 << 15
_RISE = 0.05  # of all steps


@dataclass(frozen=True)
class TuneSettings:
    """How a compressed network learns.

    Args:
        epochs: Passes over the pictures.
        batch_size: Pictures per step.
        rate: Adam's peak learning rate of rounded weights, in their steps, where the next would be
            less: weights on coarse steps would never reach another.
        float_rate: Adam's peak learning rate of weights as they are, rounded or not.
        shift: Largest random translation, in pixels of the input.
        most_steps: Steps of an epoch; None for all pictures.
        seed: Of order and augmentation.

    Raises:
        SettingsError: A number out of range.
    """

    epochs: int = 4
    batch_size: int = 64
    rate: float = 0.003
    float_rate: float = 3e-4
    shift: int = 4
    most_steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.epochs >= 1 and self.batch_size >= 1):
            raise SettingsError(
                f"expected epochs and batch_size >= 1, got {self.epochs}, {self.batch_size}"
            )
        if not (0 < self.rate < math.inf and 0 < self.float_rate < math.inf):
            raise SettingsError(
                f"expected positive learning rates, got {self.rate} and {self.float_rate}"
            )
        if not self.shift >= 0 or (self.most_steps is not None and not self.most_steps >= 1):
            raise SettingsError(
                f"expected shift >= 0 and most_steps >= 1, got {self.shift}, {self.most_steps}"
            )


def fine_tune(
    network: nn.Module,
    tensors: Mapping[str, CompressedTensor],
    pictures: Pictures,
    price: float,
    settings: TuneSettings,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, CompressedTensor]:
    """Return tensors on the same steps, with other whole numbers.

    Args:
        network: Whose tensors they are, in evaluation mode; not changed.
        tensors: As compressing made them; those of fractional filters stay as they are.
        pictures: To learn from.
        price: What a bit costs, in nats a picture, 0 or more; pruned weights stay zero where it
            is 0.
        settings: How.
        checkpoint: File of the state after each epoch, from which a stopped run goes on; the
            caller removes it.
        on_step: Called with (steps done, steps in all).

    Raises:
        SettingsError: The checkpoint is another run's, or the loss is no number any more.
    """
    grids = {n: _grid(tensor) for n, tensor in tensors.items()}
    steps = {name: _steps(tensor) for name, tensor in grids.items()}
    rounded = {n for n, tensor in grids.items() if tensor.codes.ndim >= 2}
    masks = {n: _mask(t) for n, t in tensors.items() if isinstance(t, FractionalTensor)}
    filters = {name: tensors[name].values() for name in masks}
    # In units of a step; what is not rounded in units of its own.
    learned = {
        n: torch.from_numpy(t.codes.astype(np.float32)).requires_grad_()
        if n in rounded
        else t.values().requires_grad_()
        for n, t in grids.items()
    }
    kept = {n: learned[n].detach() != 0 for n in rounded} if price == 0 else {}

    def weights() -> dict[str, Tensor]:
        found = {}
        for name, value in learned.items():
            if name in rounded:
                whole = value + (value.round() - value).detach()
                whole = whole * kept[name] if name in kept else whole
                found[name] = whole * steps[name]
                if name in masks:
                    found[name] = torch.where(masks[name], filters[name], found[name])
            else:
                found[name] = value
        return found

    def bits() -> Tensor:
        sizes = [2 * torch.log2(1 + learned[n].abs()).sum() for n in sorted(rounded)]
        return torch.stack(sizes).sum() if sizes and price else torch.zeros(())

    rates = {
        n: max(settings.rate, settings.float_rate / float(steps[n].median()))
        if n in rounded
        else settings.float_rate
        for n in learned
    }
    label = json.dumps({**asdict(settings), "price": price}, sort_keys=True)
    _learn(
        network,
        learned,
        rates,
        weights,
        lambda: price * bits(),
        pictures,
        settings,
        label,
        checkpoint,
        on_step,
    )
    made: dict[str, CompressedTensor] = dict(tensors)
    for name, tensor in grids.items():
        value = learned[name].detach()
        codes = value if name in rounded else value / steps[name]
        codes = codes * kept[name] if name in kept else codes
        limit = _MOST_CODE if name in rounded else 1 << 22
        whole = codes.round().clamp(-limit, limit).to(torch.int32)
        coded = GridTensor(whole.numpy(), tensor.exponents)
        former = tensors[name]
        if isinstance(former, FractionalTensor):
            made[name] = replace(
                former, plain=GridTensor(coded.codes * ~masks[name].numpy(), coded.exponents)
            )
        else:
            made[name] = coded
    return made


def fine_tune_float(
    network: nn.Module,
    pictures: Pictures,
    settings: TuneSettings,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Return the network's parameters after the same lessons, not rounded: the reference."""
    learned = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    rates = dict.fromkeys(learned, settings.float_rate)
    _learn(
        network,
        learned,
        rates,
        lambda: dict(learned),
        lambda: torch.zeros(()),
        pictures,
        settings,
        json.dumps(asdict(settings), sort_keys=True),
        checkpoint,
        on_step,
    )
    return {name: value.detach() for name, value in learned.items()}


def _grid(tensor: CompressedTensor) -> GridTensor:
    if isinstance(tensor, GridTensor):
        return tensor
    if isinstance(tensor, FractionalTensor):
        return tensor.plain
    raise SettingsError(f"expected tensors of a compressed file, got {type(tensor).__name__}")


def _mask(tensor: FractionalTensor) -> Tensor:
    return torch.from_numpy(tensor.mask.astype(bool))[..., None, None]


def _steps(tensor: GridTensor) -> Tensor:
    steps = torch.tensor([step_of(int(e)) for e in tensor.exponents.reshape(-1)])
    if not tensor.exponents.ndim:
        return steps[0]
    return steps.reshape(-1, *[1] * (tensor.codes.ndim - 1))


def _learn(
    network: nn.Module,
    learned: Mapping[str, Tensor],
    rates: Mapping[str, float],
    weights: Callable[[], dict[str, Tensor]],
    penalty: Callable[[], Tensor],
    pictures: Pictures,
    settings: TuneSettings,
    label: str,
    checkpoint: Path | None,
    on_step: Callable[[int, int], None] | None,
) -> None:
    """Change ``learned`` in place; all randomness comes from the seed and an epoch's number."""
    groups = [{"params": [value], "lr": rates[n], "peak": rates[n]} for n, value in learned.items()]
    optimizer = torch.optim.Adam(groups)
    count = len(pictures) // settings.batch_size or 1
    count = min(count, settings.most_steps or count)
    total = settings.epochs * count
    known = f"{len(pictures)} pictures"
    first = 0
    if checkpoint is not None and checkpoint.exists():
        state = checkpoints.read(checkpoint, recipe=label, pictures=known)
        first = _restore(state, learned, optimizer)
    for epoch in range(first, settings.epochs):
        generator = generator_for(settings.seed, "fine-tuning", epoch)
        order = torch.randperm(len(pictures), generator=generator)
        for step, chosen in enumerate(torch.split(order, settings.batch_size)[:count]):
            done = epoch * count + step
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _factor(done, total)
            images = augment(
                pictures.images[chosen],
                shift=settings.shift,
                erase_probability=0.0,
                generator=generator,
            )
            logits = functional_call(network, weights(), (pictures.normalized(images),))
            loss = F.cross_entropy(logits, pictures.labels[chosen]) + penalty()
            if not math.isfinite(float(loss.detach())):
                raise SettingsError(
                    f"expected a finite loss, got {float(loss.detach())}; lower the learning rates"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if on_step:
                on_step(done + 1, total)
        if checkpoint is not None:
            kept = {n: value.detach() for n, value in learned.items()}
            state = {"recipe": label, "pictures": known, "epoch": epoch + 1, "learned": kept}
            checkpoints.keep(checkpoint, {**state, "optimizer": optimizer.state_dict()})


def _factor(done: int, total: int) -> float:
    """Return a short rise, for Adam's first steps are blind, then half a cosine."""
    rise = max(1, round(_RISE * total))
    return min(1.0, (done + 1) / rise) * 0.5 * (1 + math.cos(math.pi * done / total))


def _restore(
    state: Mapping[str, Any], learned: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> int:
    with torch.no_grad():
        for name, value in learned.items():
            value.copy_(state["learned"][name])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])
