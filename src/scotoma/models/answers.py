"""What a black box answers with, brought into the form of logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import ModelError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ANSWERS", "answers_of", "as_logits"]

ANSWERS = ("logits", "probabilities", "labels")
"""Kinds of answers; a configuration names one under ``answers``."""

_SURE = 20.0  # logit of a label where nothing else is known: a probability of one
_LEAST = 1e-12  # probability below which none is told from another
_ROUNDING = 1e-3


def answers_of(config: Mapping[str, Any]) -> str:
    """Return the kind of answers that a model's JSON names; logits by default.

    Raises:
        UnknownNameError: No such kind.
    """
    kind = str(config.get("answers", ANSWERS[0]))
    if kind not in ANSWERS:
        raise UnknownNameError("kind of answers", kind, ANSWERS)
    return kind


def as_logits(answers: Tensor, kind: str, *, classes: int | None = None) -> Tensor:
    """Return ``(B, K)`` logits that decide as the answers do.

    Args:
        answers: ``(B, K)`` scores, or with labels ``(B,)`` or ``(B, 1)`` whole numbers.
        kind: One of :data:`ANSWERS`.
        classes: ``K``, where the answers are labels.

    Raises:
        ModelError: The answers are not of that kind.
    """
    import torch

    if kind == "logits":
        return answers
    if kind == "probabilities":
        low, high = (float(part) for part in torch.aminmax(answers)) if answers.numel() else (0, 0)
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise ModelError(
                f"expected probabilities in [0, 1], got values from {low:g} to {high:g}; "
                'if they are logits, write "answers": "logits" in the model\'s JSON'
            )
        return answers.clamp(min=_LEAST).log()
    if classes is None:
        raise ModelError(
            'expected "classes" in the JSON of a model that answers with labels, got none; '
            "list their names"
        )
    labels = answers.reshape(-1)
    if not bool(((labels >= 0) & (labels < classes) & (labels == labels.round())).all()):
        raise ModelError(
            f"expected labels from 0 to {classes - 1}, got {labels.tolist()[:4]}; do the classes "
            "in the model's JSON fit it?"
        )
    return torch.nn.functional.one_hot(labels.long(), classes).float() * _SURE
