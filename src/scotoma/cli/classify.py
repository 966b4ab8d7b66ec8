"""``scotoma classify``: what a model says of releases, or of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scotoma.cli.console import print_json, use_device

if TYPE_CHECKING:
    from scotoma.run.classify import Verdict

__all__ = ["HELP", "command"]

HELP = """Ask a model about releases, or about pictures.

A model that scotoma adapt wrote reads releases of its own scheme and key, and nothing else; any
other model reads pictures. Prints one line per input. Exit code 3: an input could not be read,
or was not made for this model.

Example: scotoma classify released --model scotoma:resnet18.safetensors --json
"""


def command(
    inputs: Annotated[list[Path], typer.Argument(help="Releases, pictures, folders of them.")],
    model: Annotated[
        str, typer.Option(help="Model to ask; see: scotoma list models.")
    ] = "embedded",
    top: Annotated[int, typer.Option(help="How many classes to name.")] = 1,
    batch_size: Annotated[int, typer.Option(help="Inputs per network pass.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Classify; exit 3 when an input failed."""
    use_device(device)

    from scotoma.models.spec import load_classifier
    from scotoma.run.classify import classify

    classifier = load_classifier(model, device=device)
    verdicts = classify(
        inputs,
        classifier,
        top=top,
        batch_size=batch_size,
        on_verdict=None if json else _print,
    )
    if json:
        print_json({"model": model, "verdicts": [verdict.to_dict() for verdict in verdicts]})
    if any(verdict.error for verdict in verdicts):
        raise typer.Exit(3)


def _print(verdict: Verdict) -> None:
    if verdict.error is not None:
        name = Path(verdict.input)
        reason = verdict.error.removeprefix(f"{name.name}: ")
        typer.echo(f"failed: {verdict.input}: {reason}", err=True)
        return
    answers = ", ".join(f"{answer.name} {answer.score:.3f}" for answer in verdict.answers)
    typer.echo(f"{verdict.input}: {answers}")
