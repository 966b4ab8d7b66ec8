"""What the commands under ``scotoma train`` share: checks before, lines during, a report after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scotoma.cli.console import print_json

if TYPE_CHECKING:
    from scotoma.train import loop

__all__ = ["check_classes", "check_folder", "report_history", "shower"]


def report_history(recipe: Any, history: list[loop.Epoch], out: Path, json: bool) -> None:
    """Say what was trained, in the process that reports."""
    from dataclasses import asdict

    from scotoma.train.hardware import is_first_process

    if not is_first_process():
        return
    if json:
        print_json({"recipe": asdict(recipe), "history": [asdict(epoch) for epoch in history]})
    else:
        typer.echo(f"written to {out}")


def check_folder(out: Path) -> None:
    """Raise FileError unless the folder to write to is there."""
    from scotoma.core.errors import FileError

    if not out.parent.is_dir():
        raise FileError(f"expected an existing folder to write {out.name} to, got {out.parent}")


def check_classes(expected: tuple[str, ...], got: tuple[str, ...]) -> None:
    """Raise FileError unless test pictures have the training pictures' classes."""
    from scotoma.core.errors import FileError

    if got != expected:
        raise FileError(f"expected the training classes {expected} in the test pictures, got {got}")


def shower(epochs: int, name: str) -> Callable[[loop.Epoch], None]:
    """Return what prints a line for every epoch; ``name`` says what its score is."""

    def show(epoch: loop.Epoch) -> None:
        score = "" if epoch.score is None else f", {name} {epoch.score:.4f}"
        line = f"epoch {epoch.number}/{epochs}: loss {epoch.loss:.4f}{score}, {epoch.seconds:.0f} s"
        typer.echo(line)

    return show
