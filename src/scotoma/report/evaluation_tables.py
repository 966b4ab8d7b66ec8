"""The tables of an evaluation report: standings, utility, every cell, and the papers' figures."""

from __future__ import annotations

import json
from collections.abc import Sequence

from scotoma.evaluate.records import Choice, Figure, Record
from scotoma.report.figures import count, glue
from scotoma.report.markup import Html, element, join
from scotoma.report.measures import label, show_interval, show_value, strength
from scotoma.report.standings import Standing, sees_releases_only

__all__ = [
    "attacks_table",
    "failures_table",
    "paper_table",
    "standings_table",
    "utility_table",
]

_CHANCE = "chance_"
_UTILITY = (
    "agreement",
    "logit_error",
    "top1",
    "top1_plain",
    "top5",
    "top5_plain",
    "map",
    "bits_per_pixel",
    "protect_ms",
    "latency_ms",
    "latency_plain_ms",
)


def standings_table(standings: Sequence[Standing], metric: str) -> Html:
    """Return the plane's figures, row by row under the plane's numbers."""
    heads = ("Protection", "Decisions kept", "On releases alone", "With more knowledge")
    rows = []
    for number, one in enumerate(standings, start=1):
        name = join(element("span", str(number), class_="number", aria_hidden="true"))
        cells = [
            _cell(heads[1], [_figure("agreement", one.kept)] if one.kept else [_none("not asked")]),
            _cell(heads[2], _attack(one.alone, metric, chance=True)),
            _cell(heads[3], _attack(one.informed, metric, chance=False)),
        ]
        rows.append((element("span", name, " ", one.protection), cells))
    return _table(heads, rows, "cells standings")


def utility_table(records: Sequence[Record]) -> Html | None:
    """Return what models still say of releases; None where nobody asked."""
    asked = [record for record in records if record.kind == "utility" and record.status == "ok"]
    measured = {name for record in asked for name in record.metrics}
    names = [name for name in _UTILITY if name in measured]
    names += sorted(measured - {*_UTILITY, "decision_changes"})
    if not asked:
        return None
    rows = [
        (
            join(record.protection.label, element("small", _size(record)), *_notes(record)),
            [_measured(record, name) for name in names],
        )
        for record in asked
    ]
    return _table(("Protection", *map(label, names)), rows, "cells wide")


def attacks_table(records: Sequence[Record], metrics: Sequence[str], *, is_open: bool) -> Html:
    """Return every attack on every protection of a scene, one folded table for each protection.

    Args:
        records: Of the scene.
        metrics: What attacks are compared by: these columns come first, the first one sorts.
        is_open: Unfold them.
    """
    tried = [record for record in records if record.kind == "attack"]
    labels = list(dict.fromkeys(record.protection.label for record in tried))
    return join(
        *(
            _protection([one for one in tried if one.protection.label == name], metrics, is_open)
            for name in labels
        )
    )


def failures_table(records: Sequence[Record]) -> Html | None:
    """Return the cells that failed, with their errors; None if none did."""
    rows = [
        (record.title, [_cell("Error", [element("span", record.reason)])])
        for record in records
        if record.status == "failed"
    ]
    return _table(("Cell", "Error"), rows, "cells errors") if rows else None


def paper_table(records: Sequence[Record]) -> Html | None:
    """Return published figures beside ours; None if no record names one."""
    heads = ("Cell", "Figure", "Ours", "Published", "Where")
    rows = []
    for record in records:
        for name, paper in record.paper.items():
            ours = record.metrics.get(name)
            published = Figure(
                paper.value, float("nan"), float("nan"), 0, ours.unit if ours else ""
            )
            cells = [
                _cell(heads[1], [element("span", label(name))]),
                _cell(heads[2], [_figure(name, ours)] if ours else [_none("not measured")]),
                _cell(heads[3], [element("span", glue(show_value(name, published)))]),
                _cell(heads[4], [element("span", paper.source)]),
            ]
            rows.append((record.title, cells))
    return _table(heads, rows, "cells papers") if rows else None


def _protection(records: Sequence[Record], metrics: Sequence[str], is_open: bool) -> Html:
    done = [record for record in records if record.status == "ok"]
    measured = {name for record in done for name in record.metrics}
    names = [name for name in metrics if name in measured]
    names += sorted(name for name in measured - {*names} if not name.startswith(_CHANCE))
    lead = names[0] if names else ""
    done.sort(key=lambda record: -_rank(record, lead))
    rows = [(_attack_head(record), [_measured(record, name) for name in names]) for record in done]
    idle = [record for record in records if record.status == "not-applicable"]
    chosen = records[0].protection
    best = _best(done, lead)
    return element(
        "details",
        element(
            "summary",
            element("b", chosen.label),
            element("span", best, class_="muted") if best else None,
            element("small", _settings(chosen)) if _settings(chosen) else None,
        ),
        _table(("Attack", *map(label, names)), rows, "cells wide") if rows else None,
        _idle(idle) if idle else None,
        class_="protection",
        open="" if is_open else None,
    )


