"""Candidates for a black box, from networks with gradients that are at hand.

What makes one network see in a region what it saw before makes others see it, too, more often
than not. So a search by scores alone may begin where a search by gradients ended, on public
networks of the same kind of pictures; that costs computation, and one query.

Source:
    Papernot et al., Practical Black-Box Attacks against Machine Learning, AsiaCCS 2017
    (transfer from substitutes); Cheng et al., Improving Black-box Adversarial Attacks with a
    Transfer-based Prior, NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from scotoma.protections.anonymize.gradient import GradientLife
from scotoma.protections.anonymize.scheduler import Life
from scotoma.protections.anonymize.subject import Outcome, Subject

__all__ = ["Surrogates"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Surrogates:
    """Networks whose gradients stand in for those that a black box does not give.

    Args:
        life: The search by their gradients. Its goals are their own decisions on the original,
            so that they need not know the black box's classes.
        first: Number of the first of them among all models of the whole search.
    """

    life: GradientLife
    first: int

    def candidate(self, subject: Subject) -> Life[Pixels | None]:
        """Return what keeps the surrogates' decisions; None where nothing was found.

        Raises:
            ScotomaError: What a surrogate raised.
        """
        outcome = yield from self._renumbered(self.life.live(subject))
        if outcome.error is not None:
            raise outcome.error
        return outcome.pixels if outcome.steps else None

    def _renumbered(self, life: Life[Outcome]) -> Life[Outcome]:
        """Run a life that numbers the surrogates from 0."""
        try:
            requests = next(life)
            while True:
                asked = []
                for request in requests:
                    kind, number = cast(tuple[str, int], request.queue)
                    asked.append(replace(request, queue=(kind, number + self.first)))
                try:
                    answers = yield asked
                except Exception as error:  # the life's own business
                    requests = life.throw(error)
                    continue
                requests = life.send(answers)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
