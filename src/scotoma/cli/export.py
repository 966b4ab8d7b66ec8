"""``scotoma export``: a split network's halves as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.console import print_json
from scotoma.cli.splits import PlainOption, SplitOption, open_split_file

__all__ = ["HELP", "command"]

HELP = """Write a split network's halves as ONNX: camera.onnx and server.onnx.

The camera's half takes normalized pictures and gives the bytes to send, the server's half takes
these and gives the answer. onnxruntime alone runs them; their metadata say how pictures are
prepared and how the bytes are coded.

Example: scotoma export --split split.safetensors -o halves
"""


def command(
    split: SplitOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the two files.")],
    model: PlainOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Export both halves."""
    from scotoma.models.split_onnx import export_halves

    network, digest = open_split_file(split, model, "cpu")
    camera, server = export_halves(network, out, split_digest=digest)
    if json:
        print_json({"camera": str(camera), "server": str(server), "split": digest})
        return
    for path in (camera, server):
        typer.echo(f"{path}: {path.stat().st_size} bytes")
