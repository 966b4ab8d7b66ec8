"""A linear model of all scores near a point, refined by every answer.

A black box that gives scores answers with a whole vector of them. Searches that look at one
value of it throw the rest away; here every answer teaches how *each* score follows *each*
number, so that the model knows which other class would come up next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["ScoreModel"]

_ASCENT = 8  # steps along the model; the answers are dearer than these


class ScoreModel:
    """Slopes of the scores of several classifiers, with the certainty of each direction.

    The slopes of every score have the same Gaussian prior, independent of each other. Since
    every answer holds every score, they share one covariance, and learning costs one small
    matrix product. The mean is the recursive least-squares (Kalman) estimate.

    Args:
        spread: ``(D,)`` prior standard deviation of a score's change per unit of each number.
        classes: Number of scores of each classifier.
    """

    def __init__(self, spread: NDArray[np.float64], classes: Sequence[int]) -> None:
        self.spread = spread
        self.covariance = np.diag(spread**2)
        self.slopes = [torch.zeros(count, len(spread)) for count in classes]

    def learn(
        self,
        moves: NDArray[np.float64],
        changes: Sequence[Tensor],
        noise: NDArray[np.float64],
    ) -> None:
        """Take answers in.

        Args:
            moves: ``(n, D)`` how far the numbers were moved.
            changes: How far the scores moved with them, one ``(n, K)`` per classifier.
            noise: ``(n,)`` standard deviation of what a linear model cannot explain of them.
        """
        reach = moves @ self.covariance
        doubt = reach @ moves.T + np.diag(noise**2)
        gain = np.linalg.solve(doubt, reach)
        self.covariance -= reach.T @ gain
        step, move = (torch.tensor(part, dtype=torch.float32) for part in (gain, moves))
        for slopes, change in zip(self.slopes, changes, strict=True):
            slopes += (change - move @ slopes.T).T @ step

    def forget(self, share: float) -> None:
        """Let certainty go: what was learned elsewhere is less true here.

        Args:
            share: Of the prior's variance that is added again.
        """
        self.covariance[np.diag_indices_from(self.covariance)] += share * self.spread**2

    def climb(
        self,
        origins: Sequence[Tensor],
        loss: Callable[[int, Tensor], Tensor],
        radii: NDArray[np.float64],
        doubts: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return ``(n, D)`` moves that lower the loss most if the model is right.

        Args:
            origins: Scores where the moves begin, one ``(K,)`` per classifier.
            loss: From a classifier's number and ``(n, K)`` scores to ``(n,)`` losses.
            radii: ``(n,)`` length of each move.
            doubts: ``(n, D)`` standard normal numbers: each move believes slopes drawn from what
                is still possible (Thompson sampling); zeros believe the mean.
        """
        sampled = torch.tensor(doubts @ _root(self.covariance).T, dtype=torch.float32)
        towards = torch.tensor(self.spread / self.spread.max(), dtype=torch.float32)
        reach = torch.tensor(radii, dtype=torch.float32)[:, None]
        moves = torch.zeros(len(radii), len(self.spread))
        for _ in range(_ASCENT):
            slope = torch.zeros_like(moves)
            for number, (origin, slopes) in enumerate(zip(origins, self.slopes, strict=True)):
                scores = (origin + moves @ slopes.T).requires_grad_()
                (wish,) = torch.autograd.grad(loss(number, scores).sum(), scores)
                slope -= wish @ slopes + wish.norm(dim=1, keepdim=True) * sampled
            ahead = slope * towards
            ahead *= reach / (_ASCENT / 2) / ahead.norm(dim=1, keepdim=True).clamp(min=1e-12)
            moves = moves + ahead
            moves *= (reach / moves.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        return moves.double().numpy()


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``L`` with ``L Lᵀ`` the covariance, up to what rounding took of it."""
    floor = 1e-9 * np.trace(covariance) / len(covariance) + 1e-30
    return np.linalg.cholesky(covariance + floor * np.eye(len(covariance)))
