"""``scotoma anonymize``: hide private regions, keep what classifiers say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scotoma.cli.console import given, print_json, progress_bar, use_device

if TYPE_CHECKING:
    from scotoma.models.classifier import Classifier
    from scotoma.run.anonymize import Progress
    from scotoma.run.settings import AnonymizeSettings
    from scotoma.run.summary import Summary

__all__ = ["HELP", "command", "run_and_report"]

HELP = """Hide private regions; your classifiers decide as before.

Writes OUT/ (the input tree anew), OUT/manifest.jsonl (each picture's fate), OUT/summary.json
and OUT/report.html. Started again, it skips what is done. Exit code 3: a decision was lost or
a picture could not be processed; the report says which.

Example: scotoma anonymize photos -o out --model timm:local-dir:mobilenetv2 --regions faces
"""


def command(
    inputs: Annotated[list[Path], typer.Argument(help="Pictures and folders of pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Classifier whose decision is kept; may be given several times."),
    ] = None,
    check_model: Annotated[
        list[str] | None, typer.Option(help="Classifier that takes no part but is reported on.")
    ] = None,
    regions: Annotated[
        str,
        typer.Option(help="faces, center:F, box:X0,Y0,X1,Y1, COCO file, mask folder, detector."),
    ] = "faces",
    threshold: Annotated[float | None, typer.Option(help="Least detector score, 0 to 1.")] = None,
    grow: Annotated[
        float | None, typer.Option(help="Growth of detected boxes, as a fraction of their sides.")
    ] = None,
    fill: Annotated[str, typer.Option(help="Naive fill; see: scotoma list fills.")] = "solid",
    adapt: Annotated[
        str,
        typer.Option(
            help="gradient, blackbox (scores alone), or none: fill and report only; by default "
            "blackbox only where a model has no gradients."
        ),
    ] = "auto",
    queries: Annotated[
        int | None, typer.Option(help="blackbox: most pictures asked about, for each input.")
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="blackbox: linear, or another; see: scotoma list optimizers."),
    ] = None,
    surrogate: Annotated[
        list[str] | None,
        typer.Option(help="blackbox: a model with gradients to take a first candidate from."),
    ] = None,
    keep: Annotated[
        str, typer.Option(help="top1, top5 (in order), or scores:TOLERANCE (several labels).")
    ] = "top1",
    margin: Annotated[float | None, typer.Option(help="Lead to reach, in logits.")] = None,
    cell: Annotated[
        float | None, typer.Option(help="Cell side, in 1/256 of the picture's shorter side.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Steps before giving up.")] = None,
    transfer: Annotated[
        bool, typer.Option(help="Search content that unseen models read alike; slower.")
    ] = False,
    exemplars: Annotated[
        Path | None,
        typer.Option(help="Folder of public pictures to start from, chosen by decided class."),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option(help="Format of the output: png, jpeg, webp or avif.")
    ] = "png",
    quality: Annotated[int, typer.Option(help="Quality of jpeg, webp, avif.")] = 90,
    keep_metadata: Annotated[
        str, typer.Option(help="Metadata that may survive, as in: icc,date,camera.")
    ] = "",
    copy_unchanged: Annotated[
        bool, typer.Option(help="Copy pictures without a region too, metadata stripped.")
    ] = False,
    report_originals: Annotated[
        bool, typer.Option(help="Show originals in the report; it must then not be published.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per network pass.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Anonymize; exit 3 when a picture failed or a decision was lost."""
    from scotoma.images.metadata import parse_keep
    from scotoma.images.regions import DetectorSettings
    from scotoma.images.write import Encoding
    from scotoma.models.spec import load_classifier
    from scotoma.protections.anonymize.objectives import parse_keep as parse_decision
    from scotoma.protections.anonymize.settings import BlackBox, SearchSettings, Transfer
    from scotoma.run.settings import AnonymizeSettings

    settings = AnonymizeSettings(
        regions=regions,
        detector=DetectorSettings(**given(threshold=threshold, grow=grow)),
        fill=fill,
        adapt=adapt,
        search=SearchSettings(
            keep=parse_decision(keep),
            transfer=Transfer() if transfer else None,
            **given(margin=margin, cell=cell, max_steps=max_steps, batch_size=batch_size),
        ),
        blackbox=BlackBox(**given(queries=queries, optimizer=optimizer)),
        exemplars=exemplars,
        encoding=Encoding(format, quality),
        keep_metadata=parse_keep(keep_metadata),
        copy_unchanged=copy_unchanged,
        seed=seed,
    )
    use_device(device)
    models = [load_classifier(spec, device=device) for spec in model or ["embedded"]]
    observers = [load_classifier(spec, device=device) for spec in check_model or []]
    surrogates = [load_classifier(spec, device=device) for spec in surrogate or []]
    settings = settings.settled(models)
    summary = run_and_report(
        inputs,
        out,
        models,
        settings,
        observers=observers,
        surrogates=surrogates,
        show_originals=report_originals,
    )
    if json:
        print_json(summary.to_dict())
    else:
        _print_summary(summary, out)
    if summary.failed or summary.changed_after:
        raise typer.Exit(3)


def run_and_report(
    inputs: list[Path],
    out: Path,
    models: list[Classifier],
    settings: AnonymizeSettings,
    *,
    observers: list[Classifier],
    surrogates: list[Classifier],
    show_originals: bool,
) -> Summary:
    """Run with a progress bar, then write ``OUT/report.html``."""
    from scotoma.images.walk import find_pictures
    from scotoma.report.run_report import report_run
    from scotoma.run.anonymize import anonymize
    from scotoma.run.manifest import latest

    names: set[str] = set()
    with progress_bar("anonymizing") as bar:
        total = sum(1 for _ in find_pictures(inputs, exclude=out))

        def show(progress: Progress) -> None:
            names.add(progress.entry.input)
            if progress.entry.status in ("failed", "not-kept") and not progress.skipped:
                reason = progress.entry.error or "a decision was lost; the naive fill is written"
                name = Path(progress.entry.input)
                reason = reason.removeprefix(f"{name.name}: ")
                bar.say(f"{progress.entry.status}: {name}: {reason}")
            bar.update(len(names), total, progress.entry.status)

        summary = anonymize(
            inputs,
            out,
            models,
            settings,
            observers=observers,
            surrogates=surrogates,
            on_progress=show,
        )
    entries = latest(out / "manifest.jsonl")
    report_run(
        out / "report.html",
        summary,
        [entries[name] for name in entries if name in names],
        out,
        settings,
        show_originals=show_originals,
    )
    return summary


def _print_summary(summary: Summary, out: Path) -> None:
    typer.echo(
        f"{summary.images} pictures, {summary.with_regions} with regions, {summary.failed} failed; "
        f"{summary.images_per_second:.1f} per second"
    )
    if summary.with_regions:
        typer.echo(
            f"decisions changed: {summary.changed_naive} by the fill alone, "
            f"{summary.changed_after} in the release"
        )
    for model, figures in summary.per_model.items():
        role = " (took no part)" if figures.checked_only else ""
        typer.echo(
            f"  {model}{role}: {figures.changed_naive} changed by the fill, "
            f"{figures.changed_after} in the release, of {figures.n}"
        )
    if summary.queries:
        typer.echo(
            f"queries: {summary.queries_median:g} for the median picture, at most "
            f"{summary.queries_most}"
        )
    typer.echo(f"report: {out / 'report.html'}")
