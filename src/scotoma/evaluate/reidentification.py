"""Who is it? A face embedder matches guesses to a gallery of known people.

Two protocols, which answer different questions:

``same-picture``
    The gallery is the very pictures that were protected. Whoever holds the originals links
    releases to them: the worst case, and no sign that a person can be recognized.
``other-picture``
    The gallery is other pictures of the same people; a guess's own original is not among
    them. This is recognizing a person.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from scotoma.core.errors import ModelError, SettingsError
from scotoma.evaluate.intervals import wilson_interval
from scotoma.evaluate.records import Figure
from scotoma.models.onnx_scores import OnnxNetwork

__all__ = ["PROTOCOLS", "Embedder", "Reidentification", "load_embedder", "pair_auc", "rank_one"]

PROTOCOLS = ("other-picture", "same-picture")
"""Which gallery guesses are compared with."""

_BATCH = 64
_MEAN, _STD = 127.5 / 255, 128 / 255  # of InsightFace's and MobileFaceNet's inputs
_RESAMPLES = 2000
_PREFIX = {"other-picture": "reid", "same-picture": "linkage"}


@dataclass(frozen=True, eq=False)
class Embedder:
    """A network that tells faces apart: ``(B, 3, H, W)`` in [0, 1] to unit vectors.

    Args:
        network: Embeds normalized pictures.
        size: Height and width that it reads, in pixels.
        mean: Of each channel.
        std: Of each channel.
    """

    network: OnnxNetwork
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """Return ``(B, D)`` float64 embeddings of length 1 of faces that fill their pictures."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        parts = []
        for batch in torch.split(images, _BATCH):
            resized = F.interpolate(
                batch.float(), self.size, mode="bilinear", align_corners=False, antialias=True
            )
            parts.append(self.network((resized.clamp(0, 1) - mean) / std).double().flatten(1))
        return F.normalize(torch.cat(parts), dim=1)


def load_embedder(spec: str, config: Mapping[str, Any] | None = None) -> Embedder:
    """Load a face embedder.

    Args:
        spec: ``onnx:FILE``.
        config: ``input_size`` (C, H, W), ``mean`` and ``std``; by default the JSON beside the
            file, else the size that the graph fixes and ``(value - 127.5) / 128``, which
            MobileFaceNet and InsightFace's networks read.

    Raises:
        SettingsError: Another SPEC.
        ModelError: No such file, no ONNX model, or nothing says its input size.
    """
    kind, _, target = spec.partition(":")
    if kind != "onnx" or not target:
        raise SettingsError(f"expected a face embedder as onnx:FILE, got {spec!r}")
    path = Path(target).expanduser()
    if not path.is_file():
        raise ModelError(f"expected a face embedder at {path}, found no such file")
    network = OnnxNetwork(path)
    found = dict(_beside(path) if config is None else config)
    size = found.get("input_size", network.input_size)
    if size is None or len(size) != 3 or size[0] != 3:
        raise ModelError(
            f"expected the input size (3, H, W) of {path}, got {size}; name input_size in "
            f"{path.with_suffix('.json').name} beside it"
        )
    mean, std = (
        tuple(float(value) for value in found.get(name, [default] * 3))
        for name, default in (("mean", _MEAN), ("std", _STD))
    )
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise ModelError(f"expected mean and std of three channels for {path}, got {mean}, {std}")
    return Embedder(network, (int(size[1]), int(size[2])), mean, std)


