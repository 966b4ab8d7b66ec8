"""What every search of a picture begins and ends with, written down as if it were alone.

::

    original, naive fill ── look ──> decisions to keep
           │ naive keeps them (with a lead, where unseen models are to agree): done
           v
    search: by gradients (:mod:`.gradient`) or by scores (:mod:`.score_life`)
           v
    whatever is found is judged as a reader of the written file sees it

Each ``yield`` hands work to the batches of :mod:`.scheduler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scotoma.core.errors import SilentModelError
from scotoma.models.classifier import Classifier
from scotoma.protections.anonymize.exemplars import Exemplars
from scotoma.protections.anonymize.scheduler import Life, Request
from scotoma.protections.anonymize.settings import SearchSettings
from scotoma.protections.anonymize.subject import Outcome, Subject

__all__ = ["PictureLife", "looks", "read_all"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PictureLife:
    """What every picture's life has in common; a way of searching says how :meth:`_adapt` goes.

    Args:
        models: Keep their decisions.
        observers: Are asked but take no part.
        settings: How to search.
        exemplars: Public pictures to start from; None starts from the naive fill.
    """

    models: Sequence[Classifier]
    observers: Sequence[Classifier]
    settings: SearchSettings
    exemplars: Exemplars | None = None

    def live(self, subject: Subject) -> Life[Outcome]:
        """Run one picture; an error ends this picture alone."""
        outcome = Outcome(subject)
        try:
            yield from self._anonymize(subject, outcome)
        except SilentModelError:
            raise  # no picture's fault: the next ones would only wait for the same answer
        except Exception as error:  # one bad picture must not stop the run: the caller reports it
            outcome.status, outcome.error, outcome.pixels = "failed", error, None
        return outcome

    def _anonymize(self, subject: Subject, outcome: Outcome) -> Life[None]:
        everyone = [*self.models, *self.observers]
        published = subject.publish(subject.start)
        real = read_all(everyone, published)
        answers = yield looks(read_all(everyone, subject.original)) + looks(real)
        outcome.looks += len(answers)
        outcome.queries = 2
        outcome.before, outcome.naive = list(answers[: len(real)]), list(answers[len(real) :])
        outcome.after, outcome.pixels = outcome.naive, subject.start
        searched = outcome.before[: len(self.models)]
        goals = [self.settings.keep.goals(logits[None])[0] for logits in searched]
        slack = min(self.slacks(outcome.naive, goals))
        outcome.status = "kept-naive" if slack > 0 else "not-kept"
        # Where the models searched for keep a decision narrowly, others have lost it.
        enough = self.settings.aim if self.settings.transfer else 0.0
        if (slack > 0 and slack >= enough) or self.settings.max_steps == 0:
            return
        yield from self._adapt(subject, goals, real[: len(self.models)], outcome)
        if self.observers and outcome.status == "ok":
            seen = read_all(self.observers, subject.publish(outcome.pixels))
            outcome.after = outcome.after + list((yield looks(seen, first=len(self.models))))

    def _adapt(
        self, subject: Subject, goals: Sequence[Tensor], seen: Sequence[Tensor], outcome: Outcome
    ) -> Life[None]:
        """Search; what is found, as written, goes into ``outcome``.

        Args:
            subject: The picture.
            goals: What each model is to say.
            seen: What each model reads of the naive fill.
            outcome: Filled as far as the naive fill.
        """
        raise NotImplementedError

    def survives_resize(
        self, published: Pixels, goals: Sequence[Tensor], outcome: Outcome
    ) -> Life[bool]:
        """Return whether the decisions stand when the written picture is shown at other sizes."""
        picture = Image.fromarray(published)
        for scale in self.settings.views:
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            copy = picture.resize(size, Image.Resampling.BICUBIC)
            logits = yield looks([model.read(copy) for model in self.models])
            outcome.looks += len(logits)
            outcome.queries += 1
            if min(self.slacks(logits, goals)) <= 0:
                return False
        return True

    def slacks(self, logits: Sequence[Tensor], goals: Sequence[Tensor]) -> list[float]:
        """Return how far each model is from losing its decision."""
        slack = self.settings.keep.slack
        pairs = zip(logits[: len(goals)], goals, strict=True)  # observers do not count
        return [float(slack(seen[None], goal[None])) for seen, goal in pairs]


def read_all(models: Sequence[Classifier], pixels: Pixels) -> list[Tensor]:
    """Return what each model reads of ``(H, W, 3)`` uint8 pixels."""
    picture = Image.fromarray(pixels)
    return [model.read(picture) for model in models]


def looks(inputs: Sequence[Tensor], first: int = 0) -> list[Request]:
    """Ask one model after the other, from number ``first`` on, about what each one reads."""
    return [Request(("look", m), item) for m, item in enumerate(inputs, first)]
