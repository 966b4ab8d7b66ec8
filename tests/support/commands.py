"""The ``scotoma`` command in processes of its own, started in a moment.

A fork server imports torch and timm once; each command is then a real process with its own
arguments, folder, standard output and error, and exit code, and can be killed like any other.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["Result", "here", "scotoma", "start"]

_SECONDS = 120
_PRELOAD = [
    "torch",
    "timm.data.transforms_factory",
    "timm.models.convmixer",
    "scotoma.cli.main",
    "scotoma.models.loaders",
    "scotoma.report.run_report",
    "scotoma.core.key_files",
    "scotoma.evaluate.metrics.pictures",
    "scotoma.evaluate.table",
    "scotoma.models.block_stem",
    "scotoma.ops.keyed_maps",
    "scotoma.protections.encrypt.encryption",
    "scotoma.run.adapt",
    "scotoma.run.anonymize",
    "scotoma.run.classify",
    "scotoma.run.decrypt",
    "scotoma.run.detect",
    "scotoma.run.encrypt",
]
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(_PRELOAD)


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Args:
        code: Exit code.
        out: What it wrote to standard output.
        err: What it wrote to standard error.
    """

    code: int
    out: str
    err: str


def scotoma(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> Result:
    """Run ``scotoma ARGUMENTS...`` in ``cwd`` to its end, its output going into pipes' stead."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start(*arguments, cwd=cwd, out=out, err=err, env=env)
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"scotoma {arguments} took more than {_SECONDS} s")
        return Result(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))


def here(*arguments: object, cwd: Path) -> Result:
    """Run ``scotoma ARGUMENTS...`` in this process: quicker, for what ends before any work."""
    from scotoma.cli.main import main

    out, err, before, words = io.StringIO(), io.StringIO(), Path.cwd(), sys.argv
    os.chdir(cwd)
    sys.argv = ["scotoma", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        return Result(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        os.chdir(before)
        sys.argv = words
    raise AssertionError("the command came back without an exit code")


def start(
    *arguments: object, cwd: Path, out: Path, err: Path, env: Mapping[str, str] | None = None
) -> BaseProcess:
    """Start ``scotoma ARGUMENTS...`` and return the process."""
    words = [str(argument) for argument in arguments]
    process = _server.Process(target=_run, args=(words, cwd, out, err, dict(env or {})))
    process.start()
    return process


def _run(words: list[str], cwd: Path, out: Path, err: Path, env: dict[str, str]) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, descriptor)
        os.close(handle)
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["scotoma", *words]
    from scotoma.cli.main import main

    main()
