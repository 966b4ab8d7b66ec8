"""``docs/benchmarks.md`` out of the committed rows; everything on it can be made again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, ROOT, Book, Row

__all__ = ["NAMES", "PAGE", "number", "percent", "render_page", "table", "write_page"]

NAMES = (
    "decisions",
    "transfer",
    "transfer_curve",
    "speed",
    "speed_curve",
    "memory",
    "faults",
    "cells",
    "blackbox",
    "architectures",
    "encryption",
    "encryption_speed",
    "pevit",
    "peyolos",
    "hardened",
    "evaluation",
    "evaluation_memory",
    "jigsaw",
    "optimizers",
    "coding",
    "fuzz",
    "fractional",
    "compression",
    "split",
    "split_detection",
    "splits",
)
"""Every benchmark, in the order of the page; each is a module of this package that has a
``BENCHMARK``, and its rows are in ``results/NAME.json``."""

PAGE = ROOT / "docs" / "benchmarks.md"

_HEAD = """# Benchmarks

Written by `python -m benchmarks render` from `benchmarks/results/*.json`; do not edit.
`python -m benchmarks` measures everything again; it needs the pictures and models in
`../shared` and the extra `bench`. Intervals in brackets are Wilson's, 95 %.
"""


def render_page(folder: Path = RESULTS) -> str:
    """Return the page for the result files in ``folder``."""
    parts = [_HEAD]
    for name in NAMES:
        rows = Book(name, folder).rows
        if rows:
            benchmark = import_module(f"benchmarks.{name}").BENCHMARK
            parts += [benchmark.render(rows).strip() + "\n", _footnote(rows)]
    if len(parts) == 1:
        parts.append("Nothing has been measured yet.\n")
    return "\n".join(parts)


def write_page() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render_page(), "utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, its first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = [" | ".join(cells) for cells in (head, rule, *rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def percent(rate: dict[str, Any], *, interval: bool = True) -> str:
    """Return a rate like ``1.2 % [0.5, 2.6] (10/846)``."""
    if rate["rate"] is None:
        return "–"
    low, high = 100 * rate["low"], 100 * rate["high"]
    between = f" [{low:.1f}, {high:.1f}]" if interval else ""
    return f"{100 * rate['rate']:.1f} %{between} ({rate['count']}/{rate['n']})"


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with its insignificant zeros cut off, or a dash."""
    if value is None:
        return "–"
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _footnote(rows: Sequence[Row]) -> str:
    """Say where the rows were measured; each different environment once."""
    places = []
    for row in rows:
        env = row["environment"]
        threads = f"{env['threads']} thread{'s' if env['threads'] != 1 else ''}"
        place = (
            f"scotoma {env['scotoma']}, torch {env['torch']}, timm {env['timm']}, "
            f"Python {env['python']}, {env['cpu']}, {threads}, seed {row['seed']}, {env['date']}"
        )
        if place not in places:
            places.append(place)
    return f"*Measured with {'; '.join(places)}.*\n"
