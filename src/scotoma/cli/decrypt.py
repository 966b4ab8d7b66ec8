"""``scotoma decrypt``: pictures back from releases, for who holds the key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.cipher import PassphraseOption, open_ring
from scotoma.cli.console import use_device
from scotoma.cli.conversion import convert_and_report

__all__ = ["HELP", "command"]

HELP = """Decrypt releases into PNG pictures, for who holds the key.

You get what the model would have seen: normalization is undone and rounded to 8 bits; resize
and crop are not undone, so keep the originals. A release that someone changed is refused.
Key-less schemes cannot be undone. Exit code 3: a release could not be decrypted.

Example: scotoma decrypt released -o pictures --key photos.key
"""


def command(
    releases: Annotated[list[Path], typer.Argument(help="Releases and folders of releases.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")],
    key: Annotated[Path, typer.Option(help="Key file that they were made with.")],
    passphrase_file: PassphraseOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Decrypt; exit 3 when a release failed."""
    from scotoma.images.ciphertext import RELEASE_SUFFIXES
    from scotoma.images.walk import find_pictures

    found = find_pictures(releases, exclude=out, suffixes=RELEASE_SUFFIXES)
    ring = open_ring(key, passphrase_file)
    use_device(device)

    from scotoma.run.decrypt import decrypt

    convert_and_report(
        "decrypting",
        found,
        lambda show: decrypt(releases, out, ring, device=device, on_progress=show),
        out=out,
        json=json,
    )
