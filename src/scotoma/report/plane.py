"""The privacy-utility plane: what is kept, and what the strongest attack gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scotoma.evaluate.metrics.registry import MEASURES
from scotoma.evaluate.records import Figure, Record
from scotoma.report.markup import Html, element, join
from scotoma.report.measures import is_rate, label, show_interval, show_value
from scotoma.report.standings import Standing

__all__ = ["draw_plane"]

_WIDTH, _HEIGHT = 480, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 18, 26, 48
_GUTTER = 64  # for what has no utility measured
_RADIUS = 9.5
_STEPS = 5  # of a scale, about


@dataclass(frozen=True)
class _Axis:
    """A scale from numbers to pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return at most seven round numbers."""
        rough = (self.high - self.low) / _STEPS
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * part for part in (1, 2, 5, 10) if size * part >= rough * 0.99)
        first = math.ceil(self.low / step - 1e-6)
        return [step * place for place in range(first, math.floor(self.high / step + 1e-6) + 1)]


@dataclass(frozen=True)
class _Mark:
    """A protection's place; ``top`` is that of an attack that knows more."""

    number: int
    standing: Standing
    x: float
    y: float
    top: float | None

    def covers(self, other: _Mark) -> bool:
        return math.hypot(self.x - other.x, self.y - other.y) < 2 * _RADIUS + 1


def draw_plane(standings: Sequence[Standing], metric: str, name: str) -> Html:
    """Return the plane as inline SVG; numbers are places in ``standings``, from 1.

    Args:
        standings: Of one scene.
        metric: Up: what attacks get.
        name: An id of its own in the page.
    """
    has_gutter = any(one.kept is None for one in standings)
    across = _across(standings, _LEFT + (_GUTTER if has_gutter else 0))
    up = _up(standings, metric)
    marks: list[_Mark] = []
    for number, standing in enumerate(standings, start=1):
        x = _LEFT + _GUTTER / 2 if standing.kept is None else across.at(standing.kept.value)
        heights = [
            up.at(record.metrics[metric].value)
            for record in (standing.alone, standing.informed)
            if record is not None
        ]
        top = heights[1] if len(heights) == 2 else None
        marks.append(_moved(_Mark(number, standing, x, heights[0], top), marks))
    words = f"{label(metric)} against decisions kept; the table beside it has the same figures"
    return element(
        "svg",
        element("title", words, id=f"{name}-title"),
        _grid(across, up, metric, has_gutter),
        *(_chance(mark, metric, up) for mark in marks),
        *(_drawn(mark, metric) for mark in marks[::-1]),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_labelledby=f"{name}-title",
        class_="plane",
    )


def _across(standings: Sequence[Standing], start: float) -> _Axis:
    values = [one.kept.value for one in standings if one.kept is not None]
    low = min(math.floor(10 * min(values, default=0.9) - 1e-9) / 10, 0.5)
    return _Axis(max(0.0, low), 1.0, start + 16, _WIDTH - _RIGHT - 12)


def _up(standings: Sequence[Standing], metric: str) -> _Axis:
    bottom, top = _HEIGHT - _BOTTOM - 10.0, _TOP + 10.0
    records = [record for one in standings for record in (one.alone, one.informed) if record]
    values = [
        figures[metric].value
        for record in records
        for figures in (record.metrics, record.trivial)
        if metric in figures and math.isfinite(figures[metric].value)
    ]
    known = MEASURES.get(metric)
    falls = known is not None and known.better == "lower"
    high = 1.0
    if max(values, default=0) > 1:
        step = 10.0 ** math.floor(math.log10(max(values)))
        high = math.ceil(max(values) / step) * step
    low = min(0.0, math.floor(min(values, default=0.0)))
    return _Axis(low, high, top, bottom) if falls else _Axis(low, high, bottom, top)


