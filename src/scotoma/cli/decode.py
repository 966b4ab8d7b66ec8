"""``scotoma decode``: what a split network's server says of bitstreams."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from scotoma.cli.cipher import PassphraseOption
from scotoma.cli.console import use_device
from scotoma.cli.splits import (
    PlainOption,
    SplitOption,
    StreamKeyOption,
    open_optional_ring,
    open_split_file,
)

__all__ = ["HELP", "command"]

HELP = """Answer bitstreams with a split network's tail: the server's half.

Prints one line of JSON per frame, or writes them to OUT: classes, or the boxes that a detector
found, in pixels of the picture that was encoded. A stream that is damaged, reordered, cut
off, or not of this split is answered up to there; its last line says what is wrong. With --key a
stream that is not sealed is refused. Exit code 3: a stream was not whole.

Example: scotoma decode streams --split split.safetensors -o answers.jsonl
"""


def command(
    streams: Annotated[list[Path], typer.Argument(help="Streams and folders of streams.")],
    split: SplitOption,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File of JSON lines; default: print them.")
    ] = None,
    key: StreamKeyOption = None,
    passphrase_file: PassphraseOption = None,
    top: Annotated[int, typer.Option(help="How many classes to name.")] = 1,
    least_score: Annotated[float, typer.Option(help="Of a detector's boxes, from 0 to 1.")] = 0.25,
    batch_size: Annotated[int, typer.Option(help="Frames per network pass.")] = 16,
    model: PlainOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
) -> None:
    """Decode and answer; exit 3 when a stream was not whole."""
    ring = open_optional_ring(key, passphrase_file)
    use_device(device)
    network, digest = open_split_file(split, model, device)

    from scotoma.run.decode import decode

    answers = decode(
        streams,
        network,
        split_digest=digest,
        ring=ring,
        top=top,
        least_score=least_score,
        batch_size=batch_size,
        device=device,
    )
    failed = False
    with _opened(out) as sink:
        for answer in answers:
            failed |= answer.error is not None
            sink.write(json.dumps(answer.to_dict()) + "\n")
            sink.flush()
    if failed:
        raise typer.Exit(3)


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """Yield where lines go: standard output, or a file that is put in place when it is whole."""
    if path is None:
        yield sys.stdout
        return
    from scotoma.core.errors import FileError

    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="ascii") as file:
            yield file
        part.replace(path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"expected to write {path}, got {error.strerror or error}; check its folder, "
            "permissions and free space"
        ) from error
