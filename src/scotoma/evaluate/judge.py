"""Guesses against originals: the one place that sees both.

Per picture and metric one number is kept, so memory does not grow with the pictures'
size. What is judged of an anonymized picture is its private regions, enlarged to the
picture's size: the rest is visible anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from scotoma.core.errors import ImageError, NotApplicableError
from scotoma.core.protocols import Release
from scotoma.evaluate.intervals import mean_interval
from scotoma.evaluate.metrics.brightness import signed_block_brightness_correlation
from scotoma.evaluate.metrics.registry import MEASURES, metrics
from scotoma.evaluate.records import Figure

__all__ = [
    "Judge",
    "SetJudge",
    "best_candidate",
    "check_guesses",
    "context_of",
    "is_stronger",
    "private_view",
    "strongest",
]

_ALIKE = 1e-3


class SetJudge(Protocol):
    """Judges all guesses together, as re-identification does."""

    def add(self, guesses: Tensor, originals: Tensor, labels: Tensor) -> None:
        """Take the guesses of some pictures, ``(B, 3, H, W)``, and their labels ``(B,)``."""

    def figures(self) -> Mapping[str, Figure]:
        """Return what all of them come to."""


@dataclass
class Judge:
    """Collects one number per picture and metric.

    Args:
        names: Of metrics in the registry.
        sets: Judges of all guesses together.
        unmeasured: Why a metric says nothing of these pictures, by name.
    """

    names: Sequence[str]
    sets: Sequence[SetJudge] = ()
    unmeasured: dict[str, str] = field(default_factory=dict)
    _values: dict[str, list[float]] = field(default_factory=dict, repr=False)

    def add(
        self, guesses: Tensor, originals: Tensor, labels: Tensor, context: Mapping[str, Any]
    ) -> None:
        """Judge the guesses of one release.

        Args:
            guesses: ``(B, 3, H, W)`` float32 in [0, 1].
            originals: The same of the pictures.
            labels: ``(B,)`` int64, -1 where unknown.
            context: What metrics may know of the release.
        """
        for name in self.names:
            try:
                found = metrics.get(name).function(guesses, originals, context)
            except NotApplicableError as error:
                self.unmeasured[name] = str(error)
                continue
            self._values.setdefault(name, []).extend(found.double().tolist())
        for judge in self.sets:
            judge.add(guesses, originals, labels)

    def figures(self) -> dict[str, Figure]:
        """Return the mean of every metric with its 95 % interval, and what the sets say."""
        made = {}
        for name, values in self._values.items():
            mean, low, high = mean_interval(values)
            made[name] = Figure(mean, low, high, len(values), metrics.get(name).unit)
        for judge in self.sets:
            made.update(judge.figures())
        return made


def check_guesses(guesses: Tensor, originals: Tensor) -> Tensor:
    """Return guesses as candidates ``(K, B, 3, H, W)``.

    Raises:
        ImageError: Another shape or type, values outside [0, 1] or not finite.
    """
    shape = tuple(originals.shape)
    if not isinstance(guesses, Tensor) or tuple(guesses.shape[-4:]) != shape:
        got = tuple(guesses.shape) if isinstance(guesses, Tensor) else type(guesses).__name__
        raise ImageError(f"expected guesses {shape} or (K, {str(shape)[1:]}, got {got}")
    if guesses.ndim not in (4, 5) or guesses.numel() == 0:
        raise ImageError(f"expected guesses {shape} or (K, {str(shape)[1:]}, got {guesses.ndim}-d")
    if guesses.dtype != torch.float32:
        raise ImageError(f"expected float32 guesses, got {guesses.dtype}")
    if not bool(((guesses >= 0) & (guesses <= 1)).all()):
        raise ImageError("expected finite guesses in [0, 1], got values outside; clip them")
    return guesses if guesses.ndim == 5 else guesses[None]


def best_candidate(
    candidates: Iterable[Tensor], originals: Tensor, context: Mapping[str, Any]
) -> int:
    """Return the number of the candidate that shows most of the whole release.

    It is the one with the largest mean absolute block-brightness correlation; of two alike,
    as a picture and its negative are, the one of the larger correlation.

    Args:
        candidates: Each ``(B, 3, H, W)``; one is looked at at a time.
        originals: ``(B, 3, H, W)``.
        context: As for :meth:`Judge.add`.
    """
    judge = signed_block_brightness_correlation
    signed = torch.stack([judge(one, originals, context) for one in candidates])
    strength = signed.abs().mean(1)
    alike = strength >= strength.max() - _ALIKE
    return int(torch.where(alike, signed.mean(1), -torch.inf).argmax())


def private_view(images: Tensor, release: Release) -> Tensor:
    """Return what of pictures the release hides: all, or the box around its regions.

    Args:
        images: ``(B, 3, H, W)``.
        release: Made of these pictures.

    Returns:
        ``(B, 3, H, W)``, boxes enlarged to the picture's size.
    """
    regions = release.metadata.get("regions")
    if regions is None:
        return images
    size = images.shape[2:]
    parts = []
    for picture, boxes in zip(images, regions, strict=True):
        left, top = (min(box[side] for box in boxes) for side in (0, 1))
        right, bottom = (max(box[side] for box in boxes) for side in (2, 3))
        part = picture[None, :, top:bottom, left:right]
        parts.append(F.interpolate(part, size, mode="bilinear", align_corners=False))
    return torch.cat(parts).clamp(0, 1)


def context_of(release: Release) -> dict[str, Any]:
    """Return what metrics may know: the release's metadata, and its block side if it has one."""
    settings = release.metadata.get("settings") or {}
    return {"metadata": release.metadata, "block": settings.get("block")}


def strongest(found: Sequence[Mapping[str, Figure]]) -> dict[str, Figure]:
    """Return for each metric the figure that gives most away."""
    best: dict[str, Figure] = {}
    for figures in found:
        for name, figure in figures.items():
            if name not in best or is_stronger(name, figure.value, best[name].value):
                best[name] = figure
    return best


def is_stronger(name: str, value: float, other: float) -> bool:
    """Whether a value of a metric gives more away than another; NaN never does."""
    if math.isnan(other) or math.isnan(value):
        return math.isnan(other) and not math.isnan(value)
    known = metrics.get(name) if name in metrics.names() else MEASURES.get(name)
    is_lower = known is not None and known.better == "lower"
    return value < other if is_lower else value > other
