"""The parts of an anonymization report, each a function from records to markup."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from scotoma.evaluate.intervals import wilson_interval
from scotoma.report.figures import count, duration, glue, percent
from scotoma.report.markup import Html, element
from scotoma.report.names import short_names
from scotoma.run.manifest import Entry, ModelSummary, Summary

__all__ = [
    "MAX_FAILURES",
    "failures_section",
    "headline",
    "key_figures",
    "limits_section",
    "models_section",
    "settings_section",
]

MAX_FAILURES = 200
"""The table of failures ends here; the manifest has them all."""


def headline(summary: Summary, settings: Mapping[str, str]) -> str:
    """Return the result of a run in one or two plain sentences.

    Args:
        summary: Of the run.
        settings: As shown in the report; ``fill`` is named if it is there.

    Returns:
        For example ``12 of 12 pictures: the classifiers decide as before. A solid fill alone
        changes 9 (75 %).``
    """
    sentences = []
    n = summary.with_regions
    searched = sum(not model.checked_only for model in summary.per_model.values())
    fill = settings.get("fill", "")
    named = f"{'an' if fill[:1] in tuple('aeiou') else 'a'} {fill} fill" if fill else "the fill"
    if not n:
        sentences.append(f"{count(summary.images, 'picture')}, none of them anonymized.")
    elif not searched:
        sentences.append(f"{count(n, 'picture')} covered with {named}; no classifier took part.")
    else:
        kept = n - summary.changed_after
        sentences.append(
            f"{kept:,} of {count(n, 'picture')}: "
            f"the {'classifier decides' if searched == 1 else 'classifiers decide'} as before."
        )
        sentences.append(
            f"{named[0].upper()}{named[1:]} alone changes {summary.changed_naive:,} "
            f"({percent(summary.changed_naive, n)})."
        )
    if summary.failed:
        sentences.append(f"{count(summary.failed, 'picture')} failed.")
    return " ".join(sentences)


def key_figures(summary: Summary) -> Html:
    """Return the four figures under the headline."""
    n = summary.with_regions
    without = summary.images - n - summary.failed
    return element(
        "dl",
        _figure(
            "Pictures",
            f"{summary.images:,}",
            f"{n:,} with regions, {without:,} without, {summary.failed:,} failed",
        ),
        _figure("Changed by the fill alone", *_share(summary.changed_naive, n)),
        _figure("Changed in the release", *_share(summary.changed_after, n)),
        _figure(
            "Time",
            duration(summary.seconds),
            f"{summary.images_per_second:.3g} pictures per second",
        ),
        class_="figures",
    )


def models_section(models: Mapping[str, ModelSummary]) -> Html | None:
    """Return the table of models, those that were only checked last; None without models."""
    if not models:
        return None
    names = short_names(models)
    labels = (
        "Changed by the fill alone",
        "Changed in the release",
        "Agreement: all pictures",
        "Agreement: flipped only",
    )
    # Roles say again what a table is: narrow screens lay it out as blocks.
    head = element(
        "tr",
        element("th", "Model", scope="col", role="columnheader"),
        *(element("th", label, scope="col", role="columnheader") for label in labels),
        role="row",
    )
    rows = []
    for model, found in sorted(models.items(), key=lambda item: item[1].checked_only):
        rates = (
            (found.changed_naive, found.n),
            (found.changed_after, found.n),
            (found.n - found.changed_after, found.n),
            (found.kept_of_flipped, found.changed_naive),
        )
        name = element(
            "th",
            names[model],
            element("small", model) if names[model] != model else None,
            element("small", element("span", "checked only", class_="tag"))
            if found.checked_only
            else None,
            scope="row",
            role="rowheader",
        )
        cells = (_rate_cell(label, *rate) for label, rate in zip(labels, rates, strict=True))
        rows.append(element("tr", name, *cells, role="row"))
    return element(
        "section",
        element("h2", "Models"),
        element(
            "p",
            "Every decision is read back from the written file, through the model’s own "
            "preprocessing. Flipped: the fill alone changes that model’s decision. "
            "The band is the 95 % interval (Wilson): what this many pictures can tell about "
            "others like them. ",
            "A model marked “checked only” took no part in the search."
            if any(found.checked_only for found in models.values())
            else None,
        ),
        element(
            "table",
            element("thead", head, role="rowgroup"),
            element("tbody", *rows, role="rowgroup"),
            class_="models",
            role="table",
        ),
    )


def failures_section(failures: Sequence[Entry], total: int) -> Html:
    """Return the table of inputs that failed, with their errors.

    Args:
        failures: All of them, or the first.
        total: How many there are.
    """
    shown = failures[:MAX_FAILURES]
    if not failures and not total:
        return element("section", element("h2", "Failures"), element("p", "No picture failed."))
    rows = (
        element(
            "tr",
            element("th", element("bdi", entry.input), scope="row"),
            element("td", entry.error or "no reason given"),
        )
        for entry in shown
    )
    more = max(total, len(failures)) - len(shown)
    return element(
        "section",
        element("h2", "Failures"),
        element("p", "Nothing was released of these."),
        element(
            "table",
            element(
                "thead",
                element(
                    "tr", element("th", "Input", scope="col"), element("th", "Error", scope="col")
                ),
            ),
            element("tbody", *rows),
            class_="errors",
        ),
        element("p", f"And {more:,} more, in manifest.jsonl.") if more else None,
    )


def settings_section(summary: Summary, settings: Mapping[str, str]) -> Html:
    """Return what is needed to run it again."""
    every = {**settings, "seed": str(summary.seed), "version": summary.version}
    rows = (
        element("div", element("dt", name), element("dd", value)) for name, value in every.items()
    )
    return element("section", element("h2", "Settings"), element("dl", *rows, class_="settings"))


def limits_section(models: Collection[str]) -> Html:
    """Return what the reader must not conclude from this page."""
    limits = [
        "Only the regions were hidden. A face that the detector missed, and whatever else tells "
        "who or where someone is (clothes, a tattoo, a place, a text), is still in the picture.",
        "The classifier’s decision itself is public: a release says what the classifiers say of "
        "the picture. A fill that reads the region (blur, pixelate, down- and upscaling) tells "
        "more, and can in part be undone.",
    ]
    if models:
        limits.append(
            "Decisions were measured for the models above, on the files as written. Other models, "
            "or the same ones after cropping, scaling or re-encoding, may decide otherwise."
        )
    limits.append(
        "These are measurements on these pictures, not a proof; they do not replace a data "
        "protection assessment."
    )
    return element(
        "section",
        element("h2", "What this does not protect against"),
        element("ul", *(element("li", limit) for limit in limits), class_="limits"),
    )


def _figure(label: str, value: str, *notes: str) -> Html:
    return element(
        "div",
        element("dt", label),
        element("dd", value, class_="big"),
        *(element("dd", glue(note)) for note in notes),
    )


def _share(successes: int, n: int) -> tuple[str, ...]:
    interval = wilson_interval(successes, n)
    if interval is None:
        return "0", "of no picture"
    return (
        f"{successes:,}",
        f"of {n:,}: {percent(successes, n)}",
        f"95 %: {_interval(*interval)}",
    )


def _interval(low: float, high: float) -> str:
    return glue(f"{100 * low:.1f}–{100 * high:.1f} %")


def _rate_cell(label: str, successes: int, n: int) -> Html:
    interval = wilson_interval(successes, n)
    if interval is None:
        return element(
            "td", element("span", "– of none", class_="muted"), data_label=label, role="cell"
        )
    low, high = interval
    style = f"--at:{successes / n:.2%};--low:{low:.2%};--high:{high:.2%}"
    return element(
        "td",
        element("span", glue(percent(successes, n)), class_="rate"),
        element("span", f"{successes:,} of {n:,}", class_="of"),
        element("span", element("i"), element("b"), class_="rail", style=style, aria_hidden="true"),
        element("small", _interval(low, high)),
        data_label=label,
        role="cell",
    )
