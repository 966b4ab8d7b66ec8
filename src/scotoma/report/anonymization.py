"""The report of an anonymization run: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from scotoma.images.write import write_atomically
from scotoma.report.exhibits import Exhibit, Panel, choose_exhibits
from scotoma.report.figures import glue
from scotoma.report.frame import frame
from scotoma.report.markup import Html, element
from scotoma.report.panels import exhibits_section
from scotoma.report.sections import (
    failures_section,
    headline,
    key_figures,
    limits_section,
    models_section,
    settings_section,
)
from scotoma.run.manifest import Entry, Summary

__all__ = ["Exhibit", "Panel", "choose_exhibits", "headline", "render_report", "write_report"]


def write_report(
    path: Path,
    summary: Summary,
    exhibits: Sequence[Exhibit],
    *,
    title: str,
    contains_originals: bool,
    settings: Mapping[str, str],
    failures: Sequence[Entry],
) -> None:
    """Write the report in one step: a reader sees the whole file or the earlier one.

    Args:
        path: The HTML file.
        summary: Of the run.
        exhibits: Pictures to show, see :func:`choose_exhibits`.
        title: One line that names the run.
        contains_originals: The exhibits show originals: the page warns against publishing it.
            Otherwise the first panels must come with their regions already covered.
        settings: What to show of the settings, in order; ``fill`` is named in the headline.
        failures: Entries whose status is ``failed``; all of them, or the first.

    Raises:
        FileError: It cannot be written.
        ImageError: A panel is not ``(H, W, 3)`` uint8.
    """
    page = render_report(
        summary,
        exhibits,
        title=title,
        contains_originals=contains_originals,
        settings=settings,
        failures=failures,
    )
    write_atomically(path, page.encode("utf-8"))


def render_report(
    summary: Summary,
    exhibits: Sequence[Exhibit],
    *,
    title: str,
    contains_originals: bool,
    settings: Mapping[str, str],
    failures: Sequence[Entry],
) -> Html:
    """Return the page that :func:`write_report` writes; the arguments are the same."""
    has_loss = summary.changed_after or summary.failed
    has_verdict = any(not model.checked_only for model in summary.per_model.values())
    mark = None
    if has_verdict and summary.with_regions:
        mark = element(
            "span",
            "✗" if has_loss else "✓",
            class_=f"mark {'bad' if has_loss else 'good'}",
            aria_hidden="true",
        )
    header = element(
        "header",
        element("p", "Scotoma · anonymization report", class_="eyebrow"),
        element("h1", title),
        element(
            "p",
            mark,
            " " if mark else None,
            glue(headline(summary, settings)),
            class_="headline",
        ),
    )
    body = (
        header,
        key_figures(summary),
        models_section(summary.per_model),
        exhibits_section(exhibits, contains_originals=contains_originals),
        failures_section(failures, summary.failed),
        settings_section(summary, settings),
        limits_section(summary.per_model),
    )
    footer = f"Written by Scotoma {summary.version}. This page is one file and loads nothing."
    return frame(title, body, footer=footer, contains_originals=contains_originals)
