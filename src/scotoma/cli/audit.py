"""``scotoma audit``: hold an evaluation to limits, in a user's own tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.console import print_json

__all__ = ["CONTEXT", "HELP", "command"]

HELP = """Check an evaluation against limits: --max-METRIC NUMBER, --min-METRIC NUMBER.

A metric is named in full or by a beginning that fits one alone, as --max-reid. A figure that
is not a number breaks its limit, and so does a cell that failed; a limit on what no record has
is an error. The protection 'none' is looked at only by name. Exit code 3: a limit is broken.

Example: scotoma audit out --max-reid 0.05 --max-ssim 0.3 --min-agreement 0.99
"""

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def command(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="Output folder of scotoma evaluate.")],
    protection: Annotated[
        list[str] | None, typer.Option(help="Label to look at; may be given several times.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Hold the far ends of 95 % intervals to the limits.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Audit; exit 3 when a limit is broken."""
    from scotoma.core.errors import FileError, SettingsError
    from scotoma.evaluate.limits import check_limits, parse_limit
    from scotoma.evaluate.records import RECORDS, read_records

    words = [part for word in context.args for part in word.split("=", 1)]
    if len(words) % 2:
        raise SettingsError(f"expected --max-METRIC NUMBER, got {' '.join(context.args)!r}")
    limits = [parse_limit(*pair) for pair in zip(words[::2], words[1::2], strict=True)]
    if not (out / RECORDS).is_file():
        raise FileError(f"expected {RECORDS} of scotoma evaluate in {out}, got none")
    records = read_records(out)
    breaches = check_limits(records, limits, protections=protection or [], strict=strict)
    if json:
        found = [
            {"cell": breach.record.title, "metric": breach.metric, "reason": breach.reason}
            for breach in breaches
        ]
        print_json({"limits": len(limits), "records": len(records), "breaches": found})
    else:
        for breach in breaches:
            typer.echo(f"{breach.record.title}: {breach.reason}")
        typer.echo(f"{len(breaches)} breaches of {len(limits)} limits in {len(records)} records")
    if breaches:
        raise typer.Exit(3)
