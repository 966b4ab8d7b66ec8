"""What of a classifier's answer is kept, and how far an answer is from keeping it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from scotoma.core.errors import SettingsError, UnknownNameError

__all__ = ["Objective", "Scores", "Top1", "TopOrdered", "parse_keep"]


class Objective(Protocol):
    """One notion of "the same decision"."""

    @property
    def text(self) -> str:
        """The setting as the user writes it."""
        ...

    def goals(self, logits: Tensor) -> Tensor:
        """Return what must be kept, read off ``(B, K)`` logits of the originals: ``(B, ...)``."""
        ...

    def slack(self, logits: Tensor, goals: Tensor) -> Tensor:
        """Return ``(B,)``: positive where the decision is kept, and by how much."""
        ...

    def loss(self, logits: Tensor, goals: Tensor, margin: Tensor) -> Tensor:
        """Return ``(B,)`` to descend; its gradient leads towards ``slack >= margin`` (``(B,)``)."""
        ...


@dataclass(frozen=True)
class Top1:
    """The most probable class; slack is its logit's lead over the runner-up."""

    @property
    def text(self) -> str:
        """``top1``."""
        return "top1"

    def goals(self, logits: Tensor) -> Tensor:
        """``(B,)`` int64 labels."""
        return logits.argmax(1)

    def slack(self, logits: Tensor, goals: Tensor) -> Tensor:
        """Lead of the goal's logit, in logits."""
        rest = logits.scatter(1, goals[:, None], -math.inf)
        return logits.gather(1, goals[:, None])[:, 0] - rest.amax(1)

    def loss(self, logits: Tensor, goals: Tensor, margin: Tensor) -> Tensor:
        """Cross-entropy after the goal's logit is handicapped by the margin.

        The handicap keeps the gradient alive until the lead is that large.
        """
        handicap = F.one_hot(goals, logits.shape[1]) * margin[:, None]
        return F.cross_entropy(logits - handicap, goals, reduction="none")


@dataclass(frozen=True)
class TopOrdered:
    """The ``count`` most probable classes in their order; slack is the smallest gap."""

    count: int = 5

    @property
    def text(self) -> str:
        """``top5`` for a count of five."""
        return f"top{self.count}"

    def goals(self, logits: Tensor) -> Tensor:
        """``(B, count)`` int64 labels, most probable first."""
        return logits.topk(min(self.count, logits.shape[1]), 1).indices

    def slack(self, logits: Tensor, goals: Tensor) -> Tensor:
        """Smallest lead of one of the ordered logits over what must stay below it."""
        return self._leads(logits, goals).amin(1)

    def loss(self, logits: Tensor, goals: Tensor, margin: Tensor) -> Tensor:
        """Sum of the missing leads."""
        return F.relu(margin[:, None] - self._leads(logits, goals)).sum(1)

    def _leads(self, logits: Tensor, goals: Tensor) -> Tensor:
        ordered = logits.gather(1, goals)
        rest = logits.scatter(1, goals, -math.inf).amax(1, keepdim=True)
        last = rest if goals.shape[1] < logits.shape[1] else ordered[:, -1:] - 1e6
        return ordered - torch.cat([ordered[:, 1:], last], 1)


@dataclass(frozen=True)
class Scores:
    """Every class's score within a tolerance, for models that give several labels.

    Scores are sigmoids of the logits; the margin, given in logits for the other
    objectives, here asks for the share ``margin / (4 + margin)`` of the tolerance.
    """

    tolerance: float

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise SettingsError(f"expected a score tolerance in (0, 1), got {self.tolerance}")

    @property
    def text(self) -> str:
        """``scores:0.05`` for a tolerance of 0.05."""
        return f"scores:{self.tolerance:g}"

    def goals(self, logits: Tensor) -> Tensor:
        """``(B, K)`` float32 scores."""
        return logits.sigmoid()

    def slack(self, logits: Tensor, goals: Tensor) -> Tensor:
        """What is left of the tolerance at the worst class, in units of 4 × tolerance.

        The unit makes a slack of zero the limit and keeps it comparable with a logit
        lead (a sigmoid's steepest slope is one quarter).
        """
        worst = (logits.sigmoid() - goals).abs().amax(1)
        return (self.tolerance - worst) * 4 / self.tolerance

    def loss(self, logits: Tensor, goals: Tensor, margin: Tensor) -> Tensor:
        """Squared excess over the part of the tolerance that the margin leaves."""
        allowed = self.tolerance * 4 / (4 + margin)
        excess = F.relu((logits.sigmoid() - goals).abs() - 0.9 * allowed[:, None])
        return excess.square().sum(1)


def parse_keep(text: str) -> Objective:
    """Return the objective called ``top1``, ``topN`` or ``scores:TOLERANCE``.

    Raises:
        SettingsError: Not one of these.
    """
    name, _, value = text.partition(":")
    if name == "scores":
        try:
            tolerance = float(value)
        except ValueError as error:
            raise SettingsError(
                f"expected scores:TOLERANCE, for example scores:0.05, got {text!r}"
            ) from error
        return Scores(tolerance)
    if name.startswith("top") and name[3:].isdigit() and int(name[3:]) >= 1 and not value:
        count = int(name[3:])
        return Top1() if count == 1 else TopOrdered(count)
    raise UnknownNameError("decision to keep", text, ["top1", "top5", "scores:0.05"])
