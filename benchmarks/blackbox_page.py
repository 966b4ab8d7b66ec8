"""What scores alone keep, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.page import number, percent, table
from benchmarks.record import Row

__all__ = ["GOAL", "PAPER", "SHOWN_AT", "render"]

GOAL = 0.99
"""Share of decisions to keep, of all pictures."""

PAPER: dict[str, Any] = {
    "source": "Black-Box Optimization Based Adaptive Image Anonymization, CEC 2024; ImageNet "
    "faces, its own regions and queries",
    "kept_naive": 0.7447,
    "kept": 0.9811,
}

SHOWN_AT = (50, 100, 200, 500)
"""Queries after which curves are read."""


def render(rows: Sequence[Row]) -> str:
    """Return the section of the benchmarks' page."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row["config"]["kind"], []).append(row)
    limit = rows[0]["config"]["blackbox"]["queries"]
    text = [
        "## Black boxes",
        "",
        f"Decisions kept by scores alone, with at most {limit} queries for each picture, the "
        "originals' own included; ONNX exports asked through onnxruntime, the written files judged "
        f"by the original networks. Goal: {100 * GOAL:g} % of all pictures. `faces` rows are over "
        "the pictures with a face: a picture without one keeps its decision by itself. "
        "*Surrogates* are the other three networks, with their gradients. "
        f"Paper ({PAPER['source']}): {100 * PAPER['kept']:.2f} % kept, "
        f"{100 * PAPER['kept_naive']:.2f} % by naive anonymization.",
        "",
    ]
    if "kept" in kinds:
        head = ["regions, model", "n", "kept by the fill", "kept", "of flipped", "queries: median"]
        head += ["of flipped: median / mean / p95", "pictures/s", f"≥ {100 * GOAL:g} %"]
        text += [table(head, map(_kept_line, kinds["kept"]))]
    if "optimizer" in kinds:
        first = kinds["optimizer"][0]["config"]
        asked = f"{first['model']}, {first['regions']}"
        text += [
            "Other searches at equal queries, each after the same echoes of the surroundings; "
            f"share of all pictures kept within so many queries ({asked}):",
            "",
            table(["search", "n", *map(str, SHOWN_AT)], map(_curve_line, kinds["optimizer"])),
        ]
    if "content" in kinds:
        text += [
            "What the numbers mean, searched by `linear` without pieces:",
            "",
            table(["content", "n", *map(str, SHOWN_AT)], map(_curve_line, kinds["content"])),
        ]
    if "speed" in kinds:
        head = ["model", "n", "gradient, s", "by scores, torch, s", "by scores, ONNX, s"]
        head += ["ONNX scores / gradient", "kept: gradient", "kept: ONNX scores"]
        text += [
            "Seconds per picture, reading and writing included:",
            "",
            table(head, map(_speed_line, kinds["speed"])),
        ]
    return "\n".join(text)


def _kept_line(row: Row) -> list[str]:
    config, values = row["config"], row["values"]
    named = (config["regions"], config["model"], config["variant"])
    queries, flipped = values["queries"], values["queries_of_flipped"]
    return [
        ", ".join(part for part in named if part) + _failures(values),
        str(row["n"]),
        percent(values["kept_naive"]),
        percent(values["kept"]),
        percent(values["kept_of_flipped"], interval=False),
        number(queries["median"]),
        " / ".join(number(flipped[name]) for name in ("median", "mean", "p95")),
        number(values["pictures_per_second"], 2),
        "✓" if values["kept"]["rate"] >= GOAL else "missed",
    ]


def _curve_line(row: Row) -> list[str]:
    kept = row["values"]["kept_by_queries"]
    return [
        row["config"]["variant"] + _failures(row["values"]),
        str(row["n"]),
        *(percent(kept[str(most)], interval=most == SHOWN_AT[-1]) for most in SHOWN_AT),
    ]


def _failures(values: Mapping[str, Any]) -> str:
    """Say how many pictures no search was made for; none of them counts as kept."""
    return f" ({values['failed']} failed)" if values["failed"] else ""


def _speed_line(row: Row) -> list[str]:
    values = row["values"]
    ways = ("gradient", "blackbox_same_network", "blackbox")
    return [
        row["config"]["model"],
        str(row["n"]),
        *(number(values[way]["seconds_per_picture"], 2) for way in ways),
        f"{values['times_gradient']:.2f}×",
        percent(values["gradient"]["kept"], interval=False),
        percent(values["blackbox"]["kept"], interval=False),
    ]
