"""What each setting of the search gains on models that took no part: one changed at a time.

The goals of the transfer table are missed; these rows show by how much each idea helps, and
where it stops helping. Models searched with: MobileNetV2 and SqueezeNet; left out: the
MobileNetV1 family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.jobs import describe_search
from benchmarks.page import number, percent, table
from benchmarks.record import Benchmark, Job, Measured, Options, Row
from benchmarks.transfer import FAMILIES, PICTURES, measure

__all__ = ["BENCHMARK"]

SOURCES = ("mobilenetv2", "squeezenet1_1")
LEFT_OUT = tuple(name for name in FAMILIES if name not in SOURCES)
BASE = "as shipped"  # the name of what was, when the trials began
BASE_TRANSFER = {"steps": 16, "margin": 6.0, "diversity": 1.0}
CHANGES: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    (BASE, {}, {}),
    ("least steps 0", {}, {"steps": 0}),
    ("least steps 4", {}, {"steps": 4}),
    ("least steps 64", {}, {"steps": 64}),
    ("least steps 64, margin 12", {}, {"steps": 64, "margin": 12.0}),
    ("margin 2", {}, {"margin": 2.0}),
    ("margin 12", {}, {"margin": 12.0}),
    ("no random views", {}, {"diversity": 0.0}),
    ("random views twice as strong", {}, {"diversity": 2.0}),
    ("momentum 0.9", {"momentum": 0.9}, {}),
    ("cells of 2/256", {"cell": 2.0}, {}),
    ("cells of 8/256", {"cell": 8.0}, {}),
    ("cells of 16/256", {"cell": 16.0}, {}),
)
"""Name, changed fields of the search, changed fields of its transfer settings."""
_BASE_TEXT = "none: 16 steps at least, margin 6"
_COLUMNS = ("all", "flipped")
EXEMPLAR_CHANGES = (
    BASE,
    "least steps 0",
    "least steps 64",
    "least steps 64, margin 12",
    "margin 12",
    "cells of 8/256",
)


def _jobs(options: Options) -> Iterator[Job]:
    from scotoma.protections.anonymize.settings import SearchSettings, Transfer

    for mode in ("transfer", "transfer + exemplars"):
        for name, search_fields, transfer_fields in CHANGES:
            if (name not in EXEMPLAR_CHANGES) if "exemplars" in mode else "64, margin" in name:
                continue
            search = SearchSettings(
                **search_fields, transfer=Transfer(**{**BASE_TRANSFER, **transfer_fields})
            )
            config = {
                "regions": "center:0.3",
                "sources": list(SOURCES),
                "mode": mode,
                "change": name,
                "subset": 6 if options.quick else options.subset,
                "pictures": PICTURES,
                "seed": options.seed,
                "search": describe_search(search),
            }
            what = f"agreement of the family left out: {mode}, {name}"
            yield Job(what, config, partial(_measure, config, search, options))


def _measure(config: dict[str, Any], search: Any, options: Options) -> Measured:
    measured = measure(config, search, options)
    values = dict(measured.values)
    models = values.pop("models")
    return Measured(measured.n, {**values, "models": {name: models[name] for name in LEFT_OUT}})


def _render(rows: Sequence[Row]) -> str:
    head = ["setting changed", "exemplars", "steps: mean"]
    head += [f"{name}: {key}" for name in LEFT_OUT for key in _COLUMNS]
    lines = [
        [
            _BASE_TEXT if row["config"]["change"] == BASE else row["config"]["change"],
            "yes" if "exemplars" in row["config"]["mode"] else "no",
            number(row["values"]["steps"]["mean"], 1),
            *(percent(row["values"]["models"][n][key]) for n in LEFT_OUT for key in _COLUMNS),
        ]
        for row in rows
    ]
    return "\n".join(
        [
            "## Transfer, one setting changed at a time",
            "",
            f"`center:0.3`, {rows[0]['n']} pictures, searched with {' and '.join(SOURCES)}; "
            "agreement of the models left out, of all pictures and of those that the fill alone "
            "flips on them. The goal is 75 % of the flipped. What won is what is shipped: "
            "at least 64 steps.",
            "",
            table(head, lines),
        ]
    )


BENCHMARK = Benchmark("transfer_curve", _jobs, _render)
