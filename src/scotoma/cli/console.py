"""What every command shares: progress on a terminal, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import typer

__all__ = ["Bar", "given", "print_json", "progress_bar", "use_device"]


class Bar(Protocol):
    """Something that shows how far a command has come."""

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show ``done`` of ``total`` (None while unknown) and a short note."""
        ...

    def say(self, line: str) -> None:
        """Print a line to standard error, above the bar where there is one."""
        ...


class _Silent:
    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        pass

    def say(self, line: str) -> None:
        sys.stderr.write(line + "\n")


@contextmanager
def progress_bar(label: str, *, unit: str = "pictures") -> Iterator[Bar]:
    """Yield a bar with rate and time left on a terminal, and nothing visible in a pipe."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit} · {{task.fields[rate]}} · {{task.fields[note]}}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with progress:
        task = progress.add_task(label, total=None, rate="", note="")

        class _Rich:
            def update(self, done: int, total: int | None = None, note: str = "") -> None:
                elapsed = progress.tasks[0].elapsed or 0.0
                rate = f"{done / elapsed:.1f}/s" if elapsed > 0 else ""
                progress.update(task, completed=done, total=total, note=note, rate=rate)

            def say(self, line: str) -> None:
                shown = line.encode("utf-8", "backslashreplace").decode("utf-8")
                progress.console.print(shown, markup=False, highlight=False)

        yield _Rich()


def given(**options: Any) -> dict[str, Any]:
    """Return the options that the user gave, so that the others keep their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object to standard output."""
    typer.echo(json.dumps(value, indent=2))


def use_device(device: str) -> str:
    """Return ``device`` if torch can use it here.

    Raises:
        SettingsError: It cannot.
    """
    import torch

    from scotoma.core.errors import SettingsError

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(
            f"expected a device that works here, such as cpu, got {device!r}: {reason}"
        ) from error
    return device
