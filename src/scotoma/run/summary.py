"""The summary of a run, counted in one pass over its entries."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scotoma.images.write import write_atomically
from scotoma.run.entry import Decision, Entry

__all__ = ["ModelSummary", "Summary", "summarize", "write_summary"]


@dataclass(frozen=True)
class ModelSummary:
    """How one model's decisions fared.

    Args:
        n: Pictures with regions that the model was asked about.
        changed_naive: Of these, the fill alone changes so many.
        changed_after: Of these, the release changes so many.
        kept_of_flipped: Of the ``changed_naive``, the release keeps so many.
        checked_only: The model took no part in the search.
    """

    n: int
    changed_naive: int
    changed_after: int
    kept_of_flipped: int
    checked_only: bool

    @property
    def agreement_all(self) -> float | None:
        """Decisions kept, of all pictures with regions; None of no picture."""
        return (self.n - self.changed_after) / self.n if self.n else None

    @property
    def agreement_flipped(self) -> float | None:
        """Decisions kept, of those that the fill alone changes; None of no picture."""
        return self.kept_of_flipped / self.changed_naive if self.changed_naive else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, both rates included."""
        return {
            "n": self.n,
            "changed_naive": self.changed_naive,
            "changed_after": self.changed_after,
            "kept_of_flipped": self.kept_of_flipped,
            "agreement_all": self.agreement_all,
            "agreement_flipped": self.agreement_flipped,
            "checked_only": self.checked_only,
        }


@dataclass(frozen=True)
class Summary:
    """What a run did, in figures.

    Args:
        images: Inputs.
        failed: Inputs that could not be processed.
        with_regions: Inputs that did not fail and had something to hide.
        changed_naive: Of these, the fill alone changes some searched model's decision.
        changed_after: Of these, the release changes some searched model's decision.
        per_model: By the model's SPEC; models that were only checked included.
        seconds: Duration of the run.
        seed: Of the run.
        version: Of Scotoma.
        queries: Of all inputs together, see :class:`~scotoma.run.entry.Entry`.
        queries_median: Of the inputs with regions.
        queries_most: Of any input.
    """

    images: int
    failed: int
    with_regions: int
    changed_naive: int
    changed_after: int
    per_model: Mapping[str, ModelSummary]
    seconds: float
    seed: int
    version: str
    queries: int = 0
    queries_median: float = 0.0
    queries_most: int = 0

    @property
    def images_per_second(self) -> float:
        """Inputs per second; 0 for a run that took no time."""
        return self.images / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "images": self.images,
            "failed": self.failed,
            "with_regions": self.with_regions,
            "changed_naive": self.changed_naive,
            "changed_after": self.changed_after,
            "per_model": {model: found.to_dict() for model, found in self.per_model.items()},
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "seed": self.seed,
            "version": self.version,
            "queries": self.queries,
            "queries_median": self.queries_median,
            "queries_most": self.queries_most,
        }


@dataclass
class _Count:
    n: int = 0
    changed_naive: int = 0
    changed_after: int = 0
    kept_of_flipped: int = 0
    checked_only: bool = True

    def add(self, decision: Decision) -> None:
        self.n += 1
        self.changed_naive += decision.changed_naive
        self.changed_after += decision.changed_after
        self.kept_of_flipped += decision.changed_naive and not decision.changed_after
        self.checked_only = self.checked_only and decision.checked_only


def summarize(entries: Iterable[Entry], *, seconds: float, seed: int, version: str) -> Summary:
    """Count, in one pass.

    A picture counts as changed if at least one model that took part in the
    search decides otherwise; models that were only checked have their own rows.

    Args:
        entries: One per input, for example ``latest(path).values()``.
        seconds: Duration of the run.
        seed: Of the run.
        version: Of Scotoma.
    """
    images = failed = with_regions = changed_naive = changed_after = 0
    counts: dict[str, _Count] = {}
    queries: Counter[int] = Counter()
    for entry in entries:
        images += 1
        failed += entry.status == "failed"
        if entry.status == "failed" or not entry.regions:
            continue
        with_regions += 1
        queries[entry.queries] += 1
        searched = [decision for decision in entry.decisions if not decision.checked_only]
        changed_naive += any(decision.changed_naive for decision in searched)
        changed_after += any(decision.changed_after for decision in searched)
        for decision in entry.decisions:
            counts.setdefault(decision.model, _Count()).add(decision)
    return Summary(
        images=images,
        failed=failed,
        with_regions=with_regions,
        changed_naive=changed_naive,
        changed_after=changed_after,
        per_model={model: ModelSummary(**vars(count)) for model, count in counts.items()},
        seconds=seconds,
        seed=seed,
        version=version,
        queries=sum(asked * often for asked, often in queries.items()),
        queries_median=_median(queries),
        queries_most=max(queries, default=0),
    )


def _median(counts: Counter[int]) -> float:
    """Return the median of the counted values; 0 of none."""
    return float(statistics.median(counts.elements())) if counts else 0.0


def write_summary(path: Path, summary: Summary) -> None:
    """Write ``summary`` as JSON in one step: a reader sees the whole file or the earlier one.

    Raises:
        FileError: It cannot be written.
    """
    write_atomically(path, (json.dumps(summary.to_dict(), indent=2) + "\n").encode("utf-8"))
