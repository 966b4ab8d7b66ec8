"""``scotoma report``: what a run or an evaluation found, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.console import print_json

__all__ = ["HELP", "command"]

HELP = """Write OUT/report.html from the records of an evaluation: one file that loads nothing.

It shows what each protection keeps and what the strongest attack gets, every measurement with
its interval, and pictures: original, release, and the attackers' best guesses. Originals are in
it only if the evaluation wrote them, and then the page must not be published.

Example: scotoma evaluate benchmark.toml -o out && scotoma report out
"""


def command(
    out: Annotated[Path, typer.Argument(help="Output folder of scotoma evaluate.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="What attacks are compared by; may be given several times."),
    ] = None,
    title: Annotated[str, typer.Option(help="One line that names it.")] = "Evaluation report",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Write the page."""
    from scotoma.core.errors import FileError
    from scotoma.evaluate.records import RECORDS
    from scotoma.report.evaluation import report_evaluation

    if not (out / RECORDS).is_file():
        path = out / "report.html"
        if not ((out / "manifest.jsonl").is_file() and path.is_file()):
            raise FileError(
                f"expected {RECORDS} of scotoma evaluate in {out}, got none; an anonymization "
                "run writes its report itself: run scotoma anonymize again, it skips what is done"
            )
    else:
        path = report_evaluation(out, metrics=metric or (), title=title)
    if json:
        print_json({"report": str(path)})
    else:
        typer.echo(f"report: {path}")
