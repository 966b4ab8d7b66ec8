"""The search of many pictures: batches for lives with gradients and for lives without."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from scotoma.core.errors import ModelError, SettingsError
from scotoma.models.classifier import Classifier
from scotoma.ops.diversity import random_views
from scotoma.protections.anonymize.exemplars import Exemplars
from scotoma.protections.anonymize.gradient import GradientLife, Pull, Push
from scotoma.protections.anonymize.life import PictureLife
from scotoma.protections.anonymize.memory import Answers, remembered
from scotoma.protections.anonymize.scheduler import Life, run_together
from scotoma.protections.anonymize.score_life import ScoreLife
from scotoma.protections.anonymize.settings import BlackBox, SearchSettings, Transfer
from scotoma.protections.anonymize.subject import Outcome, Subject
from scotoma.protections.anonymize.surrogates import Surrogates

__all__ = ["Search"]


class Search:
    """Searches many pictures against one ensemble of classifiers.

    Args:
        models: Each keeps its own decision; all differentiable where gradients are used.
        settings: How to search; ``max_steps=0`` judges the naive fill and stops there.
        observers: Classifiers that are asked but take no part.
        exemplars: Public pictures to start from, chosen by the decided class.
        blackbox: Search by scores alone, so; None searches by gradients.
        surrogates: Networks with gradients that a search by scores takes candidates from.
        recall: Without gradients: where the answers on a subject are noted down.
        gradient_networks: By a model's spec, a faster equivalent of its network for the
            gradient passes (for example with folded batch norm); the models themselves judge.

    Raises:
        SettingsError: No model.
        ModelError: A model without gradients, or a surrogate.
    """

    def __init__(
        self,
        models: Sequence[Classifier],
        settings: SearchSettings | None = None,
        *,
        observers: Sequence[Classifier] = (),
        exemplars: Exemplars | None = None,
        gradient_networks: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        blackbox: BlackBox | None = None,
        surrogates: Sequence[Classifier] = (),
        recall: Callable[[Any], Answers] | None = None,
    ) -> None:
        self.settings = settings or SearchSettings()
        if not models:
            raise SettingsError("expected at least one model whose decisions are kept, got none")
        for model in models:
            if not (model.differentiable or blackbox) and self.settings.max_steps:
                raise ModelError(
                    f"{model.spec} gives scores only, and the gradient search needs gradients; "
                    "search by scores (--adapt blackbox), name a torch model, or only check it"
                )
        self.models = list(models)
        self.observers = list(observers)
        self._asked = [*self.models, *self.observers, *surrogates]
        shared = (self.models, self.observers, self.settings, exemplars)
        self._picture: PictureLife = (
            GradientLife(*shared)
            if blackbox is None
            else ScoreLife(*shared, blackbox, self._open_surrogates(list(surrogates)))
        )
        self._recall = recall
        faster = gradient_networks or {}
        self._gradient_networks = [faster.get(m.spec, m.network) for m in self._asked]

    def _open_surrogates(self, surrogates: Sequence[Classifier]) -> Surrogates | None:
        if not surrogates:
            return None
        for model in surrogates:
            if not model.differentiable:
                raise ModelError(
                    f"expected a surrogate with gradients, got {model.spec}, which gives scores "
                    "only; name a torch model"
                )
        settings = replace(self.settings, transfer=self.settings.transfer or Transfer())
        life = GradientLife(surrogates, (), settings)
        return Surrogates(life, len(self.models) + len(self.observers))

    def run(self, subjects: Iterable[Subject]) -> Iterator[Outcome]:
        """Yield each subject's outcome as it is done, not in the order of the input."""
        size = self.settings.batch_size
        return run_together(
            ((self._live(subject), subject.start.size // 3) for subject in subjects),
            self._execute,
            batch_size=size,
            pool_size=size * (2 * len(self.models) + 1),
            pool_weight=self.settings.pool_pixels,
        )

    def _live(self, subject: Subject) -> Life[Outcome]:
        life = self._picture.live(subject)
        return life if self._recall is None else remembered(life, self._recall(subject))

    def _execute(self, queue: Hashable, items: Sequence[Any]) -> Sequence[Any]:
        kind, model = cast(tuple[str, int], queue)
        if kind == "look":
            return list(self._asked[model].logits(_stack(items)))
        return self._pull(model, items)

    def _pull(self, model: int, pulls: Sequence[Pull]) -> list[Push]:
        keep, transfer = self.settings.keep, self.settings.transfer or Transfer()
        inputs = _stack([pull.inputs for pull in pulls]).requires_grad_()
        goals = torch.stack([pull.goal for pull in pulls])
        seen = inputs
        viewed = [n for n, pull in enumerate(pulls) if pull.view is not None]
        if viewed:
            seeds = [pull.view for pull in pulls if pull.view is not None]
            views = random_views(inputs[viewed], seeds, strength=transfer.diversity)
            seen = inputs.index_copy(0, torch.tensor(viewed), views)
        logits = self._gradient_networks[model](seen.to(self._asked[model].device)).float().cpu()
        loss = keep.loss(logits, goals, torch.tensor([pull.margin for pull in pulls]))
        (gradients,) = torch.autograd.grad(loss.sum(), inputs)
        gradients = gradients.contiguous()  # channels last would make each later product copy
        slacks = keep.slack(logits.detach(), goals)
        return [Push(float(s), g) for s, g in zip(slacks, gradients, strict=True)]


def _stack(items: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(items)).contiguous(memory_format=torch.channels_last)
