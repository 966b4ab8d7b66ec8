"""``scotoma demo``: the main job on bundled pictures, without network or data of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.anonymize import run_and_report

__all__ = ["HELP", "command"]

HELP = """Anonymize bundled pictures with the embedded model and write a report.

Needs no network. The astronaut's face is hidden, and the centre of every other picture.

Example: scotoma demo -o demo
"""


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Write the pictures, anonymize them, say where the report is."""
    from scotoma.models.spec import load_classifier
    from scotoma.run.demo import demo_regions, write_demo_pictures
    from scotoma.run.settings import AnonymizeSettings

    pictures = write_demo_pictures(out / "originals")
    regions = demo_regions(pictures, out / "regions.json")
    summary = run_and_report(
        [pictures],
        out / "released",
        [load_classifier("embedded")],
        AnonymizeSettings(regions=str(regions), seed=seed),
        observers=[],
        surrogates=[],
        show_originals=True,
    )
    typer.echo(
        f"{summary.with_regions} pictures: the fill alone changes {summary.changed_naive} "
        f"decisions, the release {summary.changed_after}"
    )
    typer.echo(f"open {out / 'released' / 'report.html'}")
    if summary.failed or summary.changed_after:
        raise typer.Exit(3)
