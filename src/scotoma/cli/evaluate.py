"""``scotoma evaluate``: what leaks and what is kept, for a whole table of cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scotoma.cli.console import print_json, progress_bar

if TYPE_CHECKING:
    from scotoma.evaluate.config import Config
    from scotoma.evaluate.records import Record
    from scotoma.evaluate.table import Totals

__all__ = ["HELP", "command"]

HELP = """Try attacks on protections, and measure what models still say.

The configuration names data, models, protections and attacks; every combination that applies is
a cell, and each cell becomes one line of OUT/records.jsonl as it finishes. Started again, it
skips what is done. OUT/pictures holds releases and the attackers' guesses: where a protection
fails, these show what was private. Exit code 3: a cell failed; its line says why.

Example: scotoma evaluate benchmark.toml -o out && scotoma audit out --max-ssim 0.3
"""


def command(
    config: Annotated[Path, typer.Argument(help="Configuration, TOML; see docs/evaluation.md.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")],
    seed: Annotated[
        int | None, typer.Option(help="Of everything random, instead of the configuration's.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Pictures of each cell that are written.")] = 3,
    report_originals: Annotated[
        bool, typer.Option(help="Write originals too; OUT must then not be published.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """Evaluate; exit 3 when a cell failed."""
    from scotoma.evaluate.config_reader import read_config

    found = read_config(config)
    if seed is not None:
        found = replace(found, run=replace(found.run, seed=seed))
    totals = _run(found, out, examples, show_originals=report_originals, quiet=json)
    if json:
        print_json({**asdict(totals), "out": str(out)})
    else:
        typer.echo(
            f"{totals.cells} cells: {totals.ok} measured, {totals.skipped} done before, "
            f"{totals.not_applicable} do not apply, {totals.failed} failed"
        )
        typer.echo(f"records: {out / 'records.jsonl'}")
    if totals.failed:
        raise typer.Exit(3)


def _run(config: Config, out: Path, examples: int, *, show_originals: bool, quiet: bool) -> Totals:
    from scotoma.evaluate.table import list_cells, run_table

    total, done = len(list_cells(config)), 0
    with progress_bar("evaluating", unit="cells") as bar:

        def show_cell(title: str, record: Record | None) -> None:
            nonlocal done
            done += 1
            if record is not None and record.status == "failed":
                bar.say(f"failed: {title}: {record.reason}")
            elif record is not None and not quiet:
                bar.say(_line(title, record))
            bar.update(done, total, title)

        show_progress: Callable[[str, int, int | None], None] = lambda what, step, steps: (  # noqa: E731
            bar.update(done, total, f"{what} {step}{'' if steps is None else f'/{steps}'}")
        )
        return run_table(
            config,
            out,
            show_originals=show_originals,
            examples=examples,
            on_cell=show_cell,
            on_progress=show_progress,
        )


def _line(title: str, record: Record) -> str:
    if record.status == "not-applicable":
        return f"does not apply: {title}: {record.reason}"
    shown = [f"{name} {figure.value:.3g}" for name, figure in list(record.metrics.items())[:4]]
    return f"{title}: {', '.join(shown)}{' (oracle)' if record.oracle else ''}"
