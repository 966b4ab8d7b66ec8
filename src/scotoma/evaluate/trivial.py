"""Guesses that need no attack: what every result is compared with.

The mean of the attacker's own pictures minimizes the error of a guess that knows nothing;
any other natural picture has about as much structure as the right one, which is what chance
gives where correlations and similarities are measured. Where a release is itself a picture,
it is the guess that asks for no work at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from scotoma.core.protocols import Release
from scotoma.evaluate.judge import Judge, best_candidate, private_view
from scotoma.evaluate.records import Figure
from scotoma.ops.generators import seeded_generator

__all__ = ["Trivial"]

_GREY = 0.5
_MOST = 64


class Trivial:
    """Judges the trivial guesses beside an attack.

    Args:
        auxiliary: ``(N, 3, H, W)`` pictures; None leaves grey as the one guess.
        make: Makes a judge like the attack's.
        seed: Of the random pictures.
    """

    def __init__(self, auxiliary: Tensor | None, make: Callable[[], Judge], seed: int) -> None:
        self._auxiliary = auxiliary
        self._mean = None if auxiliary is None else auxiliary.mean(0)
        self._make = make
        self._judges: dict[str, Judge] = {}
        self._generator = seeded_generator(f"evaluate/{seed}/trivial".encode())

    def add(
        self,
        shown: Tensor,
        labels: Tensor,
        release: Release,
        context: Mapping[str, Any],
        *,
        candidates: int,
    ) -> None:
        """Judge the trivial guesses of one release.

        Args:
            shown: ``(B, 3, H, W)`` what the release hides.
            labels: ``(B,)``.
            release: What the attack saw.
            context: For metrics.
            candidates: Of the attack: chance gets as many guesses, and the same oracle.
        """
        shape = shown.shape
        if self._mean is None or self._auxiliary is None:
            self._judge("mean", torch.full_like(shown, _GREY), shown, labels, context)
        else:
            mean = self._mean.expand(shape)
            self._judge("mean", private_view(mean, release), shown, labels, context)
            draws = (min(candidates, _MOST), shape[0])
            places = torch.randint(len(self._auxiliary), draws, generator=self._generator)
            pictures = self._auxiliary
            drawn = (private_view(pictures[row], release) for row in places)
            place = best_candidate(drawn, shown, context) if candidates > 1 else 0
            chance = private_view(pictures[places[place]], release)
            self._judge("chance", chance, shown, labels, context)
        if release.metadata.get("regions") is not None:
            seen = private_view(release.data.clamp(0, 1), release)
            self._judge("release", seen, shown, labels, context)

    def figures(self) -> list[dict[str, Figure]]:
        """Return the figures of each trivial guess."""
        return [judge.figures() for judge in self._judges.values()]

    def _judge(
        self,
        name: str,
        guesses: Tensor,
        shown: Tensor,
        labels: Tensor,
        context: Mapping[str, Any],
    ) -> None:
        if name not in self._judges:
            self._judges[name] = self._make()
        self._judges[name].add(guesses, shown, labels, context)
