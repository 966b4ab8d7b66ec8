"""What goes into a search and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scotoma.images.regions import Region

__all__ = ["Outcome", "Subject"]

Pixels = NDArray[np.uint8]


class Subject(Protocol):
    """A picture as the search sees it."""

    @property
    def original(self) -> Pixels:
        """``(H, W, 3)`` uint8; read once, for the decisions to keep."""
        ...

    @property
    def start(self) -> Pixels:
        """The picture after the naive fill."""
        ...

    @property
    def regions(self) -> Sequence[Region]:
        """Where pixels may change; not empty."""
        ...

    def publish(self, pixels: Pixels) -> Pixels:
        """Return the pixels that a reader of the written file would see."""
        ...


@dataclass(eq=False)
class Outcome:
    """What became of one subject.

    Args:
        subject: The subject itself.
        status: ``kept-naive``, ``ok``, ``not-kept`` or ``failed``.
        pixels: What is to be written, before encoding; None after a failure.
        before: Logits on the original, one ``(K,)`` per model, then per observer.
        naive: The same on the published naive fill.
        after: The same on the published result.
        steps: Gradient steps taken.
        looks: Forward passes, of all models together.
        queries: Pictures whose scores were asked, of each model that takes part, the original
            included.
        pulls: Forward and backward passes, of all models together.
        error: What ended a failed picture.
    """

    subject: Any
    status: str = "failed"
    pixels: Pixels | None = None
    before: list[Tensor] = field(default_factory=list)
    naive: list[Tensor] = field(default_factory=list)
    after: list[Tensor] = field(default_factory=list)
    steps: int = 0
    looks: int = 0
    queries: int = 0
    pulls: int = 0
    error: Exception | None = None
