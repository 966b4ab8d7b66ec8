"""``scotoma detect``: find private regions and write them as COCO, to be edited and fed back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.console import given, print_json, progress_bar

__all__ = ["HELP", "command"]

HELP = """Find private regions and write them as COCO JSON.

Edit the file in any annotation tool and feed it back.

Example: scotoma detect photos -o regions.json && scotoma anonymize photos -o out
--regions regions.json
"""


def command(
    inputs: Annotated[list[Path], typer.Argument(help="Pictures and folders of pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="COCO file to write.")],
    regions: Annotated[
        str, typer.Option(help="Detector or other region source, as for anonymize.")
    ] = "faces",
    threshold: Annotated[float | None, typer.Option(help="Least detector score, 0 to 1.")] = None,
    grow: Annotated[
        float | None, typer.Option(help="Growth of detected boxes, as a fraction of their sides.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Find regions; unreadable pictures are named and leave exit code 3."""
    from scotoma.images.regions import DetectorSettings
    from scotoma.run.detect import detect

    with progress_bar("detecting") as bar:
        figures = detect(
            inputs,
            out,
            regions,
            DetectorSettings(**given(threshold=threshold, grow=grow)),
            on_progress=lambda done: bar.update(done),
        )
    if json:
        print_json(figures.to_dict())
    else:
        typer.echo(f"{figures.regions} regions in {figures.images} pictures -> {out}")
        for name, reason in figures.failed.items():
            typer.echo(f"failed: {name}: {reason}", err=True)
    if figures.failed:
        raise typer.Exit(3)
