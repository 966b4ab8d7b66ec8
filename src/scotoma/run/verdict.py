"""From the logits of a search to the decisions of a manifest."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from scotoma.models.classifier import Classifier
from scotoma.protections.anonymize.objectives import Objective
from scotoma.protections.anonymize.subject import Outcome
from scotoma.run.entry import Answer, Decision

__all__ = ["answer", "decisions"]


def answer(model: Classifier, logits: Tensor) -> Answer:
    """Return what ``model`` says with ``(K,)`` logits: its top-1 class and softmax score."""
    label = int(logits.argmax())
    return Answer(label, model.class_name(label), round(float(logits.softmax(0)[label]), 6))


def decisions(
    outcome: Outcome, models: Sequence[Classifier], searched: int, keep: Objective
) -> tuple[Decision, ...]:
    """Return one decision per model.

    Args:
        outcome: Of one picture; its logits are in the order of ``models``.
        models: Those searched for, then those only checked.
        searched: How many took part in the search.
        keep: What of the decision had to be kept.
    """
    made = []
    triples = zip(models, outcome.before, outcome.naive, outcome.after, strict=True)
    for place, (model, before, naive, after) in enumerate(triples):
        goal = keep.goals(before[None])
        made.append(
            Decision(
                model=model.spec,
                before=answer(model, before),
                naive=answer(model, naive),
                after=answer(model, after),
                kept=bool(keep.slack(after[None], goal) > 0),
                checked_only=place >= searched,
            )
        )
    return tuple(made)
