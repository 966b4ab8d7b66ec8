"""The sweep over architectures as tables: by family on the page, one by one in its own file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.page import table
from benchmarks.record import RESULTS, ROOT, Book, Row

__all__ = ["LIST", "render", "render_list", "write_list"]

LIST = ROOT / "docs" / "architectures.md"
_GOAL = 1e-4
_HEAD = """# Architectures

Written by `python -m benchmarks render` from `benchmarks/results/architectures.json`; do not
edit. Entries of timm's list with random weights, adapted to blocks under one random
orthogonal matrix: the largest difference between the adapted model's outputs on ciphertext and
the plain model's on the picture, over the largest centred output; of two pictures, of one where a
network has more than 300 million weights. [By family](benchmarks.md).
"""


def render(rows: Sequence[Row]) -> str:
    """Return the section of the benchmarks' page."""
    ran = [row["values"] for row in rows if row["values"]["adapts"]]
    refused = [row for row in rows if row["values"]["adapts"] is False]
    unknown = [row for row in rows if row["values"]["adapts"] is None]
    exact = [values for values in ran if values["error"] <= _GOAL]
    judged = len(ran) + len(refused)
    lines = [
        "## Architectures that read encrypted blocks\n",
        f"Of the {len(rows):,} entries of timm's list that were measured, {judged:,} could be "
        "built in the memory of this "
        f"machine; {len(ran):,} of these adapt ({_share(len(ran), judged)}), {len(exact):,} with "
        f"an error of at most 1e-4 of the logits' scale in float32 ({_share(len(exact), judged)}; "
        f"goal 95 %). {_changed(rows)} [One by one](architectures.md).\n",
        table(
            ["family", "entries", "adapt", "exact", "median error", "largest error", "stems"],
            [_family_line(name, group) for name, group in _by_family(rows)],
        ),
    ]
    if refused or unknown:
        lines += ["Not adapted, and why:\n", table(["model", "reason"], _reasons(refused, unknown))]
    inexact = [row for row in rows if _is_inexact(row["values"])]
    if inexact:
        lines += [
            "Above 1e-4 in float32. Beside it: what the plain model's own answers change by when "
            "each pixel goes to the next float32 up or down, and the adapted model's error in "
            "float64, where rounding is no excuse:\n",
            table(
                ["model", "float32", "plain, one rounding", "float64"],
                [
                    [
                        row["what"],
                        _error(row["values"]),
                        f"{row['values']['error_rounding']:.1e}",
                        _double(row["values"]),
                    ]
                    for row in inexact
                ],
            ),
        ]
    return "\n".join(lines)


def render_list(rows: Sequence[Row]) -> str:
    """Return the file with one line per model."""
    parts = [_HEAD]
    for family, group in _by_family(rows):
        body = table(
            ["model", "parameters", "input", "stem", "kernel", "stride", "block", "error"],
            [_model_line(row) for row in group],
        )
        adapted = sum(bool(row["values"]["adapts"]) for row in group)
        title = f"<summary>{family}: {adapted} of {len(group)}</summary>"
        parts.append(f"<details>{title}\n\n{body}\n</details>\n")
    return "\n".join(parts)


def write_list() -> None:
    """Write the file, if anything was measured."""
    rows = Book("architectures", RESULTS).rows
    if rows:
        LIST.write_text(render_list(rows), "utf-8")


def _by_family(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row["values"]["family"], []).append(row)
    return sorted(families.items())


def _family_line(name: str, rows: Sequence[Row]) -> list[str]:
    ran = [row["values"] for row in rows if row["values"]["adapts"]]
    errors = sorted(values["error"] for values in ran)
    stems = Counter(_stem(values) for values in ran)
    return [
        name,
        str(len(rows)),
        str(len(ran)),
        str(sum(error <= _GOAL for error in errors)),
        f"{errors[len(errors) // 2]:.1e}" if errors else "–",
        f"{errors[-1]:.1e}" if errors else "–",
        ", ".join(stem for stem, _ in stems.most_common(3)) or "–",
    ]


def _model_line(row: Row) -> list[str]:
    values = row["values"]
    parameters = f"{values['parameters'] / 1e6:,.1f} M" if "parameters" in values else "–"
    if not values["adapts"]:
        return [row["what"], parameters, *["–"] * 5, values["reason"]]
    return [
        row["what"],
        parameters,
        "×".join(map(str, values["input_size"][1:])),
        values["stem"],
        "×".join(map(str, values["kernel"])),
        "×".join(map(str, values["stride"])),
        str(values["block"]),
        _error(values),
    ]


def _stem(values: dict[str, Any]) -> str:
    kernel, stride = ("×".join(map(str, values[key])) for key in ("kernel", "stride"))
    if kernel == stride:
        return f"{values['stem']} {kernel}"
    return f"{kernel}/{values['stride'][0]}"


def _reasons(refused: Sequence[Row], unknown: Sequence[Row]) -> list[list[str]]:
    return [[row["what"], row["values"]["reason"]] for row in (*refused, *unknown)]


def _is_inexact(values: dict[str, Any]) -> bool:
    return bool(values["adapts"]) and not values["error"] <= _GOAL


def _error(values: dict[str, Any]) -> str:
    return f"{values['error']:.1e}"


def _double(values: dict[str, Any]) -> str:
    error = values.get("error_double")
    return "does not run" if error is None else f"{error:.1e}"


def _share(count: int, whole: int) -> str:
    return f"{100 * count / whole:.1f} %" if whole else "–"


def _changed(rows: Sequence[Row]) -> str:
    adapted = [row for row in rows if row["values"]["adapts"]]
    changed = sum(row["values"]["decisions_changed"] for row in adapted)
    outputs = sum(row["n"] for row in adapted)
    return f"Of the {outputs:,} largest outputs, {changed} changed place."
