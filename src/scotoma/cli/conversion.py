"""How commands that turn each file into another show their progress and their end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scotoma.cli.console import print_json, progress_bar

if TYPE_CHECKING:
    from scotoma.run.conversion import Conversion, ConversionSummary

__all__ = ["convert_and_report"]


def convert_and_report(
    label: str,
    found: Iterable[object],
    run: Callable[[Callable[[Conversion, bool], None]], ConversionSummary],
    *,
    out: Path,
    json: bool,
) -> None:
    """Run with a progress bar, print the summary, and exit with 3 where a file failed.

    Args:
        label: What is being done, for the bar.
        found: The inputs, to count them.
        run: Does it, given what to call after each file.
        out: The output folder.
        json: Print the summary as JSON.
    """
    done = 0
    with progress_bar(label, unit="files") as bar:
        total = sum(1 for _ in found)

        def show(line: Conversion, is_skipped: bool) -> None:
            nonlocal done
            done += 1
            if line.status == "failed":
                name = Path(line.input)
                reason = (line.error or "").removeprefix(f"{name.name}: ")
                bar.say(f"failed: {name}: {reason}")
            bar.update(done, total, "done before" if is_skipped else line.status)

        summary = run(show)
    if json:
        print_json(summary.to_dict())
    else:
        typer.echo(
            f"{summary.images} files, {summary.failed} failed; "
            f"{summary.images_per_second:.1f} per second -> {out}"
        )
    if summary.failed:
        raise typer.Exit(3)
