"""Pictures side by side, with what the models say of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from scotoma.report.exhibits import Exhibit, Panel
from scotoma.report.figures import count, duration, glue
from scotoma.report.markup import Html, element, join
from scotoma.report.names import short_names
from scotoma.report.thumbnails import make_thumbnail
from scotoma.run.manifest import Answer, Entry

__all__ = ["exhibits_section"]

_STATUS = {
    "ok": ("good", "✓", "decisions kept"),
    "kept-naive": ("good", "✓", "the fill alone keeps the decisions"),
    "not-kept": ("bad", "✗", "not kept"),
    "no-region": ("muted", "–", "nothing to hide"),
    "failed": ("bad", "✗", "failed"),
}


def exhibits_section(exhibits: Sequence[Exhibit], *, contains_originals: bool) -> Html | None:
    """Return the pictures side by side; None without any."""
    if not exhibits:
        return None
    models = {
        model for shown in exhibits for panel in shown.panels for model, _, _ in panel.answers
    }
    names = short_names(models)
    return element(
        "section",
        element("h2", "Pictures"),
        element(
            "p",
            "Chosen for what they show, not at random: decisions that the fill changes and the "
            "release keeps, then losses, then pictures that the fill left alone. ",
            element("span", "✓", class_="mark good"),
            " agrees with the decision on the original, ",
            element("span", "✗", class_="mark bad"),
            " does not. Pictures are scaled down here; the answers are those to the whole files.",
        ),
        None
        if contains_originals
        else element(
            "p",
            "Originals are not part of this report: the first picture of each row is the original "
            "with its regions hatched over. The answers below it are those to the whole original.",
        ),
        *(_exhibit(shown, names) for shown in exhibits),
    )


def _exhibit(exhibit: Exhibit, names: Mapping[str, str]) -> Html:
    entry = exhibit.entry
    tone, mark, words = _STATUS[entry.status]
    checked = {decision.model for decision in entry.decisions if decision.checked_only}
    facts = (
        count(len(entry.regions), "region"),
        count(entry.steps, "step") if entry.steps else count(entry.queries, "query", "queries"),
        duration(entry.seconds),
    )
    return element(
        "article",
        element(
            "h3",
            element("bdi", entry.input),
            element("span", f"{mark} {words}", class_=tone),
            element("span", " · ".join(facts), class_="muted"),
        ),
        element(
            "div",
            *(
                _panel(panel, entry, names, checked, is_reference=place == 0)
                for place, panel in enumerate(exhibit.panels)
            ),
            class_="panels",
        ),
        class_="exhibit",
    )


def _panel(
    panel: Panel,
    entry: Entry,
    names: Mapping[str, str],
    checked: Collection[str],
    *,
    is_reference: bool,
) -> Html:
    thumbnail = make_thumbnail(panel.pixels)
    answers = (
        _answer(
            names[model],
            answer,
            agrees=None if is_reference else agrees,
            is_checked=model in checked,
        )
        for model, answer, agrees in panel.answers
    )
    return element(
        "figure",
        element(
            "img",
            src=thumbnail.address,
            width=thumbnail.width,
            height=thumbnail.height,
            alt=f"{panel.caption}: {entry.input}",
        ),
        element(
            "figcaption",
            element("p", panel.caption, class_="caption"),
            element("ul", *answers, class_="answers") if panel.answers else None,
        ),
        class_="panel",
    )


def _answer(model: str, answer: Answer, *, agrees: bool | None, is_checked: bool) -> Html:
    """``agrees`` is None for the answer that the others are compared with."""
    mark = None
    if agrees is not None:
        mark = element(
            "span",
            "✓" if agrees else "✗",
            element("span", " agrees: " if agrees else " differs: ", class_="hidden"),
            class_=f"mark {'good' if agrees else 'bad'}",
        )
    return element(
        "li",
        mark,
        element("span", answer.name, class_="name"),
        element("span", glue(f"{100 * min(answer.score, 1):.1f} %")),
        element("small", join(model, " · checked only" if is_checked else None)),
        class_="reference" if agrees is None else None,
    )
