"""Every protection against every attack that has a hold on it, as ``scotoma evaluate`` does it.

A row is one configuration of ``benchmarks/evaluation``. Its records and its page, without
pictures, are in ``results/evaluation/NAME``; a run that was stopped goes on after the last cell.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.page import table
from benchmarks.record import CACHE, RESULTS, ROOT, Benchmark, Job, Measured, Options, Row

if TYPE_CHECKING:
    from scotoma.attacks.inversion.curve import Point
    from scotoma.evaluate.records import Record

__all__ = ["BENCHMARK"]

_FOLDER = ROOT / "benchmarks" / "evaluation"
_NAMES = ("imagenet", "imagenet-plain", "hardened", "faces", "cifar10", "learned", "learned-mix")
_BLIND = ("one-release", "many-releases")
"""Threat models of who has releases and nothing else that is not public."""

_SHOWN = (
    ("block_brightness_correlation", "brightness"),
    ("psnr_db", "PSNR"),
    ("neighbour_accuracy", "neighbours"),
    ("reid_rank1", "people recognized"),
)
_PUBLISHED = {
    "source": "this project's first measurements, 224 px: norms .98 to .999; PCA over two "
    "releases .89 to .94 at 8-pixel blocks, .81 to .92 at 16; one known picture gives the map"
}


def _jobs(options: Options) -> Iterator[Job]:
    for name in _NAMES:
        path = _FOLDER / f"{name}.toml"
        config = {"evaluation": name, "settings": path.read_text("utf-8"), "seed": options.seed}
        yield Job(f"evaluation: {name}", config, partial(_measure, path, options), _PUBLISHED)


def _measure(path: Path, options: Options) -> Measured:
    from scotoma.evaluate.config_reader import read_config
    from scotoma.evaluate.records import RECORDS, read_records
    from scotoma.evaluate.table import run_table
    from scotoma.report.evaluation import report_evaluation

    out = CACHE / "evaluation" / path.stem
    run_table(read_config(path), out, examples=0)
    records = read_records(out)
    if not options.quick:
        kept = RESULTS / "evaluation" / path.stem
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(out / RECORDS, kept / RECORDS)
        report_evaluation(kept, title=f"Evaluation: {path.stem}")
    return Measured(max((record.n for record in records), default=0), _values(records))


def _values(records: Sequence[Record]) -> dict[str, Any]:
    """Return the strongest attack on each protection, of those with and without knowledge."""
    cells = {"ok": 0, "not-applicable": 0, "failed": 0}
    for record in records:
        cells[record.status] += 1
    attacks = [r for r in records if r.kind == "attack" and r.status == "ok"]
    found = []
    for label in dict.fromkeys(record.protection.label for record in attacks):
        own = [record for record in attacks if record.protection.label == label]
        entry: dict[str, Any] = {"protection": label}
        for kind, few in (
            ("releases", [r for r in own if r.threat_model.partition(":")[0] in _BLIND]),
            ("knowledge", [r for r in own if r.threat_model.partition(":")[0] not in _BLIND]),
        ):
            entry[kind] = {name: _strongest(few, name) for name, _ in _SHOWN}
        kept = [r for r in records if r.kind == "utility" and r.protection.label == label]
        entry["agreement"] = _plain(kept[0], "agreement") if kept else None
        found.append(entry)
    return {"cells": cells, "protections": found, "learned": _curves(attacks)}


def _curves(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return of each attack that learned what it was worth at quarters of its training."""
    from scotoma.attacks.inversion.curve import Point, has_flattened

    curves = []
    for record in records:
        history = [
            Point(int(point["step"]), point["loss"], point["psnr_db"])
            for point in record.history
            if {"step", "loss", "psnr_db"} <= point.keys()
        ]
        if len(history) < 2 or record.attack is None:
            continue
        last = history[-1].step
        nearest = [_nearest(history, share * last) for share in (0, 0.25, 0.5, 0.75, 1)]
        curves.append(
            {
                "protection": record.protection.label,
                "attack": record.attack.label,
                "points": [[point.step, round(point.psnr_db, 2)] for point in nearest],
                "flattened": has_flattened(history),
            }
        )
    return curves


def _nearest(history: Sequence[Point], step: float) -> Point:
    return min(history, key=lambda point: abs(point.step - step))


