"""Who stands where: the strongest attack on each protection, and what it still serves for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scotoma.core.errors import SettingsError
from scotoma.evaluate.records import Figure, Record
from scotoma.evaluate.threat_models import open_threat_model
from scotoma.report.measures import strength

__all__ = [
    "Scene",
    "Standing",
    "choose_metrics",
    "find_scenes",
    "find_standings",
    "of_scene",
    "sees_releases_only",
]

_PREFERRED = ("block_brightness_correlation", "reid_rank1")
_MORE = {"pairs", "protect", "adapted_model", "public_model"}


@dataclass(frozen=True, order=True)
class Scene:
    """Pictures and the model that reads them; figures of different scenes do not compare."""

    data: str
    model: str

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.data}, read by {self.model}" if self.model else self.data


@dataclass(frozen=True)
class Standing:
    """One protection in a scene.

    Args:
        protection: Label.
        kept: Decisions kept; None where not measured.
        alone: The strongest attack on releases alone.
        informed: The strongest attack of all, if it is another and stronger.
    """

    protection: str
    kept: Figure | None
    alone: Record | None
    informed: Record | None


def find_scenes(records: Sequence[Record]) -> list[Scene]:
    """Return the scenes of records, in their order."""
    return list(dict.fromkeys(Scene(record.data, record.model) for record in records))


def of_scene(records: Sequence[Record], scene: Scene) -> list[Record]:
    """Return the records of a scene."""
    return [record for record in records if Scene(record.data, record.model) == scene]


def choose_metrics(records: Sequence[Record], wanted: Sequence[str] = ()) -> list[str]:
    """Return the metrics that attacks are compared by.

    Args:
        records: Of an evaluation.
        wanted: Names; by default brightness and recognition, where they were measured, or else
            the first that was.

    Raises:
        SettingsError: A name that no attack was measured by.
    """
    known = list(
        dict.fromkeys(
            name for record in records if record.kind == "attack" for name in record.metrics
        )
    )
    for name in wanted:
        if name not in known:
            raise SettingsError(
                f"expected a metric out of {', '.join(known) or 'none'}, got {name!r}"
            )
    return list(wanted) or [name for name in _PREFERRED if name in known] or known[:1]


def find_standings(records: Sequence[Record], metric: str) -> list[Standing]:
    """Return the protections of one scene, most revealing on releases alone first."""
    found = []
    for protection in dict.fromkeys(record.protection.label for record in records):
        own = [record for record in records if record.protection.label == protection]
        kept = [record.metrics.get("agreement") for record in own if record.kind == "utility"]
        tried = [
            record
            for record in own
            if record.kind == "attack" and record.status == "ok" and _has(record, metric)
        ]
        if not tried:
            continue
        alone = _strongest([one for one in tried if sees_releases_only(one)], metric)
        best = _strongest(tried, metric)
        if alone is not None and best is not None and _rank(best, metric) <= _rank(alone, metric):
            best = None
        found.append(Standing(protection, kept[-1] if kept else None, alone, best))
    return sorted(found, key=lambda one: -_rank(one.alone or one.informed, metric))


def sees_releases_only(record: Record) -> bool:
    """Whether an attack had nothing but releases, the algorithm and pictures of the kind."""
    try:
        return not _MORE & open_threat_model(record.threat_model).grants
    except SettingsError:  # a plugin's threat model, which is not installed here
        return False


def _has(record: Record, metric: str) -> bool:
    return metric in record.metrics and not math.isnan(record.metrics[metric].value)


def _strongest(records: Sequence[Record], metric: str) -> Record | None:
    return max(records, key=lambda record: _rank(record, metric), default=None)


def _rank(record: Record | None, metric: str) -> float:
    return strength(metric, record.metrics[metric].value) if record else float("-inf")
