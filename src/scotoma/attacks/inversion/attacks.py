"""Learned inversion: a network is trained to rebuild pictures from releases.

Three ways to come by what it learns from, two networks::

    known pairs    pictures with their releases under the attacked key   (insider)
    chosen         auxiliary pictures through the oracle of that key     (chosen plaintext)
    other key      auxiliary pictures under keys of the attacker's own   (ciphertext only)

The last is what the literature calls an inverse transformation network. Where there is no key,
the attacker's own releases are as good as the owner's.
"""

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
from scotoma.attacks.inversion.sources import Source, open_source
from scotoma.attacks.inversion.training import Lesson, Training, train
from scotoma.core.errors import NotApplicableError, SettingsError
from scotoma.core.protocols import Knowledge, Release

__all__ = [
    "ChosenConvInversion",
    "ChosenTransformerInversion",
    "ConvInversion",
    "FeatureConvInversion",
    "FeatureTransformerInversion",
    "FittedInversion",
    "OtherKeyConvInversion",
    "OtherKeyTransformerInversion",
    "TransformerInversion",
]

_MOST_SAMPLED = 2**23
_BATCH = 32


@dataclass(frozen=True)
class _Inversion:
    """A network trained to rebuild pictures from releases.

    Args:
        steps: Batches in all; the budget.
        batch_size: Pictures in each.
        width: Channels of the network; 0 chooses by the size of a block.
        depth: Residual blocks of the network.
        learning_rate: Of AdamW.
        sobel_weight: Of edges in the loss; 0 for L1 alone.
        device: Of torch, for training.

    Raises:
        SettingsError: A value out of range.
    """

    steps: int = 1000
    batch_size: int = _BATCH
    width: int = 0
    depth: int = 4
    learning_rate: float = 2e-3
    sobel_weight: float = 0.0
    device: str = "cpu"

    needs: ClassVar[frozenset[str]]
    _architecture: ClassVar[str]
    _way: ClassVar[str]
    _squared: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.depth >= 1 and self.width >= 0 and self.width % 32 == 0):
            raise SettingsError(
                "expected a depth of at least 1 and a width of 0 or whole 32s, got "
                f"{self.depth} and {self.width}"
            )
        self._training()

    def fit(
        self,
        knowledge: Knowledge,
        *,
        generator: Generator,
        checkpoint: Path | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> FittedInversion:
        """Train; see :class:`~scotoma.core.protocols.TrainableAttack`.

        A tenth of the pictures, at most 256, are kept aside for the curve and to choose the
        best weights.

        Raises:
            NotGrantedError: What it learns from is not granted.
            NotApplicableError: The release is no whole number of blocks, there are fewer than
                two pictures, or an oracle is to be asked where there is no key.
            SettingsError: The checkpoint is another run's, or the loss is not finite.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        source = open_source(knowledge, self._way, seed=seed, most_sampled=_MOST_SAMPLED)
        if self._way == "protect" and source.example.metadata.get("key_id") is None:
            raise NotApplicableError(
                "expected an oracle that holds a key, got a protection without one; the attacks "
                "that learn from releases of their own learn the same"
            )
        geometry = Geometry.of_release(source.example)
        lesson = Lesson(
            lambda drawn: source.batch(drawn, self.batch_size),
            source.kept,
            seed,
            self._recipe(geometry, source),
        )
        network, history = train(
            self._network(geometry, source, seed),
            lesson,
            self._training(),
            checkpoint=checkpoint,
            on_step=on_step,
        )
        return FittedInversion(network, geometry, history, self.batch_size)

    def _network(self, geometry: Geometry, source: Source, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_inverter(
                self._architecture,
                geometry,
                source.sample,
                source.originals.mean(0),
                width=self.width,
                depth=self.depth,
                # Without a key the attacker's own releases are like the owner's.
                other_key=self._way == "simulate"
                and source.example.metadata.get("key_id") is not None,
            )

    def _training(self) -> Training:
        return Training(
            self.steps,
            self.batch_size,
            self.learning_rate,
            sobel_weight=self.sobel_weight,
            device=self.device,
            squared=self._squared,
        )

    def _recipe(self, geometry: Geometry, source: Source) -> str:
        settings = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in {"steps", "device"}
        }
        inputs, originals = source.kept
        # An oracle may draw anew for every answer: of those only the questions are compared.
        answers = () if self._way == "protect" else (inputs,)
        digest = hashlib.sha256()
        for tensor in (*answers, originals, source.originals.mean(0)):
            digest.update(tensor.contiguous().numpy().tobytes())
        return f"{type(self).__name__} {settings} {geometry} {digest.hexdigest()}"


@dataclass(frozen=True, eq=False)
class FittedInversion:
    """A trained network as an attack that needs nothing but the release.

    Args:
        network: From ``(B, C, h, w)`` to ``(B, 3, H, W)``, on the CPU.
        geometry: Of the releases it reads.
        history: The curve over training budgets, from the mean picture on.
        batch_size: Pictures at once.
    """

    network: nn.Module
    geometry: Geometry
    history: tuple[Point, ...]
    batch_size: int = _BATCH

    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures must know, in sentences."""
        notes = []
        if not has_flattened(self.history):
            share = late_gain(self.history)
            notes.append(
                "training had not flattened: the last quarter still gained "
                f"{share:.1%} of the mean picture's loss"
            )
        if min(self.history, key=lambda point: point.loss).step == 0:
            notes.append("training found nothing better than the mean picture")
        return tuple(notes)

    @torch.no_grad()
    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`."""
        found = Geometry.of_release(release)
        if found != self.geometry:
            raise NotApplicableError(
                f"expected a release like those learned from, {self.geometry}, got {found}"
            )
        parts = torch.split(release.data.float(), self.batch_size)
        return torch.cat([self.network(part).clamp(0, 1) for part in parts])


class ConvInversion(_Inversion):
    """Convolutions over the grid of blocks, learned from known pairs under the attacked key."""

    needs = frozenset({"pairs"})
    _architecture = "conv"
    _way = "pairs"


class TransformerInversion(_Inversion):
    """Attention over blocks as tokens, learned from known pairs under the attacked key."""

    needs = frozenset({"pairs"})
    _architecture = "transformer"
    _way = "pairs"


class ChosenConvInversion(_Inversion):
    """Convolutions, learned from auxiliary pictures that the attacked key's oracle encrypts."""

    needs = frozenset({"protect", "auxiliary"})
    _architecture = "conv"
    _way = "protect"


class ChosenTransformerInversion(_Inversion):
    """Attention, learned from auxiliary pictures that the attacked key's oracle encrypts."""

    needs = frozenset({"protect", "auxiliary"})
    _architecture = "transformer"
    _way = "protect"


class OtherKeyConvInversion(_Inversion):
    """Convolutions, learned from releases under keys of the attacker's own (ITN)."""

    needs = frozenset({"simulate", "auxiliary"})
    _architecture = "conv"
    _way = "simulate"


class OtherKeyTransformerInversion(_Inversion):
    """Attention, learned from releases under keys of the attacker's own (ITN)."""

    needs = frozenset({"simulate", "auxiliary"})
    _architecture = "transformer"
    _way = "simulate"


class FeatureConvInversion(OtherKeyConvInversion):
    """Convolutions by squared errors, from features of the attacker's own pictures.

    What a split network sends has no key: the attacker makes as many pairs as of own pictures,
    mirrored too, and squared errors are what PSNR counts.
    """

    _squared = True


class FeatureTransformerInversion(OtherKeyTransformerInversion):
    """Attention by squared errors, from features of the attacker's own pictures."""

    _squared = True