@dataclass
class Reidentification:
    """Judges all guesses of a cell together; see :class:`.judge.SetJudge`.

    Args:
        embedder: Tells faces apart.
        protocols: Out of :data:`PROTOCOLS`.
        gallery: ``(pictures, identities)`` that serve as other pictures; by default the
            originals of all other guesses.
        seed: Of the intervals' resampling.

    Raises:
        SettingsError: An unknown protocol.
    """

    embedder: Embedder
    protocols: tuple[str, ...] = PROTOCOLS
    gallery: tuple[Tensor, Tensor] | None = None
    seed: int = 0
    _guesses: list[Tensor] = field(default_factory=list, repr=False)
    _originals: list[Tensor] = field(default_factory=list, repr=False)
    _labels: list[Tensor] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        for protocol in self.protocols:
            if protocol not in PROTOCOLS:
                raise SettingsError(f"expected a protocol out of {PROTOCOLS}, got {protocol!r}")

    def add(self, guesses: Tensor, originals: Tensor, labels: Tensor) -> None:
        """Embed the guesses of some pictures; only embeddings are kept.

        Args:
            guesses: ``(B, 3, H, W)`` in [0, 1].
            originals: The same of the pictures.
            labels: ``(B,)`` who it is; pictures of unknown people (-1) are left out.
        """
        known = labels >= 0
        if bool(known.any()):
            self._guesses.append(self.embedder(guesses[known]))
            self._originals.append(self.embedder(originals[known]))
            self._labels.append(labels[known])

    def figures(self) -> dict[str, Figure]:
        """Return rank-1 and AUC of each protocol.

        ``reid_rank1`` and ``auc_reid`` of other pictures, ``linkage_rank1`` and ``auc_linkage``
        of the same ones; beside each rank-1 what chance gives, ``chance_...``: the mean share of
        a guess's gallery that shows the right person. Chance of an AUC is 0.5.
        """
        if not self._labels:
            return {}
        guesses, originals = torch.cat(self._guesses), torch.cat(self._originals)
        labels = torch.cat(self._labels)
        made: dict[str, Figure] = {}
        for protocol in self.protocols:
            vectors, people = originals, labels
            allowed = torch.ones(len(labels), len(labels), dtype=torch.bool)
            if protocol == "other-picture":
                if self.gallery is None:
                    allowed.fill_diagonal_(False)
                else:
                    vectors, people = self.embedder(self.gallery[0]), self.gallery[1]
                    allowed = torch.ones(len(labels), len(people), dtype=torch.bool)
            made |= self._figures_of(
                _PREFIX[protocol], guesses @ vectors.T, labels[:, None] == people[None], allowed
            )
        return made

    def _figures_of(
        self, prefix: str, scores: Tensor, same: Tensor, allowed: Tensor
    ) -> dict[str, Figure]:
        labels = torch.cat(self._labels)
        hits = rank_one(scores, same, allowed)
        if len(hits) == 0:
            return {}
        n, right = len(hits), int(hits.sum())
        low, high = wilson_interval(right, n) or (math.nan, math.nan)
        # Of the guesses that can be right at all: their person is in the gallery.
        counts = (same & allowed).sum(1)
        chance = float((counts / allowed.sum(1))[counts > 0].mean())
        auc, auc_low, auc_high = pair_auc(
            scores.numpy(), same.numpy(), allowed.numpy(), labels.numpy(), seed=self.seed
        )
        return {
            f"{prefix}_rank1": Figure(right / n, low, high, n),
            f"chance_{prefix}_rank1": Figure(chance, chance, chance, n),
            f"auc_{prefix}": Figure(auc, auc_low, auc_high, n),
        }


def rank_one(scores: Tensor, same: Tensor, allowed: Tensor) -> Tensor:
    """Return for each guess whether the best match is of the same person.

    Args:
        scores: ``(N, G)`` likeness of guesses and gallery.
        same: ``(N, G)`` whether they show the same person.
        allowed: ``(N, G)`` whether that picture is in that guess's gallery.

    Returns:
        ``(M,)`` bool of the guesses whose person is in their gallery at all.
    """
    possible = (same & allowed).any(1)
    best = scores.masked_fill(~allowed, -torch.inf).argmax(1)
    hits: Tensor = same.gather(1, best[:, None])[:, 0]
    return hits[possible]


def pair_auc(
    scores: NDArray[np.float64],
    same: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
    people: NDArray[np.int64],
    *,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return how often a pair of one person scores above a pair of two, ties half.

    The interval resamples people, not pairs: pairs that share a person are not independent.

    Args:
        scores: ``(N, G)``.
        same: ``(N, G)``.
        allowed: ``(N, G)`` pairs that count.
        people: ``(N,)`` who each guess shows.
        seed: Of the resampling.

    Returns:
        AUC and the ends of its 95 % interval (bootstrap percentiles); NaN without both kinds of
        pairs.
    """
    _, person = np.unique(people, return_inverse=True)
    count = int(person.max()) + 1
    alike, unlike = same & allowed, ~same & allowed
    owners = np.broadcast_to(person[:, None], scores.shape)[alike]
    values = scores[alike]
    # wins[a, b]: of pairs of person a's guesses over the false pairs of person b's guesses.
    wins = np.zeros((count, count))
    for other in range(count):
        false = np.sort(scores[person == other][unlike[person == other]])
        above = np.searchsorted(false, values, "left") + np.searchsorted(false, values, "right")
        wins[:, other] = np.bincount(owners, above / 2, minlength=count)
    pairs = [np.bincount(person, kind.sum(1), minlength=count) for kind in (alike, unlike)]
    if not all(kind.sum() > 0 for kind in pairs):
        return math.nan, math.nan, math.nan
    auc = float(wins.sum() / (pairs[0].sum() * pairs[1].sum()))
    if count < 2:
        return auc, math.nan, math.nan
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=_RESAMPLES)
    weights = drawn.astype(np.float64)
    totals = (weights @ pairs[0]) * (weights @ pairs[1])
    found = ((weights @ wins) * weights).sum(1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(found, [0.025, 0.975])
    return auc, float(low), float(high)


def _beside(path: Path) -> Mapping[str, Any]:
    place = path.with_suffix(".json")
    if not place.is_file():
        return {}
    try:
        found = json.loads(place.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"expected JSON in {place}, got: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"expected an object in {place}, got {type(found).__name__}")
    return found