def _moved(mark: _Mark, others: Sequence[_Mark]) -> _Mark:
    """Return the mark beside those that it would cover, as near as there is room."""
    step = 2 * _RADIUS + 2
    inward = -1 if mark.x > _WIDTH / 2 else 1
    for place in range(len(others) + 1):
        moved = replace(mark, x=mark.x + inward * step * place)
        if not any(moved.covers(other) for other in others):
            return moved
    return mark


def _grid(across: _Axis, up: _Axis, metric: str, has_gutter: bool) -> Html:
    bottom = _HEIGHT - _BOTTOM
    lines = [
        join(
            element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_px(y), y2=_px(y), class_="grid"),
            element("text", _tick(value, metric), x=_LEFT - 7, y=_px(y + 4), class_="tick end"),
        )
        for value, y in ((value, up.at(value)) for value in up.ticks())
    ]
    lines += [
        join(
            element("line", x1=_px(x), x2=_px(x), y1=bottom, y2=bottom + 4, class_="grid"),
            element("text", f"{100 * value:.0f} %", x=_px(x), y=bottom + 17, class_="tick middle"),
        )
        for value, x in ((value, across.at(value)) for value in across.ticks())
    ]
    if has_gutter:
        x = _LEFT + _GUTTER
        lines.append(
            join(
                element("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="grid dashed"),
                element(
                    "text",
                    "not asked",
                    x=_px(_LEFT + _GUTTER / 2),
                    y=bottom + 17,
                    class_="tick middle",
                ),
            )
        )
    middle = (across.start + across.end) / 2
    lines.append(element("text", f"↑ {label(metric)}", x=0, y=_TOP - 6, class_="axis"))
    lines.append(
        element("text", "decisions kept →", x=_px(middle), y=_HEIGHT - 8, class_="axis middle")
    )
    return join(*lines)


def _chance(mark: _Mark, metric: str, up: _Axis) -> Html | None:
    record = mark.standing.alone or mark.standing.informed
    trivial = record.trivial.get(metric) if record else None
    if trivial is None or math.isnan(trivial.value):
        return None
    y = _px(up.at(trivial.value))
    x1, x2 = _px(mark.x - _RADIUS - 3), _px(mark.x + _RADIUS + 3)
    return element("line", x1=x1, x2=x2, y1=y, y2=y, class_="chance")


def _drawn(mark: _Mark, metric: str) -> Html:
    one = mark.standing
    x = _px(mark.x)
    parts: list[Html] = []
    if mark.top is not None and one.informed is not None:
        parts.append(
            element(
                "g",
                element("title", _words(one, one.informed, metric)),
                element("line", x1=x, x2=x, y1=_px(mark.y), y2=_px(mark.top)),
                element("circle", cx=x, cy=_px(mark.top), r=_px(_RADIUS / 2)),
                class_="informed",
            )
        )
    record = one.alone or one.informed
    if record is not None:
        parts.append(
            element(
                "g",
                element("title", _words(one, record, metric)),
                element("circle", cx=x, cy=_px(mark.y), r=_px(_RADIUS)),
                element("text", str(mark.number), x=x, y=_px(mark.y + 3.8), class_="middle"),
                class_="alone" if one.alone else "informed",
            )
        )
    return join(*parts)


def _words(standing: Standing, record: Record, metric: str) -> str:
    figure = record.metrics[metric]
    attack = record.attack.label if record.attack else ""
    kept = "not asked" if standing.kept is None else show_value("agreement", standing.kept)
    return (
        f"{standing.protection}: {label(metric)} {show_value(metric, figure)}"
        f"{_bracketed(metric, figure)} by {attack}, {record.threat_model}; decisions kept: {kept}"
    )


def _bracketed(metric: str, figure: Figure) -> str:
    interval = show_interval(metric, figure)
    return f" ({interval})" if interval else ""


def _tick(value: float, metric: str) -> str:
    if is_rate(metric):
        return f"{100 * value:.0f} %"
    return f"{value:.1f}".removesuffix(".0") if abs(value) < 10 else f"{value:.0f}"


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
