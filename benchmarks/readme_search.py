"""The README's lines on what the search brings: optimizers, black boxes, smaller networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.blackbox_page import GOAL
from benchmarks.optimizers import compare
from benchmarks.page import percent
from benchmarks.record import Row

__all__ = ["black_boxes", "compression", "optimizers", "verdict"]


def verdict(goal: str, is_met: bool) -> str:
    """Return a goal with whether it is met."""
    return f"{goal} ✓" if is_met else f"{goal}: missed"


def optimizers(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Yield how often our search is best."""
    count, lost = compare(rows)
    if count:
        won = count - len(lost)
        yield [
            "large-scale functions (CEC 2008, up to 1,000 dimensions) on which `fda-lines` is best "
            "or tied, against FDA, CMA-ES, DE, PSO, random",
            "",
            f"**{won} of {count}**",
            verdict("half", 2 * won >= count),
        ]


def black_boxes(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Yield what scores alone keep, network by network."""
    for row in rows:
        config, values = row["config"], row["values"]
        if config["kind"] != "kept" or config["variant"]:
            continue
        kept, most = values["kept"], config["blackbox"]["queries"]
        yield [
            f"decisions kept by scores alone, `{config['regions']}`, {config['model']}, at most "
            f"{most} queries (n = {row['n']})",
            percent(values["kept_naive"], interval=False),
            f"**{percent(kept, interval=False)}**, {values['queries']['median']:g} queries in the "
            "median",
            verdict(f"≥ {100 * GOAL:g} %", kept["rate"] >= GOAL),
        ]


def compression(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Of each network: int8, and ours within a point, both as files beside float32's."""
    by_name = {(row["config"]["model"], row["what"].partition(": ")[2]): row for row in rows}
    for model in dict.fromkeys(row["config"]["model"] for row in rows):
        plain, ours = by_name.get((model, "int8")), by_name.get((model, "ours, 1 points"))
        if plain and ours:
            lost = ours["values"]["lost"]
            int8, within = (
                100 * (1 - row["values"]["bytes"] / row["values"]["float_bytes"])
                for row in (plain, ours)
            )
            yield [
                f"size of {model} within a point of accuracy (n = {ours['n']}); left: int8",
                f"−{int8:.1f} %",
                f"**−{within:.1f} %**, {lost['points']:.1f} points lost "
                f"[{lost['low']:.1f}, {lost['high']:.1f}]",
                verdict("≤ 1 point", lost["points"] <= 1),
            ]
