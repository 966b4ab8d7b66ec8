"""The report of an evaluation: one HTML file that needs nothing else, out of its records.

::

    headline ─ figures ─ for each scene: plane beside its table ─ pictures ─ utility ─ every cell
    ─ the papers' figures ─ failures ─ what this does not show
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from scotoma import __version__
from scotoma.core.errors import FileError
from scotoma.evaluate.records import RECORDS, Record, read_records
from scotoma.evaluate.subjects import PLAIN
from scotoma.images.write import write_atomically
from scotoma.report.evaluation_pictures import has_originals, pictures_row
from scotoma.report.evaluation_tables import (
    attacks_table,
    failures_table,
    paper_table,
    standings_table,
    utility_table,
)
from scotoma.report.figures import count, duration, glue
from scotoma.report.frame import frame
from scotoma.report.markup import Html, element
from scotoma.report.measures import label, show_value, strength
from scotoma.report.plane import draw_plane
from scotoma.report.standings import (
    Scene,
    Standing,
    choose_metrics,
    find_scenes,
    find_standings,
    of_scene,
)

__all__ = ["render_evaluation", "report_evaluation"]

_UNFOLDED = 40  # rows; a longer page is read by opening what one looks for


def report_evaluation(
    out: Path, *, metrics: Sequence[str] = (), title: str = "Evaluation report"
) -> Path:
    """Write ``OUT/report.html`` from ``OUT/records.jsonl`` and ``OUT/pictures``.

    Args:
        out: Output folder of an evaluation.
        metrics: What attacks are compared by; by default brightness and recognition.
        title: One line that names the evaluation.

    Returns:
        Where the page is.

    Raises:
        FileError: No records there, or the page cannot be written.
        SettingsError: A metric that no record has.
    """
    records = read_records(out)
    if not records:
        raise FileError(f"expected {RECORDS} of scotoma evaluate in {out}, got none or no record")
    page = render_evaluation(records, out, metrics=metrics, title=title)
    path = out / "report.html"
    write_atomically(path, page.encode("utf-8"))
    return path


def render_evaluation(
    records: Sequence[Record], out: Path, *, metrics: Sequence[str] = (), title: str
) -> Html:
    """Return the page that :func:`report_evaluation` writes; the arguments are the same."""
    chosen = choose_metrics(records, metrics)
    scenes = find_scenes(records)
    shows_originals = has_originals(out, records)
    header = element(
        "header",
        element("p", "Scotoma · evaluation report", class_="eyebrow"),
        element("h1", title),
        element("p", glue(_headline(records, chosen)), class_="headline"),
    )
    body = (
        header,
        _key_figures(records),
        _planes(records, scenes, chosen),
        _pictures(records, scenes, chosen, out, shows_originals),
        _per_scene("Utility", _UTILITY, records, scenes, utility_table),
        _cells(records, scenes, chosen),
        _section("Beside the papers", _PAPERS, paper_table(records)),
        _section("Failures", "These cells could not be measured.", failures_table(records)),
        _limits(),
    )
    return frame(
        title,
        body,
        footer=f"Written by Scotoma {__version__}. This page is one file and loads nothing.",
        contains_originals=shows_originals,
        styles=("style.css", "evaluation.css"),
    )


_UTILITY = (
    "What the model says of releases, after it was adapted, against what the plain model says of "
    "the pictures. Times are of this machine; sizes are of releases as written."
)
_PAPERS = "Published figures come from other pictures, models and attackers; they are no target."


def _headline(records: Sequence[Record], metrics: Sequence[str]) -> str:
    attacks = [record for record in records if record.kind == "attack"]
    tried = {record.attack.label for record in attacks if record.attack}
    protections = {record.protection.label for record in records} - {PLAIN}
    sentences = [f"{count(len(protections), 'protection')} against {count(len(tried), 'attack')}."]
    if metrics:
        standings = [
            one
            for scene in find_scenes(records)
            for one in find_standings(of_scene(records, scene), metrics[0])
            if one.alone is not None and one.protection != PLAIN
        ]
        ranked = _by_strength(standings, metrics[0])
        if ranked:
            ends = dict.fromkeys((ranked[0], ranked[-1]))
            parts = [f"{value} for {protection}" for protection, value in ends]
            name = label(metrics[0])
            sentences.append(
                f"{name[0].upper()}{name[1:]} under the strongest attack on releases alone: "
                f"{', '.join(parts)}."
            )
    return " ".join(sentences)


def _by_strength(standings: Sequence[Standing], metric: str) -> list[tuple[str, str]]:
    """Return protections with the most that they give away in any scene, most first."""
    most: dict[str, Record] = {}
    for one in standings:
        if one.alone is None:
            continue
        before = most.get(one.protection)
        if before is None or _rank(one.alone, metric) > _rank(before, metric):
            most[one.protection] = one.alone
    ranked = sorted(most.items(), key=lambda item: -_rank(item[1], metric))
    return [(name, show_value(metric, record.metrics[metric])) for name, record in ranked]


def _rank(record: Record, metric: str) -> float:
    return strength(metric, record.metrics[metric].value)


def _key_figures(records: Sequence[Record]) -> Html:
    done = sum(record.status == "ok" for record in records)
    idle = sum(record.status == "not-applicable" for record in records)
    failed = sum(record.status == "failed" for record in records)
    notes = {
        "Measurements": (f"{done:,}", "protection × attack × threat model × data"),
        "Do not apply": (f"{idle:,}", "each with its reason below"),
        "Failed": (f"{failed:,}", "not counted as resisted" if failed else "none"),
        "Time": (duration(sum(record.seconds for record in records)), _versions(records)),
    }
    figures = (
        element(
            "div",
            element("dt", name),
            element("dd", value, class_="big"),
            element("dd", note),
        )
        for name, (value, note) in notes.items()
    )
    return element("dl", *figures, class_="figures")


def _versions(records: Sequence[Record]) -> str:
    seeds = sorted({record.seed for record in records})
    names = sorted({record.versions.get("scotoma", "") for record in records} - {""})
    seed = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return ", ".join([seed, *(f"version {name}" for name in names)])


def _planes(records: Sequence[Record], scenes: Sequence[Scene], metrics: Sequence[str]) -> Html:
    parts = []
    for place, scene in enumerate(scenes):
        own = of_scene(records, scene)
        for metric in metrics:
            standings = find_standings(own, metric)
            if standings:
                parts.append(
                    element(
                        "article",
                        element("h3", scene.title, element("span", f"by {label(metric)}")),
                        element(
                            "div",
                            element(
                                "figure",
                                draw_plane(standings, metric, f"plane-{place}-{metric}"),
                                element("figcaption", f"↑ {label(metric)}", class_="hidden"),
                            ),
                            standings_table(standings, metric),
                            class_="beside",
                        ),
                        class_="stage",
                    )
                )
    return element(
        "section",
        element("h2", "What is kept, and what leaks"),
        element(
            "p",
            "Each number is a protection. The higher, the more the strongest attack gets; the "
            "further right, the more of the model’s decisions stay. ",
            element("span", class_="key alone"),
            " strongest attack on releases alone, ",
            element("span", class_="key informed"),
            " with more knowledge, if that gets more, ",
            element("span", class_="key chance"),
            " the best guess without an attack. Marks that would cover each other stand aside. "
            "Intervals are 95 %: of means by bootstrap, of rates by Wilson.",
        ),
        *parts,
    )


def _pictures(
    records: Sequence[Record],
    scenes: Sequence[Scene],
    metrics: Sequence[str],
    out: Path,
    shows_originals: bool,
) -> Html | None:
    parts: list[Html] = []
    for scene in scenes:
        own = [record for record in of_scene(records, scene) if record.kind == "attack"]
        rows = [
            pictures_row(out, [one for one in own if one.protection.label == name], metrics[0])
            for name in dict.fromkeys(record.protection.label for record in own)
        ]
        shown = [row for row in rows if row is not None]
        if shown:
            parts += [element("h3", scene.title), *shown]
    if not parts:
        return None
    return element(
        "section",
        element("h2", "Pictures"),
        element(
            "p",
            "The first picture of each evaluation, not a chosen one: its release, and each "
            "attack’s guess under the threat model where it gets most. A guess that succeeds "
            "shows what was private.",
            None if shows_originals else " Originals are not part of this report.",
        ),
        *parts,
    )


def _per_scene(
    title: str,
    words: str,
    records: Sequence[Record],
    scenes: Sequence[Scene],
    make: Callable[[Sequence[Record]], Html | None],
) -> Html | None:
    parts: list[Html] = []
    for scene in scenes:
        table = make(of_scene(records, scene))
        if table is not None:
            parts += [element("h3", scene.title), table]
    return element("section", element("h2", title), element("p", words), *parts) if parts else None


def _cells(
    records: Sequence[Record], scenes: Sequence[Scene], metrics: Sequence[str]
) -> Html | None:
    tried = [record for record in records if record.kind == "attack"]
    if not tried:
        return None
    parts: list[Html] = []
    for scene in scenes:
        own = of_scene(tried, scene)
        if own:
            table = attacks_table(own, metrics, is_open=len(tried) <= _UNFOLDED)
            parts += [element("h3", scene.title), table]
    return element(
        "section",
        element("h2", "Every attack"),
        element(
            "p",
            "Attacks on each protection, the strongest first. Trivial: the best of a mean "
            "picture, another picture and, where it is one, the release itself. Oracle: an attack "
            "that names candidates, of which the best was taken with the originals in hand.",
        ),
        *parts,
    )


def _section(title: str, words: str, table: Html | None) -> Html | None:
    if table is None:
        return None
    return element("section", element("h2", title), element("p", words), table)


def _limits() -> Html:
    limits = (
        "That no attack here succeeds proves nothing: a stronger one may come. That one succeeds "
        "is a fact.",
        "Figures hold for these pictures, models and numbers of pictures per key, on which "
        "attacks on keyed schemes depend most.",
        "Intervals take pictures for independent; pictures that share a key or a person are not "
        "quite.",
        "A low similarity is not anonymity: what a person recognizes, no metric here measures "
        "in full.",
    )
    return element(
        "section",
        element("h2", "What this does not show"),
        element("ul", *(element("li", limit) for limit in limits), class_="limits"),
    )