def _idle(records: Sequence[Record]) -> Html:
    items = (
        element(
            "li",
            element("b", record.attack.label if record.attack else "utility"),
            f" · {record.threat_model}: {record.reason}",
        )
        for record in records
    )
    return element(
        "div",
        element("p", f"{count(len(records), 'cell')} where the attack does not apply:"),
        element("ul", *items),
        class_="idle",
    )


def _attack_head(record: Record) -> Html:
    tags = []
    if record.oracle:
        words = f"The best of {record.candidates} candidates, chosen with the originals in hand"
        tags.append(element("span", f"oracle of {record.candidates}", class_="tag", title=words))
    return join(
        record.attack.label if record.attack else "",
        element("small", record.threat_model),
        element("small", _size(record)),
        element("small", *tags) if tags else None,
        *_notes(record),
    )


def _attack(record: Record | None, metric: str, *, chance: bool) -> list[Html]:
    if record is None:
        return [_none("none tried" if chance else "no stronger")]
    parts = [_figure(metric, record.metrics[metric])]
    if record.attack:
        threat = "" if sees_releases_only(record) and not chance else f", {record.threat_model}"
        oracle = " (oracle)" if record.oracle else ""
        parts.append(element("small", f"{record.attack.label}{threat}{oracle}"))
    if chance and metric in record.trivial:
        value = show_value(metric, record.trivial[metric])
        parts.append(element("small", glue(f"trivial guess {value}")))
    return parts


def _measured(record: Record, name: str) -> Html:
    figure = record.metrics.get(name)
    if figure is None:
        return _cell(label(name), [_none("–")])
    parts = [_figure(name, figure)]
    if name in record.trivial:
        value = show_value(name, record.trivial[name])
        parts.append(element("small", glue(f"trivial {value}")))
    chance = record.metrics.get(_CHANCE + name)
    if chance is not None:
        parts.append(element("small", glue(f"chance {show_value(name, chance)}")))
    if name in record.paper:
        paper = record.paper[name]
        value = show_value(name, Figure(paper.value, paper.value, paper.value, 0, figure.unit))
        parts.append(element("small", glue(f"paper {value}"), title=paper.source))
    return _cell(label(name), parts)


def _figure(name: str, figure: Figure) -> Html:
    interval = show_interval(name, figure)
    return join(
        element("span", glue(show_value(name, figure)), class_="rate"),
        element("small", glue(interval), class_="beside-it")
        if interval and figure.low != figure.high
        else None,
    )


def _best(done: Sequence[Record], lead: str) -> str:
    if not done or not lead:
        return "nothing measured"
    top = done[0].metrics.get(lead)
    return glue(f"up to {show_value(lead, top)} {label(lead)}") if top else ""


def _rank(record: Record, name: str) -> float:
    figure = record.metrics.get(name)
    return strength(name, figure.value) if figure else float("-inf")


def _settings(chosen: Choice) -> str:
    shown = {name: value for name, value in chosen.settings.items() if name != "scheme"}
    parts = [f"{name} {json.dumps(value).strip(chr(34))}" for name, value in shown.items()]
    return ", ".join([chosen.name, *parts] if chosen.label != chosen.name else parts)


def _size(record: Record) -> str:
    words = count(record.n, "picture")
    return f"{words}, {count(record.keys, 'key')}" if record.keys else words


def _notes(record: Record) -> list[Html]:
    return [element("small", note, class_="remark") for note in record.notes]


def _none(words: str) -> Html:
    return element("span", words, class_="muted")


def _cell(name: str, parts: Sequence[Html]) -> Html:
    return element("td", *parts, data_label=name, role="cell")


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Html]]], style: str) -> Html:
    """Roles say again what a table is: narrow screens lay it out as blocks."""
    head = (element("th", name, scope="col", role="columnheader") for name in heads)
    body = (
        element("tr", element("th", name, scope="row", role="rowheader"), *cells, role="row")
        for name, cells in rows
    )
    table = element(
        "table",
        element("thead", element("tr", *head, role="row"), role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        class_=style,
        role="table",
    )
    return element("div", table, class_="scroll", tabindex="0", role="group", aria_label=heads[0])
