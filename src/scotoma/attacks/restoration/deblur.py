"""Learned restoration: a network is trained to undo a fill, on the attacker's own pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from scotoma.attacks.inversion.curve import Point, has_flattened, late_gain
from scotoma.attacks.inversion.geometry import Geometry
from scotoma.attacks.inversion.networks import build_inverter
from scotoma.attacks.inversion.sources import split
from scotoma.attacks.inversion.training import Lesson, Training, step_generator, train
from scotoma.attacks.restoration.crops import (
    Examples,
    cut,
    fill_of,
    learn_examples,
    paste,
    read_boxes,
    reads_nothing,
)
from scotoma.core.errors import NotApplicableError, SettingsError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["Deblur", "FittedDeblur"]

_CELL = 4
_MARGIN = 0.25
_BATCH = 32


@dataclass(frozen=True)
class Deblur:
    """A residual network from painted regions, and what surrounds them, to the originals.

    Blur, pixelation and inverse super resolution leave a small picture of the region, which is
    enlarged by what the auxiliary pictures teach of its kind. After a search for a model's
    decision the same network reads whatever the searched pixels say. A fill that reads nothing
    leaves the surroundings: the guess is then what usually lies between them.

    Args:
        steps: Batches in all; the budget.
        batch_size: Regions in each.
        side: Of regions with their margin while they are restored, in pixels; whole fours.
        width: Channels of the network.
        depth: Residual blocks.
        learning_rate: Of AdamW.
        sobel_weight: Of edges in the loss; 0 for L1 alone.
        device: Of torch, for training.

    Raises:
        SettingsError: A value out of range.
    """

    steps: int = 600
    batch_size: int = 16
    side: int = 64
    width: int = 96
    depth: int = 4
    learning_rate: float = 2e-3
    sobel_weight: float = 0.0
    device: str = "cpu"

    needs: ClassVar[frozenset[str]] = frozenset({"simulate", "auxiliary"})

    def __post_init__(self) -> None:
        if not (self.side >= 8 and self.side % _CELL == 0 and self.width >= 1 and self.depth >= 1):
            raise SettingsError(
                f"expected a side of whole {_CELL}s of at least 8, and width and depth of at "
                f"least 1, got {self.side}, {self.width}, {self.depth}"
            )
        self._training()

    def fit(
        self,
        knowledge: Knowledge,
        *,
        generator: Generator,
        checkpoint: Path | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> FittedDeblur:
        """Train; see :class:`~scotoma.core.protocols.TrainableAttack`.

        Raises:
            NotGrantedError: No simulation or auxiliary pictures.
            NotApplicableError: Releases have no regions, or fewer than two pictures do.
            SettingsError: The checkpoint is another run's, or the loss is not finite.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        examples = learn_examples(knowledge, step_generator(seed, "fill"), self.side, _MARGIN)
        inputs = _with_mask(examples.painted)
        learned, kept = self._split(examples, seed)

        def batch(drawn: Generator) -> tuple[Tensor, Tensor]:
            chosen = learned[torch.randint(len(learned), (self.batch_size,), generator=drawn)]
            mirrored = (torch.rand(len(chosen), generator=drawn) < 0.5)[:, None, None, None]
            parts = (inputs[chosen], examples.originals[chosen])
            first, second = (torch.where(mirrored, part.flip(-1), part) for part in parts)
            return first, second

        originals = examples.originals
        lesson = Lesson(
            batch,
            (inputs[kept], originals[kept]),
            seed,
            self._recipe(inputs, originals),
            weight=lambda data: data[:, 3:4],
        )
        network, history = train(
            self._network(inputs[learned], seed),
            lesson,
            self._training(),
            checkpoint=checkpoint,
            on_step=on_step,
        )
        return FittedDeblur(network, self.side, examples.fill, history)

    def _split(self, examples: Examples, seed: int) -> tuple[Tensor, Tensor]:
        """Return which regions are learned from and which kept aside; a picture's stay together."""
        there = torch.tensor(sorted(set(examples.pictures.tolist())))
        _, aside = split(len(there), seed)
        kept = torch.isin(examples.pictures, there[aside])
        return (~kept).nonzero()[:, 0], kept.nonzero()[:, 0]

    def _network(self, inputs: Tensor, seed: int) -> nn.Module:
        cells = self.side // _CELL
        geometry = Geometry(4, _CELL, _CELL, cells, cells, self.side, self.side)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_inverter(
                "conv", geometry, inputs[:256], None, width=self.width, depth=self.depth
            )

    def _training(self) -> Training:
        return Training(
            self.steps,
            self.batch_size,
            self.learning_rate,
            sobel_weight=self.sobel_weight,
            device=self.device,
        )

    def _recipe(self, *tensors: Tensor) -> str:
        settings = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in {"steps", "device"}
        }
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.contiguous().numpy().tobytes())
        return f"Deblur {settings} {digest.hexdigest()}"


@dataclass(frozen=True, eq=False)
class FittedDeblur:
    """A trained network as an attack that needs nothing but the release.

    Args:
        network: From ``(B, 4, S, S)``, region with margin and mask, to ``(B, 3, S, S)``.
        side: ``S``.
        fill: Name of the fill it learned to undo.
        history: The curve over training budgets, from the painted region on.
    """

    network: nn.Module
    side: int
    fill: str
    history: tuple[Point, ...]

    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures must know, in sentences."""
        notes = []
        if reads_nothing(self.fill):
            notes.append(
                f"fill {self.fill!r} reads nothing of the region: the guess is what surroundings "
                "and auxiliary pictures suggest"
            )
        if not has_flattened(self.history):
            notes.append(
                "training had not flattened: the last quarter still gained "
                f"{late_gain(self.history):.1%} of the painted region's loss"
            )
        return tuple(notes)

    @torch.no_grad()
    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the regions; see :class:`~scotoma.core.protocols.Attack`."""
        boxes = read_boxes(release)
        if fill_of(release) != self.fill:
            raise NotApplicableError(
                f"expected a release painted by {self.fill!r}, as learned from, got "
                f"{fill_of(release)!r}; fit on that fill"
            )
        data = release.data.float()
        inputs = _with_mask(cut(data, boxes, self.side, _MARGIN))
        crops = torch.cat([self.network(part) for part in torch.split(inputs, _BATCH)])
        return paste(data, boxes, crops, _MARGIN)


def _with_mask(crops: Tensor) -> Tensor:
    """Return ``(N, 4, S, S)``: crops, and ones where the region is, zeros in the margin."""
    side = crops.shape[-1]
    edge = side * _MARGIN / (1 + 2 * _MARGIN)
    places = torch.arange(side) + 0.5
    inside = ((places > edge) & (places < side - edge)).float()
    mask = inside[:, None] * inside[None]
    return torch.cat([crops, mask.expand(len(crops), 1, -1, -1)], 1)
