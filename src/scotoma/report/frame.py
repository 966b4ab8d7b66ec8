"""The page around a report: one file that runs no script and asks no server for anything.

A policy inside the page forbids both, so that a file name with markup in it could not either.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from scotoma.report.markup import Html, element, join, raw

__all__ = ["frame"]

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


def frame(
    title: str,
    body: Sequence[Html | None],
    *,
    footer: str,
    contains_originals: bool,
    styles: Sequence[str] = ("style.css",),
) -> Html:
    """Return a whole page.

    Args:
        title: Of the window.
        body: Header and sections.
        footer: One line.
        contains_originals: The page warns against publishing it, and search engines.
        styles: Our style sheets, which become part of the page.
    """
    folder = files("scotoma.report")
    style = "\n".join((folder / name).read_text("utf-8") for name in styles)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name_="robots", content="noindex") if contains_originals else None,
        element("title", title),
        element("style", raw(style)),
    )
    banner = element(
        "div", "Contains original pictures: do not publish.", class_="banner", role="note"
    )
    whole = element(
        "body",
        banner if contains_originals else None,
        element("main", *body),
        element("footer", footer),
    )
    return join(raw("<!DOCTYPE html>\n"), element("html", head, whole, lang="en"), raw("\n"))
