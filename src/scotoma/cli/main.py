"""The ``scotoma`` command.

Exit codes: 0 all is well; 1 a usage or input error (the message says expected, got,
what to do); 3 it ran, but something could not be protected as asked.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from scotoma import __version__
from scotoma.cli import (
    adapt,
    anonymize,
    attack,
    audit,
    classify,
    compress,
    decode,
    decrypt,
    demo,
    detect,
    encode,
    encrypt,
    evaluate,
    export,
    keygen,
    listing,
    report,
    train,
)
from scotoma.core.errors import ScotomaError

__all__ = ["app", "main"]

app = typer.Typer(
    name="scotoma",
    help="Images that machines can read and people can't.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", help=demo.HELP)(demo.command)
app.command("anonymize", help=anonymize.HELP)(anonymize.command)
app.command("detect", help=detect.HELP)(detect.command)
app.command("keygen", help=keygen.HELP)(keygen.command)
app.command("encrypt", help=encrypt.HELP)(encrypt.command)
app.command("decrypt", help=decrypt.HELP)(decrypt.command)
app.command("encode", help=encode.HELP)(encode.command)
app.command("decode", help=decode.HELP)(decode.command)
app.command("export", help=export.HELP)(export.command)
app.command("adapt", help=adapt.HELP)(adapt.command)
app.command("classify", help=classify.HELP)(classify.command)
app.command("compress", help=compress.HELP)(compress.command)
app.command("attack", help=attack.HELP)(attack.command)
app.command("evaluate", help=evaluate.HELP)(evaluate.command)
app.command("audit", help=audit.HELP, context_settings=audit.CONTEXT)(audit.command)
app.command("report", help=report.HELP)(report.command)
app.command("list", help=listing.HELP)(listing.command)
app.add_typer(train.app, name="train")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Images that machines can read and people can't."""


def main() -> NoReturn:
    """Run the command line and exit."""
    # Waiting threads that spin make a search five times slower beside any other busy process;
    # read by the OpenMP runtime when torch is first imported, which is later than this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except ScotomaError as error:
        sys.stderr.write(f"scotoma: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("scotoma: interrupted; run the same command again to go on\n")
        sys.exit(130)
    except SystemExit as end:
        # Typer ends usage errors with 2; our contract says 1.
        sys.exit(1 if end.code == 2 else end.code)
    sys.exit(0)
