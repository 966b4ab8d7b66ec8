"""What decides where a search without gradients looks next.

::

    Guide        ask() ──► (n, D) points ──► the classifiers' scores ──► tell()
     ├── LinearGuide       learns how all scores follow the numbers (:mod:`.score_model`)
     └── OptimizerGuide    any method of scotoma.optimize, told one value for each point
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scotoma.optimize.bounds import Bounds
from scotoma.optimize.search import Search
from scotoma.protections.anonymize.score_model import ScoreModel

__all__ = ["Guide", "LinearGuide", "OptimizerGuide"]

Points = NDArray[np.float64]

_SPREAD = 0.05  # logits per 255th, of a score's slope along one number
_NOISE = 0.5  # logits that a linear model does not explain
_FIRST, _LEAST, _MOST = 40.0, 6.0, 120.0  # length of a move, in 255ths
_WIDEN, _NARROW = 1.3, 0.7
_FORGET = 0.02


class Guide(Protocol):
    """Decides which points are asked about."""

    def ask(self) -> Points:
        """Return ``(n, D)`` points, none when there is nothing more to try."""

    def tell(self, scores: Sequence[Tensor], slacks: NDArray[np.float64]) -> None:
        """Take the answers to the last points.

        Args:
            scores: One ``(n, K)`` per classifier.
            slacks: ``(n,)`` how far the decisions are from being lost; negative where one is.
        """


class LinearGuide:
    """Climbs a linear model of the scores within a trusted distance, and learns from each look.

    Some moves believe the model as it is, at three lengths; the others believe slopes that are
    still possible. The best point, if better than where it stands, is where it goes on.

    Args:
        weights: ``(D,)`` how much each number is expected to matter.
        scores: At the start, one ``(K,)`` per classifier.
        slack: There.
        loss: From a classifier's number and ``(n, K)`` scores to ``(n,)`` losses.
        batch: Points of one ask, from 4.
        seed: Of what is drawn.
    """

    def __init__(
        self,
        weights: NDArray[np.float64],
        scores: Sequence[Tensor],
        slack: float,
        loss: Callable[[int, Tensor], Tensor],
        *,
        batch: int,
        seed: int,
    ) -> None:
        self._model = ScoreModel(_SPREAD * weights, [len(part) for part in scores], noise=_NOISE)
        self._generator = np.random.default_rng(seed)
        self._batch = batch
        self._loss = loss
        self._place = np.zeros(len(weights))
        self._scores, self._slack = list(scores), slack
        self._length = _FIRST
        self._moves = np.zeros((0, len(weights)))

    def ask(self) -> Points:
        """Return ``(batch, D)`` points around the best so far."""
        radii = np.full(self._batch, self._length)
        radii[[0, 2]] *= 0.5, 2.0
        doubts = self._generator.standard_normal((self._batch, len(self._place)))
        doubts[:3] = 0
        self._moves = self._model.climb(self._scores, self._loss, radii, doubts)
        return self._place + self._moves

    def tell(self, scores: Sequence[Tensor], slacks: NDArray[np.float64]) -> None:
        """Learn, and go to the best point."""
        moves = self._moves[: len(slacks)]
        self._model.learn(
            moves, [part - here for part, here in zip(scores, self._scores, strict=True)]
        )
        best = int(slacks.argmax())
        if slacks[best] > self._slack:
            self._place = self._place + moves[best]
            self._scores, self._slack = [part[best] for part in scores], float(slacks[best])
            self._length = min(self._length * _WIDEN, _MOST)
        else:
            self._length = max(self._length * _NARROW, _LEAST)
        self._model.forget(_FORGET)


class OptimizerGuide:
    """Any optimizer by name; it sees how far the worst decision is from being kept.

    Args:
        name: Of :data:`scotoma.optimize.registry.optimizers`.
        reach: ``(D,)`` greatest size of each number.
        budget: Evaluations it may plan with.
        batch: Most points of one ask.
        seed: Of everything random.

    Raises:
        UnknownNameError: No such optimizer.
        MissingExtraError: Its library is not installed.
    """

    def __init__(
        self, name: str, reach: NDArray[np.float64], *, budget: int, batch: int, seed: int
    ) -> None:
        bounds = Bounds(-reach, reach)
        start = np.zeros(len(reach))
        self._search = Search(name, bounds, budget=budget, seed=seed, start=start, batch=batch)

    def ask(self) -> Points:
        """Return at most ``batch`` points, none when the optimizer has ended."""
        return self._search.ask()

    def tell(self, scores: Sequence[Tensor], slacks: NDArray[np.float64]) -> None:  # noqa: ARG002
        """Pass the values on, lower being better."""
        self._search.tell(-slacks)