def _strongest(records: Iterable[Record], metric: str) -> dict[str, Any] | None:
    there = [r for r in records if metric in r.metrics and not math.isnan(r.metrics[metric].value)]
    if not there:
        return None
    best = max(there, key=lambda record: record.metrics[metric].value)
    trivial = best.trivial.get(metric)
    return {
        "attack": best.attack.label if best.attack else "",
        "threat_model": best.threat_model,
        "oracle": best.oracle,
        **(_plain(best, metric) or {}),
        "trivial": None if trivial is None else _finite(trivial.value),
    }


def _plain(record: Record, metric: str) -> dict[str, Any] | None:
    figure = record.metrics.get(metric)
    if figure is None:
        return None
    return {
        "value": _finite(figure.value),
        "low": _finite(figure.low),
        "high": _finite(figure.high),
        "n": figure.n,
    }


def _finite(value: float) -> float | str | None:
    """Return what JSON can hold: pictures that are equal have an infinite PSNR."""
    if math.isnan(value):
        return None
    return round(value, 4) if math.isfinite(value) else str(value)


def _render(rows: Sequence[Row]) -> str:
    parts = [
        "## What attackers get",
        "",
        "The strongest attack on each protection, by each measure, over all that were tried: with "
        "releases alone, and with more (known or chosen pictures, the adapted model, the public "
        "one). *Brightness* is the correlation of the blocks' mean brightness within pictures, "
        "*neighbours* the share of patches put back beside the right ones, *people recognized* "
        "the rank-1 rate of a face embedder among other pictures of the people attacked. The best "
        "guess that needs no release is in parentheses. *o*: an oracle chose among candidates, "
        "originals in hand, of the attack as of chance. All cells, with intervals, notes and what "
        "does not apply, are in the records and pages of `benchmarks/results/evaluation`.",
    ]
    for row in rows:
        cells = row["values"]["cells"]
        parts += [
            "",
            f"### {row['config']['evaluation']}",
            "",
            f"{cells['ok']} cells measured, {cells['not-applicable']} do not apply, "
            f"{cells['failed']} failed; up to {row['n']} pictures a cell.",
            "",
            _table_of(row["values"]["protections"]),
        ]
        if row["values"]["learned"]:
            parts += ["", _table_of_curves(row["values"]["learned"])]
    return "\n".join(parts)


def _table_of(found: Sequence[dict[str, Any]]) -> str:
    shown = [
        (name, title)
        for name, title in _SHOWN
        if any(entry[kind][name] for entry in found for kind in ("releases", "knowledge"))
    ]
    head = ["protection", "decisions kept"]
    head += [f"{title}, releases alone" for _, title in shown]
    head += [f"{title}, with more" for name, title in shown if _any(found, name)]
    lines = []
    for entry in found:
        kept = entry["agreement"]
        lines.append(
            [
                entry["protection"],
                "–" if kept is None else f"{100 * kept['value']:.0f} %",
                *(_cell(name, entry["releases"][name]) for name, _ in shown),
                *(_cell(name, entry["knowledge"][name]) for name, _ in shown if _any(found, name)),
            ]
        )
    return table(head, lines)


def _table_of_curves(curves: Sequence[dict[str, Any]]) -> str:
    """Return the learned attacks' PSNR over their training, on pictures they kept aside."""
    head = ["learned attack, on", "untrained", "a quarter", "half", "three quarters", "trained"]
    lines = []
    for curve in curves:
        points = [f"{psnr:.1f} dB ({step})" for step, psnr in curve["points"]]
        lines.append(
            [
                f"{curve['attack']}, {curve['protection']}",
                *points,
                "yes" if curve["flattened"] else "no",
            ]
        )
    return table([*head, "flattened"], lines)


def _any(found: Sequence[dict[str, Any]], name: str) -> bool:
    return any(entry["knowledge"][name] for entry in found)


def _cell(name: str, best: dict[str, Any] | None) -> str:
    if best is None:
        return "–"
    mark = " *o*" if best["oracle"] else ""
    trivial = "" if best["trivial"] is None else f" ({_number(name, best['trivial'])})"
    threat = best["threat_model"].partition(":")[2]
    which = best["attack"] + (f":{threat}" if threat else "")
    return f"{_number(name, best['value'])}{trivial} {which}{mark}"


def _number(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return "exact"
    if name == "psnr_db":
        return f"{value:.0f} dB"
    if name == "block_brightness_correlation":
        return f"{value:.2f}"
    return f"{100 * value:.0f} %"


BENCHMARK = Benchmark("evaluation", _jobs, _render)
