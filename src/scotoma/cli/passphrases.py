"""Where a key file's passphrase comes from: a file, the environment, or a terminal.

Never from an argument: other users of the machine can read a running command's arguments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from scotoma.core.errors import CipherKeyError, FileError

__all__ = ["PASSPHRASE_VARIABLE", "find_passphrase"]

PASSPHRASE_VARIABLE = "SCOTOMA_PASSPHRASE"  # noqa: S105 (its name, not a passphrase)
_LARGEST_FILE = 2**16


def find_passphrase(file: Path | None = None, *, new: bool = False) -> Callable[[], str]:
    """Return a function that gives the passphrase once it is needed.

    Args:
        file: Holds the passphrase as its only line; wins over the environment variable
            ``SCOTOMA_PASSPHRASE``, which wins over the terminal.
        new: Ask twice on a terminal, since what is mistyped is lost.

    Returns:
        A function; it raises :class:`~scotoma.core.errors.CipherKeyError` where there is no
        passphrase, and :class:`~scotoma.core.errors.FileError` if the file cannot be read.
    """

    def ask() -> str:
        if file is not None:
            return _read_line(file)
        if PASSPHRASE_VARIABLE in os.environ:
            return _check_given(os.environ[PASSPHRASE_VARIABLE], PASSPHRASE_VARIABLE)
        return _prompt(new=new)

    return ask


def _read_line(file: Path) -> str:
    problem = text = None
    try:
        with file.open("rb") as stream:
            text = stream.read(_LARGEST_FILE).decode("utf-8")
    except OSError as error:
        problem = error.strerror or str(error)
    except UnicodeDecodeError:
        # The error holds the file's content, and so ends here.
        problem = "other bytes"
    if text is None:
        raise FileError(
            f"expected a passphrase in {file} as UTF-8 text, got {problem}; check the file"
        )
    line = text.removesuffix("\n").removesuffix("\r")
    if "\n" in line:
        raise CipherKeyError(
            f"expected a passphrase as the only line of {file}, got several; delete the others"
        )
    return _check_given(line, str(file))


def _prompt(*, new: bool) -> str:
    if not sys.stdin.isatty():
        raise CipherKeyError(
            "expected a passphrase, got none and no terminal to ask at; give --passphrase-file "
            f"FILE or set {PASSPHRASE_VARIABLE}"
        )
    from getpass import getpass

    words = _check_given(getpass("Passphrase: "), "the terminal")
    if new and getpass("The same again: ") != words:
        raise CipherKeyError("expected the same passphrase twice, got two; run the command again")
    return words


def _check_given(words: str, source: str) -> str:
    if not words:
        raise CipherKeyError(f"expected a passphrase from {source}, got nothing; give one")
    return words
