"""What a model still says of releases, how fast, and how large they are."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from scotoma.core.errors import ModelError, ScotomaError, SettingsError
from scotoma.core.keys import Key
from scotoma.core.protocols import Protection, Release
from scotoma.evaluate.encoded import Encoded
from scotoma.evaluate.groups import drop_untouched, regroup
from scotoma.evaluate.intervals import mean_interval, wilson_interval
from scotoma.evaluate.reading import normalize
from scotoma.evaluate.records import Choice, Figure, Paper, Record
from scotoma.evaluate.subjects import describe
from scotoma.evaluate.threat_models import draw_key
from scotoma.images.ciphertext import encode_release
from scotoma.models.classifier import Classifier
from scotoma.ops.generators import seeded_generator

__all__ = ["evaluate_utility"]

_BATCH = 16


def evaluate_utility(
    protection: Protection,
    model: Classifier,
    images: Tensor | Iterable[Tensor | tuple[Tensor, Tensor]],
    *,
    pictures_per_key: int,
    seed: int = 0,
    data: str = "pictures",
    chosen: Choice | None = None,
    paper: Mapping[str, Paper] | None = None,
) -> Record:
    """Compare a model on pictures with the adapted model on their releases.

    Args:
        protection: Takes pictures in [0, 1].
        model: Reads pictures; what ``protection.adapt`` makes of it reads releases.
        images: As for :func:`.loop.evaluate`; labels are the model's classes.
        pictures_per_key: Pictures in one release.
        seed: Of keys and fresh randomness.
        data: Name of the pictures, for the record.
        chosen: Name and settings of the protection, for the record.
        paper: Published figures, by metric.

    Returns:
        A record of ``agreement``, ``decision_changes``, ``logit_error`` (largest difference as
        a share of the largest logit), ``top1`` and ``top5`` where labels are known, each also
        ``_plain``; ``protect_ms``, ``latency_ms`` and ``latency_plain_ms`` per picture;
        ``bits_per_pixel`` as written.
    """
    blank = Record(
        kind="utility",
        protection=chosen or describe(protection),
        attack=None,
        threat_model="",
        model=model.spec,
        data=data,
        n=0,
        seed=seed,
        pictures_per_key=pictures_per_key,
        paper=dict(paper or {}),
    )
    begun = time.perf_counter()
    try:
        found = _Utility(protection, model, seed)
        for group in regroup(images, pictures_per_key):
            found.add(group.images, group.labels)
        record = replace(
            blank, n=found.n, keys=found.keys, metrics=found.figures(), notes=found.notes()
        )
    except ModelError as error:
        record = replace(blank, status="not-applicable", reason=str(error))
    except ScotomaError as error:
        record = replace(blank, status="failed", reason=str(error))
    except Exception as error:  # a plugin's own bug costs its cell, not the table
        record = replace(blank, status="failed", reason=f"{type(error).__name__}: {error}")
    return replace(record, seconds=round(time.perf_counter() - begun, 2))


@dataclass
class _Utility:
    """Counts over groups of one key."""

    protection: Protection
    model: Classifier
    seed: int
    n: int = 0
    keys: int = 0
    skipped: int = 0
    counts: dict[str, list[bool]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Protect pictures under one key and ask both models."""
        own = copy.deepcopy(self.protection) if self.protection.keyed else self.protection
        key = draw_key(self._generator("key")) if own.keyed else None
        begun = time.perf_counter()
        release = own.protect(images, key, generator=self._generator("protect"))
        seconds = time.perf_counter() - begun
        # The first key's time has the derivation of its maps in it, as every other has.
        self._value("protect_ms", 1000 * seconds / len(images), len(images))
        images, labels, release = self._kept(images, labels, release)
        if len(images) == 0:
            return
        adapted = own.adapt(self._network(), key)
        plain, plain_ms = _ask(self._network(), normalize(images, self.model.preprocessing))
        after, after_ms = _ask(adapted, release.data)
        self._compare(plain, after, labels)
        self._value("latency_plain_ms", plain_ms, len(images))
        self._value("latency_ms", after_ms, len(images))
        bits = _written_bits(own, release, key) / (len(images) * images.shape[2] * images.shape[3])
        self._value("bits_per_pixel", bits, len(images))
        self.n += len(images)
        self.keys += 1

    def figures(self) -> dict[str, Figure]:
        """Return rates with Wilson's intervals, and means with theirs."""
        if self.n == 0:
            raise SettingsError("expected pictures that the protection protects, got none")
        made = {}
        for name, hits in self.counts.items():
            low, high = wilson_interval(sum(hits), len(hits)) or (math.nan, math.nan)
            made[name] = Figure(sum(hits) / len(hits), low, high, len(hits))
        for name, values in self.values.items():
            mean, low, high = mean_interval(values)
            unit = "ms" if name.endswith("_ms") else "bit" if name == "bits_per_pixel" else ""
            if name == "logit_error":
                mean, low, high = max(values), max(values), max(values)
            made[name] = Figure(mean, low, high, len(values), unit)
        return made

    def notes(self) -> tuple[str, ...]:
        """Return what a reader must know."""
        if not self.skipped:
            return ()
        return (f"{self.skipped} pictures without a region are not released and not judged",)

    def _compare(self, plain: Tensor, after: Tensor, labels: Tensor) -> None:
        if plain.shape != after.shape:
            raise ModelError(f"expected logits {tuple(plain.shape)}, got {tuple(after.shape)}")
        same = plain.argmax(1) == after.argmax(1)
        self._count("agreement", same)
        self._count("decision_changes", ~same)
        scale = plain.abs().amax().clamp(min=1e-12)
        self.values.setdefault("logit_error", []).extend(
            ((plain - after).abs().amax(1) / scale).tolist()
        )
        known = labels >= 0
        for name, logits in (("_plain", plain), ("", after)):
            best = logits[known].topk(min(5, logits.shape[1]), 1).indices
            hits = best == labels[known, None]
            self._count(f"top1{name}", hits[:, 0])
            if logits.shape[1] > 5:
                self._count(f"top5{name}", hits.any(1))

    def _kept(
        self, images: Tensor, labels: Tensor, release: Release
    ) -> tuple[Tensor, Tensor, Release]:
        from scotoma.evaluate.groups import Group

        kept = drop_untouched(Group(images, labels), release)
        self.skipped += len(images) - len(kept[0])
        return kept

    def _count(self, name: str, hits: Tensor) -> None:
        if len(hits):
            self.counts.setdefault(name, []).extend(hits.tolist())

    def _value(self, name: str, value: float, count: int) -> None:
        self.values.setdefault(name, []).extend([value] * count)

    def _network(self) -> Any:
        network = self.model.network
        return copy.deepcopy(network) if isinstance(network, nn.Module) else network

    def _generator(self, purpose: str) -> torch.Generator:
        return seeded_generator(f"evaluate/{self.seed}/{purpose}/{self.keys}".encode())


def _ask(network: Any, inputs: Tensor) -> tuple[Tensor, float]:
    """Return ``(B, K)`` logits, and milliseconds per picture."""
    begun = time.perf_counter()
    with torch.no_grad():
        parts = [network(part.contiguous()).float().cpu() for part in torch.split(inputs, _BATCH)]
    seconds = time.perf_counter() - begun
    return torch.cat(parts), 1000 * seconds / len(inputs)


def _written_bits(protection: Protection, release: Release, key: Key | None) -> int:
    """Return the size of a release as the package writes it."""
    if isinstance(protection, Encoded):
        return protection.written_bits(release)
    if release.metadata.get("mean") is None and release.data.shape[1] == 3 and key is None:
        total = 0
        for picture in (release.data.clamp(0, 1) * 255).round().to(torch.uint8):
            buffer = BytesIO()
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "png")
            total += 8 * buffer.tell()
        return total
    return 8 * len(encode_release(release, key=key))
