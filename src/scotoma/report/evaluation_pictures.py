"""Pictures of an evaluation: original | release | each attacker's best guess."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scotoma.evaluate.records import Record
from scotoma.report.figures import glue
from scotoma.report.markup import Html, element
from scotoma.report.measures import label, show_value, strength
from scotoma.report.thumbnails import make_thumbnail

__all__ = ["has_originals", "pictures_row"]

_SIDE = 176
_GUESSES = 7
_KINDS = ("original", "release", "guess")


def has_originals(out: Path, records: Sequence[Record]) -> bool:
    """Whether an evaluation wrote originals that a report would show."""
    return any(_find(out, record, "original") for record in records)


def pictures_row(out: Path, records: Sequence[Record], metric: str) -> Html | None:
    """Return one picture's way: what attacks made of its release, most telling first.

    Args:
        out: Output folder of the evaluation.
        records: Attacks on one protection in one scene.
        metric: Ranks attacks.

    Returns:
        A row of figures; None if no cell left pictures.
    """
    done = [
        record
        for record in records
        if record.status == "ok" and metric in record.metrics and _find(out, record, "guess")
    ]
    done.sort(key=lambda record: -strength(metric, record.metrics[metric].value))
    best: dict[str, Record] = {}
    for record in done:
        best.setdefault(record.attack.label if record.attack else "", record)
    if not best:
        return None
    first = next(iter(best.values()))
    panels = [
        _panel(_find(out, first, "original"), "Original", ""),
        _panel(_find(out, first, "release"), "Release", ""),
    ]
    for name, record in list(best.items())[:_GUESSES]:
        value = show_value(metric, record.metrics[metric])
        words = f"{record.threat_model}{' (oracle)' if record.oracle else ''}"
        panels.append(_panel(_find(out, record, "guess"), name, words, f"{label(metric)} {value}"))
    more = len(best) - _GUESSES
    return element(
        "article",
        element(
            "h4",
            element("bdi", first.protection.label),
            element("span", f"and {more} weaker attacks", class_="muted") if more > 0 else None,
        ),
        element("div", *panels, class_="strip"),
        class_="exhibit",
    )


def _panel(path: Path | None, caption: str, words: str, figure: str = "") -> Html | None:
    pixels = None if path is None else _read(path)
    if pixels is None:
        return None
    thumbnail = make_thumbnail(pixels, max_side=_SIDE)
    return element(
        "figure",
        element(
            "img",
            src=thumbnail.address,
            width=thumbnail.width,
            height=thumbnail.height,
            alt=f"{caption}{', ' + words if words else ''}",
        ),
        element(
            "figcaption",
            element("b", caption),
            element("span", words) if words else None,
            element("span", glue(figure)) if figure else None,
        ),
    )


def _find(out: Path, record: Record, kind: str) -> Path | None:
    """Return the first picture of a cell; a fingerprint is no path."""
    if kind not in _KINDS or not re.fullmatch(r"[0-9a-f]+", record.fingerprint):
        return None
    path = out / "pictures" / record.fingerprint / f"0-{kind}.png"
    return path if path.is_file() else None


def _read(path: Path) -> NDArray[np.uint8] | None:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError):
        return None
