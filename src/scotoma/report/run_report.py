"""The report of a finished run: chosen pictures are read again and shown side by side."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import ScotomaError
from scotoma.images.read import read_picture
from scotoma.images.region_sources import open_regions
from scotoma.images.regions import union_mask
from scotoma.images.walk import Found
from scotoma.report.anonymization import write_report
from scotoma.report.exhibits import Exhibit, Panel, choose_exhibits
from scotoma.run.entry import Answer, Decision, Entry
from scotoma.run.manifest import Summary
from scotoma.run.settings import AnonymizeSettings
from scotoma.run.subject import open_subject

__all__ = ["report_run"]

Pixels = NDArray[np.uint8]
_FAILURES_SHOWN = 200


def report_run(
    path: Path,
    summary: Summary,
    entries: Iterable[Entry],
    out: Path,
    settings: AnonymizeSettings,
    *,
    show_originals: bool,
    title: str = "Anonymization report",
) -> None:
    """Write the report of a run into one HTML file.

    Args:
        path: The HTML file.
        summary: Of the run.
        entries: Of the run's manifest, iterated twice.
        out: The run's output folder.
        settings: Of the run; naive fills are made again from them.
        show_originals: Show originals as they are; otherwise their regions are hatched, so
            that the page may lie beside the releases.
        title: One line that names the run.

    Raises:
        FileError: It cannot be written.
    """
    exhibits = []
    for entry in choose_exhibits(entries):
        exhibit = _exhibit(entry, out, settings, show_originals=show_originals)
        if exhibit is not None:
            exhibits.append(exhibit)
    failures: list[Entry] = []
    for entry in entries:
        if entry.status == "failed" and len(failures) < _FAILURES_SHOWN:
            failures.append(entry)
    write_report(
        path,
        summary,
        exhibits,
        title=title,
        contains_originals=show_originals,
        settings=_described(settings),
        failures=failures,
    )


def _exhibit(
    entry: Entry, out: Path, settings: AnonymizeSettings, *, show_originals: bool
) -> Exhibit | None:
    """Original, naive and released picture; None where a file is no longer there."""
    if entry.output is None:
        return None
    source = open_regions(settings.regions, settings.detector)
    try:
        # The output's place in OUT is the input's place in its tree.
        relative = Path(entry.output).with_name(Path(entry.input).name)
        subject = open_subject(Found(Path(entry.input), relative), source, settings)
        released = read_picture(out / entry.output, keep_profile=True).pixels
    except ScotomaError:
        return None
    original = subject.original
    if not show_originals and subject.regions:
        mask = union_mask(subject.regions, *original.shape[:2])
        original = _hatched(original, mask)
    naive = subject.publish(subject.start)
    caption = "Original" if show_originals else "Original, regions covered"
    return Exhibit(
        entry,
        (
            Panel(caption, original, _answers(entry, "before")),
            Panel(f"Fill alone ({settings.fill})", naive, _answers(entry, "naive")),
            Panel("Released", released, _answers(entry, "after")),
        ),
    )


def _answers(entry: Entry, moment: str) -> tuple[tuple[str, Answer, bool], ...]:
    rows = []
    for decision in entry.decisions:
        found: Answer | None = getattr(decision, moment)
        if found is not None:
            rows.append((decision.model, found, _agrees(decision, moment, found)))
    return tuple(rows)


def _agrees(decision: Decision, moment: str, found: Answer) -> bool:
    return decision.kept if moment == "after" else found.label == decision.before.label


def _hatched(pixels: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """Cover the masked pixels with diagonal stripes that show nothing of them."""
    height, width = mask.shape
    period = max(8, min(height, width) // 24)
    stripes = (np.add.outer(np.arange(height), np.arange(width)) // (period // 2)) % 2
    covered = pixels.copy()
    covered[mask] = np.where(stripes[..., None], 205, 165).astype(np.uint8).repeat(3, 2)[mask]
    return covered


def _described(settings: AnonymizeSettings) -> dict[str, str]:
    search = settings.search
    shown = {
        "regions": settings.regions,
        "fill": settings.fill,
        "search": settings.adapt if settings.adapt != "blackbox" else "by scores alone",
        "decision kept": search.keep.text,
        "margin": f"{search.margin:g} logits",
        "cell": f"{search.cell:g}/256 of the shorter side",
        "written as": settings.encoding.format
        + ("" if settings.encoding.lossless else f", quality {settings.encoding.quality}"),
        "metadata kept": ", ".join(sorted(settings.keep_metadata)) or "none",
    }
    if settings.adapt == "blackbox":
        del shown["margin"]
        shown["queries"] = f"at most {settings.blackbox.queries:,} for each picture"
        shown["optimizer"] = settings.blackbox.optimizer
    if settings.regions == "faces":
        shown["detector threshold"] = f"{settings.detector.threshold:g}"
    return shown
