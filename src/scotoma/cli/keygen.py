"""``scotoma keygen``: make a key file, or add a new key to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.console import print_json

__all__ = ["HELP", "command"]

HELP = """Make a key file, sealed under a passphrase.

The passphrase comes from --passphrase-file, the variable SCOTOMA_PASSPHRASE, or the terminal.
Keep a copy of file and passphrase: without them nobody decrypts a release.

Example: scotoma keygen photos.key
"""


def command(
    key_file: Annotated[Path, typer.Argument(metavar="KEYFILE", help="Key file to write.")],
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Add a new current key to an existing file.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Do not seal it: whoever can read the file has the key."),
    ] = False,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File whose only line is the passphrase.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the ids as JSON.")] = False,
) -> None:
    """Write the file; print its path and the keys' public ids, nothing else of them."""
    from scotoma.cli.passphrases import find_passphrase
    from scotoma.core.errors import CipherKeyError, UnsafePathError
    from scotoma.core.key_files import is_sealed, rotate_key_file, write_key_file
    from scotoma.core.keys import KeyRing

    if raw and (rotate or passphrase_file):
        raise CipherKeyError(
            "expected --raw alone, got it with --rotate or --passphrase-file; a rotated file "
            "keeps its form, and a raw one has no passphrase"
        )
    if rotate:
        ring = rotate_key_file(key_file, find_passphrase(passphrase_file))
    else:
        if key_file.exists():
            # Before a passphrase is asked for.
            raise UnsafePathError(
                f"expected no file at {key_file}, got one; choose another name, or add a new "
                "key to it with --rotate"
            )
        ring = KeyRing.generate()
        words = None if raw else find_passphrase(passphrase_file, new=True)()
        write_key_file(key_file, ring, passphrase=words, raw=raw)
    sealed = is_sealed(key_file)
    if not sealed:
        typer.echo(
            f"scotoma: warning: {key_file} is not sealed; whoever can read it has the key", err=True
        )
    if json:
        print_json(
            {
                "path": str(key_file),
                "key_id": ring.current.key_id,
                "ids": list(ring.ids()),
                "sealed": sealed,
            }
        )
        return
    typer.echo(f"key {ring.current.key_id} -> {key_file}")
    if rotate:
        typer.echo(f"earlier keys, for their releases: {', '.join(ring.ids()[:-1])}")
