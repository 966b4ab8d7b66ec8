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
import torch
from numpy.typing import NDArray
from torch import Tensor

from scotoma.optimize.bounds import Bounds
from scotoma.optimize.search import Search
from scotoma.protections.anonymize.score_model import ScoreModel

__all__ = ["Guide", "LinearGuide", "OptimizerGuide"]

Points = NDArray[np.float64]

_SPREAD = 0.05  # logits per 255th, of a score's slope along one number
_LENGTHS = (0.5, 1.0, 2.0)  # of the moves that believe the model, of what went well before
_FIRST, _LEAST, _MOST = 40.0, 4.0, 120.0  # length of such a move, in 255ths
_SHORTER = 0.7  # after an ask without gain
_PROBE = 20.0  # length of the moves that learn slopes, in 255ths
_NOISE = 0.3  # logits that two opposite probes do not explain
_BEND = 0.5  # logits by which a single move of a probe's length bends away from a line
_FORGET = 0.02


class Guide(Protocol):
    """Decides which points are asked about."""

    def ask(self) -> Points:
        """Return ``(n, D)`` points, none when there is nothing more to try."""

    def tell(self, scores: Sequence[Tensor], slacks: NDArray[np.float64]) -> None:
        """Take the answers to the last points, or to the first of them when queries run out.

        Args:
            scores: One ``(n, K)`` per classifier.
            slacks: ``(n,)`` how far the decisions are from being lost; negative where one is.
        """

    def correct(self, point: Points, scores: Sequence[Tensor], slack: float) -> None:
        """Take note of what a point turned out to be once it was written.

        Args:
            point: ``(D,)``.
            scores: Of the written file, one ``(K,)`` per classifier.
            slack: Of the written file.
        """


class LinearGuide:
    """Climbs a linear model of the scores, and learns the model from opposite probes.

    Three moves believe the model as it is, at three lengths. The others come in opposite pairs,
    along slopes that are still possible; half the difference of a pair is the slope alone, for
    what bends the scores alike to both sides cancels. The best point, if better than where the
    guide stands, is where it goes on.

    Args:
        weights: ``(D,)`` how much each number is expected to matter.
        scores: At the start, one ``(K,)`` per classifier.
        slack: There.
        loss: From a classifier's number and ``(n, K)`` scores to ``(n,)`` losses.
        batch: Points of one ask, from 5.
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
        self._model = ScoreModel(_SPREAD * weights, [len(part) for part in scores])
        self._generator = np.random.default_rng(seed)
        self._pairs = (batch - len(_LENGTHS)) // 2
        self._loss = loss
        self._place = np.zeros(len(weights))
        self._scores, self._slack = list(scores), slack
        self._length = _FIRST
        self._moves = np.zeros((0, len(weights)))

    def ask(self) -> Points:
        """Return at most ``batch`` points around the best so far."""
        ahead = [self._length * share for share in _LENGTHS]
        radii = np.array(ahead + [_PROBE] * self._pairs)
        doubts = self._generator.standard_normal((len(radii), len(self._place)))
        doubts[: len(ahead)] = 0
        moves = self._model.climb(self._scores, self._loss, radii, doubts)
        self._moves = np.concatenate([moves, -moves[len(ahead) :]])
        return self._place + self._moves

    def tell(self, scores: Sequence[Tensor], slacks: NDArray[np.float64]) -> None:
        """Learn, and go to the best point."""
        if len(slacks) == len(self._moves):  # fewer are the last ones
            self._learn([part - here for part, here in zip(scores, self._scores, strict=True)])
        best = int(slacks.argmax())
        if slacks[best] > self._slack:
            self._place = self._place + self._moves[best]
            self._scores, self._slack = [part[best] for part in scores], float(slacks[best])
            self._length = min(float(np.linalg.norm(self._moves[best])), _MOST)
        else:
            self._length = max(self._length * _SHORTER, _LEAST)

    def _learn(self, changes: Sequence[Tensor]) -> None:
        single = len(_LENGTHS)
        moves = self._moves[: single + self._pairs]
        taught = []
        for change in changes:
            there, back = change[single : single + self._pairs], change[single + self._pairs :]
            taught.append(torch.cat([change[:single], (there - back) / 2]))
        noise = np.full(len(moves), _NOISE)
        lengths = np.linalg.norm(moves[:single], axis=1)
        noise[:single] += _BEND * (lengths / _PROBE) ** 2
        self._model.learn(moves, taught, noise)
        self._model.forget(_FORGET)

    def correct(self, point: Points, scores: Sequence[Tensor], slack: float) -> None:
        """Go on from what was written."""
        self._place, self._scores, self._slack = point, list(scores), slack


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
        self._asked = 0

    def ask(self) -> Points:
        """Return at most ``batch`` points, none when the optimizer has ended."""
        points = self._search.ask()
        self._asked = len(points)
        return points

    def tell(self, scores: Sequence[Tensor], slacks: NDArray[np.float64]) -> None:  # noqa: ARG002
        """Pass the values on, lower being better."""
        if len(slacks) == self._asked:  # fewer are the last ones, and no optimizer takes a part
            self._search.tell(-slacks)

    def correct(self, point: Points, scores: Sequence[Tensor], slack: float) -> None:
        """Leave the optimizer its own: none of them takes a value back."""
