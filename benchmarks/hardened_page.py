"""The tables of ``hardened``."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.page import table
from benchmarks.record import Row

__all__ = ["render"]


def render(rows: Sequence[Row]) -> str:
    """Return the section's Markdown."""
    parts = {
        part: [row for row in rows if row["config"]["part"] == part]
        for part in ("ablation", "grouping", "curve", "pairs", "faces", "repeat", "server", "cost")
    }
    shown = [text for part, render in _TABLES.items() for text in render(parts[part])]
    return "\n".join([_HEAD, *shown])


_HEAD = """## Hardened encryption

Correlations of block brightness, the mean over pictures of the correlation within a picture. An
oracle that knows the pictures takes the best of an attack's components and its sign, once for all
pictures; *nothing but noise* is what that alone gives. *within pictures*: directions that
all blocks of a picture share. *eigenpictures*: leading eigenvectors of the products of all pairs
of releases, each with each of the eight leading patterns of natural thumbnails; *one pattern*
guesses the same pattern for every picture. Noise dimensions are one per pixel.
"""

_ATTACKS = ("norm", "components", "lag", "lag + ICA", "within pictures", "eigenpictures")


def _scores(row: Row) -> list[str]:
    values = row["values"]
    return [f"{values[name]:.2f}" for name in (*_ATTACKS, "one pattern alone")]


def _show_ablation(rows: Sequence[Row]) -> list[str]:
    head = ["parts of the scheme", *_ATTACKS, "one pattern"]
    lines = [[row["config"]["stage"], *_scores(row)] for row in rows]
    return ["### Which part stops which attack", "", table(head, lines)] if rows else []


def _show_grouping(rows: Sequence[Row]) -> list[str]:
    return [
        f"Of {row['config']['stage']}, {row['n']} pictures of {row['config']['side']} pixels under "
        "one key: correlations tell values of one block from values of two with an area under the "
        f"curve of {row['values']['auc']:.2f}.\n"
        for row in rows
    ]


def _show_curve(rows: Sequence[Row]) -> list[str]:
    head = ["picture", "under one key", "of noise dimensions", *_ATTACKS, "one pattern"]
    return ["### Pictures under one key", "", table(head, map(_curve_line, rows))] if rows else []


def _curve_line(row: Row) -> list[str]:
    return [*_counted(row), *_scores(row)]


def _counted(row: Row) -> list[str]:
    side, count = row["config"]["side"], row["config"]["pictures"]
    return [f"{side} px", str(count), f"{count / side**2:.3f}"]


def _show_pairs(rows: Sequence[Row]) -> list[str]:
    head = [
        "picture",
        "known pairs",
        "of noise dimensions",
        "ridge regression",
        "mean of the known",
    ]
    lines = [
        [
            *_counted(row),
            f"{row['values']['guess']:.2f}",
            f"{row['values']['mean of the known']:.2f}",
        ]
        for row in rows
    ]
    return ["### Known pairs", "", table(head, lines)] if rows else []


def _show_faces(rows: Sequence[Row]) -> list[str]:
    names = ["plain", "block means", "release itself", "lag", "lag + ICA", "chance"]
    head = ["scheme", *(f"rank 1: {name}" for name in names), "same person", "same picture"]
    lines = [
        [
            row["config"]["stage"],
            *(f"{100 * row['values'][name]:.1f} %" for name in names),
            f"{row['values']['linked_auc']:.2f}",
            f"{row['values']['same_picture_auc']:.2f}",
        ]
        for row in rows
    ]
    return [
        "### Faces",
        "",
        "ORL, the first picture of each person in the gallery. *same person*, *same picture*: area "
        "under the curve when products of releases tell pairs of one person (one picture) "
        "from pairs of two.",
        "",
        *([table(head, lines)] if rows else []),
    ]


def _show_repeat(rows: Sequence[Row]) -> list[str]:
    return [
        f"Products of releases tell two of one photograph from two of two photographs with an area "
        f"under the curve of {row['values']['auc']:.2f} ({row['n']} pictures of "
        f"{row['config']['side']} pixels).\n"
        for row in rows
    ]


def _show_server(rows: Sequence[Row]) -> list[str]:
    return [
        f"The server that also has the public weights rebuilds pictures at "
        f"{row['values']['psnr_db']:.0f} dB (MobileNetV2's stem, {row['n']} pictures).\n"
        for row in rows
    ]


def _show_cost(rows: Sequence[Row]) -> list[str]:
    head = ["MobileNetV2, 224 px", "largest change of a logit", "changed", "changed, float16"]
    head += ["release, float32", "float16", "model", "protect", "classify", "plain"]
    lines = []
    for row in rows:
        values = row["values"]
        lines.append(
            [
                row["config"]["stage"],
                f"{values['difference']:.1e}",
                f"{values['changed']}/{row['n']}",
                f"{values['changed_float16']}/{row['n']}",
                *(f"{values['release_bytes'][dtype] / 1e3:.0f} kB" for dtype in _DTYPES),
                f"{values['model_bytes'] / 1e6:.1f} MB",
                *(f"{values[name]:.0f} ms" for name in ("protect_ms", "adapted_ms", "plain_ms")),
            ]
        )
    return ["### Cost", "", table(head, lines)] if rows else []


_DTYPES = ("float32", "float16")
_TABLES = {
    "ablation": _show_ablation,
    "grouping": _show_grouping,
    "curve": _show_curve,
    "pairs": _show_pairs,
    "faces": _show_faces,
    "repeat": _show_repeat,
    "server": _show_server,
    "cost": _show_cost,
}
