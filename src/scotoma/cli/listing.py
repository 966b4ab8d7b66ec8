"""``scotoma list``: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

from scotoma.cli.console import print_json

__all__ = ["HELP", "command"]

HELP = """List models, fills or detectors.

Example: scotoma list models
"""


def _models() -> list[tuple[str, str]]:
    from scotoma.models.spec import list_models

    return list(list_models())


def _fills() -> list[tuple[str, str]]:
    from scotoma.ops.fills import fills

    rows = []
    for name in fills.names():
        fill = fills.get(name)
        reads = "reads the background only" if fill.background_only else "reads the region itself"
        rows.append((name, f"{fill.summary} ({reads})"))
    return rows


def _detectors() -> list[tuple[str, str]]:
    from scotoma.images.detectors import detectors

    return [
        (name, (detectors.get(name).__doc__ or "").strip().partition("\n")[0])
        for name in detectors.names()
    ]


_KINDS = {"models": _models, "fills": _fills, "detectors": _detectors}


def command(
    kind: Annotated[str, typer.Argument(help="models, fills or detectors.")],
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Print names and one line on each."""
    from scotoma.core.errors import UnknownNameError

    if kind not in _KINDS:
        raise UnknownNameError("listing", kind, _KINDS)
    rows = _KINDS[kind]()
    if json:
        print_json(dict(rows))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        typer.echo(f"{name:<{width}}  {text}")
