"""Limits on what may leak or be lost, for a user's own tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.evaluate.records import Figure, Record
from scotoma.evaluate.subjects import PLAIN

__all__ = ["Breach", "Limit", "check_limits", "parse_limit"]


@dataclass(frozen=True)
class Limit:
    """A bound on a metric.

    Args:
        metric: Its name, or a part by which only one metric begins: ``reid``.
        bound: The value.
        is_upper: Whether values may not exceed it; else they may not fall below it.
    """

    metric: str
    bound: float
    is_upper: bool

    def __post_init__(self) -> None:
        if self.bound != self.bound:
            raise SettingsError(f"expected a number as limit of {self.metric}, got NaN")

    def holds(self, figure: Figure, *, strict: bool) -> bool:
        """Whether a figure keeps the limit; NaN does not.

        Args:
            figure: What was measured.
            strict: Ask it of the interval's far end, not of the value.
        """
        if self.is_upper:
            return (figure.high if strict else figure.value) <= self.bound
        return (figure.low if strict else figure.value) >= self.bound


@dataclass(frozen=True)
class Breach:
    """A limit that is broken.

    Args:
        record: By what.
        metric: Full name; empty of a cell that failed.
        reason: In words.
    """

    record: Record
    metric: str
    reason: str


def parse_limit(option: str, value: str) -> Limit:
    """Return the limit of an option such as ``--max-ssim 0.3``.

    Raises:
        SettingsError: Another form, or a value that is no number.
    """
    kind, _, metric = option.removeprefix("--").partition("-")
    if kind not in ("max", "min") or not metric or not option.startswith("--"):
        raise SettingsError(f"expected --max-METRIC NUMBER or --min-METRIC NUMBER, got {option!r}")
    try:
        bound = float(value)
    except ValueError as error:
        raise SettingsError(f"expected a number after {option}, got {value!r}") from error
    return Limit(metric.replace("-", "_"), bound, kind == "max")


def check_limits(
    records: Sequence[Record],
    limits: Sequence[Limit],
    *,
    protections: Sequence[str] = (),
    strict: bool = False,
) -> list[Breach]:
    """Return every limit that a record breaks; cells that failed break all.

    Args:
        records: Of an evaluation.
        limits: At least one.
        protections: Labels that are looked at; all but ``none`` by default, which protects
            nothing and is there to compare with.
        strict: Ask it of the far ends of the 95 % intervals.

    Raises:
        UnknownNameError: A metric that no record has, or no such protection.
        SettingsError: No limit, or no record to check.
    """
    if not limits:
        raise SettingsError("expected limits, as --max-ssim 0.3, got none")
    chosen = _chosen(records, protections)
    measured = [record for record in chosen if record.status == "ok"]
    known = sorted({name for record in measured for name in record.metrics})
    breaches = [
        Breach(record, "", f"could not be measured: {record.reason}")
        for record in chosen
        if record.status == "failed"
    ]
    for limit in limits:
        metric = _resolve(limit.metric, known)
        for record in measured:
            figure = record.metrics.get(metric)
            if figure is not None and not limit.holds(figure, strict=strict):
                breaches.append(Breach(record, metric, _sentence(metric, figure, limit, strict)))
    return breaches


def _chosen(records: Sequence[Record], protections: Sequence[str]) -> list[Record]:
    labels = sorted({record.protection.label for record in records})
    for label in protections:
        if label not in labels:
            raise UnknownNameError("protection in these records", label, labels)
    chosen = [
        record
        for record in records
        if record.protection.label in protections
        or (not protections and record.protection.name != PLAIN)
    ]
    if not any(record.status != "not-applicable" for record in chosen):
        raise SettingsError("expected measurements to check, got none; run scotoma evaluate")
    return chosen


def _resolve(name: str, known: Sequence[str]) -> str:
    if name in known:
        return name
    near = [metric for metric in known if metric.startswith(name)]
    if len(near) == 1:
        return near[0]
    if near:
        raise SettingsError(f"expected one metric, got {name!r}, which begins {', '.join(near)}")
    raise UnknownNameError("metric in these records", name, known)


def _sentence(metric: str, figure: Figure, limit: Limit, strict: bool) -> str:
    unit = f" {figure.unit}" if figure.unit else ""
    side = "at most" if limit.is_upper else "at least"
    interval = f" ({figure.low:.3g} to {figure.high:.3g})" if strict else ""
    return f"{metric} {figure.value:.3g}{unit}{interval}, expected {side} {limit.bound:g}{unit}"
