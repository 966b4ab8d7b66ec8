"""Which pictures a report shows, and what it shows of each."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from scotoma.core.errors import SettingsError
from scotoma.run.manifest import Answer, Entry

__all__ = ["Exhibit", "Panel", "choose_exhibits"]

_Rank = tuple[float, float, str]  # smaller is shown earlier; the name makes it a total order


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of an exhibit, with what the models say of it.

    Args:
        caption: For example ``Original``.
        pixels: ``(H, W, 3)`` uint8.
        answers: ``(model, answer, agrees)``; ``agrees`` tells whether it is the decision on the
            original.
    """

    caption: str
    pixels: np.ndarray
    answers: tuple[tuple[str, Answer, bool], ...]


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One picture's way through the run.

    Args:
        entry: Its manifest entry.
        panels: Original (or what may be shown of it), naive fill, release; the first is what the
            others are compared with.
    """

    entry: Entry
    panels: tuple[Panel, ...]


@dataclass
class _Shortlist:
    """The first few of one kind, however many come."""

    limit: int
    ranked: list[tuple[_Rank, Entry]] = field(default_factory=list)

    def offer(self, rank: _Rank, entry: Entry) -> None:
        insort(self.ranked, (rank, entry), key=lambda item: item[0])
        del self.ranked[self.limit :]

    def take(self, number: int) -> list[Entry]:
        return [entry for _, entry in self.ranked[:number]]


def choose_exhibits(entries: Iterable[Entry], limit: int = 12) -> list[Entry]:
    """Return the most telling pictures of a run.

    First those whose decision the fill changes and the release keeps, then the
    losses, then those that the fill left alone. Losses come before all others
    where space is short, up to all but a quarter of it: they are published, and
    a page of them alone would tell as little as a page without.

    The choice depends on the entries only, not on their order; one pass, and no
    more than ``3 × limit`` entries are held.

    Args:
        entries: One per input.
        limit: How many at most.

    Raises:
        SettingsError: ``limit`` is negative.
    """
    if limit < 0:
        raise SettingsError(f"expected a limit of at least 0 exhibits, got {limit}")
    wins, losses, rest = _Shortlist(limit), _Shortlist(limit), _Shortlist(limit)
    for entry in entries:
        if not entry.regions:
            continue
        if entry.status == "not-kept":
            losses.offer(_rank(entry), entry)
        elif entry.status == "ok" and _flipped(entry):
            wins.offer(_rank(entry), entry)
        elif entry.status in ("ok", "kept-naive"):
            rest.offer(_rank(entry), entry)
    lost = losses.take(limit - min(len(wins.ranked), limit // 4))
    won = wins.take(limit - len(lost))
    return [*won, *lost, *rest.take(limit - len(won) - len(lost))]


def _flipped(entry: Entry) -> int:
    return sum(d.changed_naive for d in entry.decisions if not d.checked_only)


def _rank(entry: Entry) -> _Rank:
    """More models misled by the fill first, then the surer they were of either answer."""
    surety = sum(
        d.before.score + (d.naive.score if d.naive is not None and d.changed_naive else 0)
        for d in entry.decisions
        if not d.checked_only
    )
    return (-_flipped(entry), -surety, entry.input)
