"""Black-box optimizers at equal evaluations on the CEC 2008 functions, and what each part brings.

Every search begins in the middle of the box. A row is one optimizer on one function; those
with randomness run with several seeds on the same function.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from benchmarks.large_scale_functions import FUNCTIONS, LargeScaleFunction, open_function
from benchmarks.page import table
from benchmarks.record import Benchmark, Job, Measured, Options, Row
from scotoma.optimize.registry import open_method
from scotoma.optimize.search import Search

__all__ = ["BENCHMARK", "TIE", "compare"]

TIE = 1e-8
"""Errors below this count as none."""

_BUDGETS = {100: 100_000, 500: 50_000, 1000: 50_000}
_SMALL = {20: 4_000}
_OPTIMIZERS = ("fda", "fda-lines", "cma-es", "de", "pso", "random")
_OURS = "fda-lines"
_RANDOMLESS = ("fda",)
_SEEDS = 3
_CURVE = 24
_TURNED = ("fda", "fda-lines", "cma-es", "de")
_WITHOUT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("everything", {}),
    ("no scans: descend only", {"points": 0}),
    ("scans of the whole box only", {"levels": 1}),
    ("no parabolas into valleys", {"valleys": 0}),
    ("scans one line after the other", {"together": False}),
    ("no remembered slopes", {"memory": 0}),
)


def _jobs(options: Options) -> Iterator[Job]:
    budgets = {20: 4_000} if options.quick else _BUDGETS
    first, last = min(budgets), max(budgets)
    for dimensions, budget in budgets.items():
        for name in FUNCTIONS:
            for optimizer in _OPTIMIZERS:
                yield _job("table", name, dimensions, optimizer, budget, options)
    for name in FUNCTIONS:
        for optimizer in _TURNED:
            yield _job("turned", name, first, optimizer, budgets[first], options)
    small = {} if options.quick else _SMALL
    for dimensions, budget in {**small, first: budgets[first], last: budgets[last]}.items():
        for name in FUNCTIONS:
            # The table has the row with everything, where it has these dimensions.
            for _, settings in _WITHOUT[dimensions in budgets :]:
                yield _job("without", name, dimensions, _OURS, budget, options, settings)


def _job(
    part: str,
    name: str,
    dimensions: int,
    optimizer: str,
    budget: int,
    options: Options,
    settings: Mapping[str, Any] | None = None,
) -> Job:
    seeds = 1 if optimizer in _RANDOMLESS or options.quick else _SEEDS
    config = {
        "part": part,
        "function": name,
        "dimensions": dimensions,
        "optimizer": optimizer,
        "settings": asdict(open_method(optimizer, settings)),  # type: ignore[call-overload]
        "budget": budget,
        "seeds": [options.seed + seed for seed in range(seeds)],
        "instance": options.seed,
        "start": "middle",
    }
    changes = "".join(f", {key} {value}" for key, value in (settings or {}).items())
    what = f"{part}: {name}, D = {dimensions}, {optimizer}{changes}"
    return Job(what, config, partial(_measure, config))


def _measure(config: Mapping[str, Any]) -> Measured:
    function = open_function(
        config["function"],
        config["dimensions"],
        seed=config["instance"],
        rotated=config["part"] == "turned",
    )
    runs = [_run(function, config, seed) for seed in config["seeds"]]
    curves = np.array([run["curve"] for run in runs])
    values = {
        "errors": [run["error"] for run in runs],
        "median": median(run["error"] for run in runs),
        "search_us": median(run["search_us"] for run in runs),
        "function_us": median(run["function_us"] for run in runs),
        "evaluations": _marks(config["budget"]).tolist(),
        "curve": np.median(curves, axis=0).tolist(),
    }
    return Measured(len(runs), values)


def _run(function: LargeScaleFunction, config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return one run's error and processor time: the search's own and the function's."""
    marks = _marks(config["budget"])
    curve = np.empty(len(marks))
    begun = time.process_time()
    search = Search(
        config["optimizer"],
        function.bounds,
        budget=config["budget"],
        seed=seed,
        settings=config["settings"],
    )
    inside, mark, best = 0.0, 0, np.inf
    while not search.is_over:
        points = search.ask()
        entered = time.process_time()
        values = function.evaluate(points)
        inside += time.process_time() - entered
        while mark < len(marks) and marks[mark] <= search.evaluations + len(values):
            seen = values[: marks[mark] - search.evaluations].min()
            curve[mark] = min(best, seen)
            mark += 1
        search.tell(values)
        best = search.best.value
    spent = time.process_time() - begun - inside
    curve[mark:] = best
    return {
        "error": best,
        "curve": curve,
        "search_us": 1e6 * spent / search.evaluations,
        "function_us": 1e6 * inside / search.evaluations,
    }


