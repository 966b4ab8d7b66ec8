"""``scotoma encode``: pictures and videos as bitstreams that only a server's half answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.cipher import PassphraseOption
from scotoma.cli.console import use_device
from scotoma.cli.conversion import convert_and_report
from scotoma.cli.splits import (
    PlainOption,
    SplitOption,
    StreamKeyOption,
    open_optional_ring,
    open_split_file,
)

__all__ = ["HELP", "command"]

HELP = """Encode pictures and videos for a split network's server: the camera's half.

Runs the head and the bottleneck's encoder and codes the result. A picture becomes a stream of one
frame, a video one of all its frames, whatever its length in little memory. Writes OUT/ (the input
tree anew), OUT/manifest.jsonl and OUT/summary.json. Started again, it skips what is done. With
--key nobody else can read or change a stream. Exit code 3: an input could not be encoded.

Example: scotoma encode photos -o streams --split split.safetensors
&& scotoma decode streams --split split.safetensors
"""


def command(
    inputs: Annotated[list[Path], typer.Argument(help="Pictures, videos, and folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")],
    split: SplitOption,
    codec: Annotated[str, typer.Option(help="entropy, hevc, av1, vvc, webp or png.")] = "entropy",
    quantizer: Annotated[
        int | None, typer.Option(help="Lose precision: the codec's own scale; default lossless.")
    ] = None,
    key: StreamKeyOption = None,
    passphrase_file: PassphraseOption = None,
    every: Annotated[int, typer.Option(help="Of a video, take one of so many frames.")] = 1,
    model: PlainOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Encode; exit 3 when an input failed."""
    from scotoma.images.bitstream import CodecSettings
    from scotoma.images.walk import find_pictures

    settings = CodecSettings(codec, quantizer)  # names a mistake before a passphrase is asked for
    ring = open_optional_ring(key, passphrase_file)
    use_device(device)

    from scotoma.run.encode import ENCODED_SUFFIXES, encode

    found = find_pictures(inputs, exclude=out, suffixes=ENCODED_SUFFIXES)
    network, digest = open_split_file(split, model, device)
    convert_and_report(
        "encoding",
        found,
        lambda show: encode(
            inputs,
            out,
            network,
            split_digest=digest,
            settings=settings,
            key=None if ring is None else ring.current,
            every=every,
            device=device,
            on_progress=show,
        ),
        out=out,
        json=json,
    )