def _marks(budget: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the evaluation counts at which a curve is read."""
    return np.unique(np.geomspace(1, budget, _CURVE).round().astype(np.intp))


def _render(rows: Sequence[Row]) -> str:
    parts = {
        part: [row for row in rows if row["config"]["part"] == part]
        for part in ("table", "turned", "without")
    }
    text = [
        "## Black-box optimizers\n",
        "CEC 2008's large-scale functions by the published recipe (see "
        "`benchmarks/large_scale_functions.py`), equal evaluations, every search from the middle "
        f"of the box; median error, {_SEEDS} seeds where there is randomness. Below {TIE:.0e} is "
        "written 0 and is a tie. F7's least value is unknown: its values stand themselves. "
        "CMA-ES is the separable variant from 500 dimensions on; the full matrix would take "
        "milliseconds for each evaluation there. F7 is the same in every coordinate and not "
        "shifted: a search that begins in the middle and treats all axes alike has luck there.\n",
    ]
    for dimensions in sorted({row["config"]["dimensions"] for row in parts["table"]}):
        chosen = [row for row in parts["table"] if row["config"]["dimensions"] == dimensions]
        budget = chosen[0]["config"]["budget"]
        text += [f"### D = {dimensions}, {budget:,} evaluations\n", _errors(chosen)]
    if parts["table"]:
        text += [_verdict(parts["table"]), _times(parts["table"])]
    if parts["turned"]:
        text += [
            "### Turned functions\n",
            "The same, turned in space at random, so that no line of the box is one of the "
            "function's (D = "
            f"{parts['turned'][0]['config']['dimensions']}). It is also what searching along "
            "random orthogonal lines would bring on the functions as they are.\n",
            _errors(parts["turned"]),
        ]
    if parts["without"]:
        text += ["### What each part of fda-lines brings\n", _ablation(parts)]
    return "\n".join(text)


def _errors(rows: Sequence[Row]) -> str:
    """Return functions by optimizers, the best in bold."""
    names = [n for n in _OPTIMIZERS if any(row["config"]["optimizer"] == n for row in rows)]
    lines = []
    for function in FUNCTIONS:
        found = {
            row["config"]["optimizer"]: row["values"]["median"]
            for row in rows
            if row["config"]["function"] == function
        }
        if found:
            cells = [_cell(found.get(name), found.values(), function) for name in names]
            lines.append([f"{function} {_title(function)}", *cells])
    return table(["function", *names], lines)


def _title(function: str) -> str:
    return open_function(function, 2, seed=0).title


def _cell(value: float | None, others: Any, function: str) -> str:
    if value is None:
        return "–"
    text = _error(value, function)
    return f"**{text}**" if _is_best(value, others) else text


def _error(value: float, function: str) -> str:
    if function == "F7":
        return f"{value:,.0f}".replace("-", "−")
    if value < TIE:
        return "0"
    return f"{value:.2g}" if value < 1e4 else f"{value:.1e}"


def _is_best(value: float, others: Any) -> bool:
    return bool(value <= min(others) + TIE)


def compare(rows: Sequence[Row]) -> tuple[int, list[str]]:
    """Return in how many cells every search has a row, and those in which ours is not best."""
    cells: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        config = row["config"]
        if config["part"] != "table":
            continue
        cell = cells.setdefault((config["function"], config["dimensions"]), {})
        cell[config["optimizer"]] = row["values"]["median"]
    # A cell that lacks a rival says nothing yet.
    cells = {where: cell for where, cell in cells.items() if len(cell) == len(_OPTIMIZERS)}
    lost = []
    for (function, dimensions), cell in cells.items():
        if not _is_best(cell[_OURS], cell.values()):
            name = min(cell, key=lambda other: cell[other])
            lost.append(
                f"{function} at D = {dimensions} to {name} "
                f"({_error(cell[name], function)} against {_error(cell[_OURS], function)})"
            )
    return len(cells), lost


def _verdict(rows: Sequence[Row]) -> str:
    """Say how often ours is best or tied, and where it is not."""
    count, lost = compare(rows)
    losses = f"Lost: {'; '.join(lost)}." if lost else "Lost: none."
    return (
        f"`{_OURS}` is best or tied in {count - len(lost)} of the {count} cells that all "
        f"have a row in (goal: at least half). {losses}\n"
    )


def _times(rows: Sequence[Row]) -> str:
    """Return the processor time of searching alone, by dimensions and optimizers."""
    lines = []
    for dimensions in sorted({row["config"]["dimensions"] for row in rows}):
        cells = []
        for name in _OPTIMIZERS:
            spent = [
                row["values"]["search_us"]
                for row in rows
                if (row["config"]["dimensions"], row["config"]["optimizer"]) == (dimensions, name)
            ]
            cells.append(f"{median(spent):.1f}" if spent else "–")
        lines.append([f"D = {dimensions}", *cells])
    return (
        "Microseconds of processor time that the search itself takes for each evaluation, median "
        "over the functions (goal: below 20 at D = 100):\n\n" + table(["", *_OPTIMIZERS], lines)
    )


def _ablation(parts: Mapping[str, Sequence[Row]]) -> str:
    """Return the median errors without one part each."""
    dimensions = sorted({row["config"]["dimensions"] for row in parts["without"]})
    columns = [(d, function) for d in dimensions for function in FUNCTIONS]
    lines = []
    for label, settings in _WITHOUT:
        wanted = asdict(open_method(_OURS, settings))  # type: ignore[call-overload]
        found = {
            (row["config"]["dimensions"], row["config"]["function"]): row["values"]["median"]
            for row in [*parts["without"], *parts["table"]]
            if row["config"]["optimizer"] == _OURS and row["config"]["settings"] == wanted
        }
        cells = [_error(found[at], at[1]) if at in found else "–" for at in columns]
        lines.append([label, *cells])
    return table(["", *(f"{function}, {d}" for d, function in columns)], lines)


BENCHMARK = Benchmark("optimizers", _jobs, _render)
