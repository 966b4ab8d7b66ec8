"""What a ``.pt2`` file may hold before ``torch.export.load`` is let at it.

Loading such a file can run what it brings: torch unpickles tensors and objects without
restriction where the file says so, evaluates the text of symbolic sizes, and resolves the
names of operators by attribute. This module refuses all of that before torch sees the file.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scotoma.core.errors import ModelError

__all__ = ["check_program"]

_OPERATOR = re.compile(
    r"torch\.ops\.[a-z]\w*(\.(?!__)\w+){1,2}"
    r"|torch\.sym_[a-z]+"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|getitem|and_|or_)"
    r"|math\.[a-z]+"
)
_NAMES = {"Symbol", "positive", "nonnegative", "integer", "True", "False", "Integer", "Rational"}
_NAMES |= {"Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv"}
_QUOTED_SYMBOL = re.compile(r"'[su]\d+'")
_OBJECTS = ("custom_obj_", "opaque_obj_")


def check_program(path: Path) -> None:
    """Return if the file holds a graph of tensor operators and plain weights only.

    Args:
        path: A file that ``torch.export.save`` wrote.

    Raises:
        ModelError: No such file, no such archive, or one that could run code when loaded.

    Security:
        Refuses pickled weights, constants and objects other than plain tensors, symbolic
        sizes that are not arithmetic, and operators from outside ``torch.ops``. It is written
        against the loader of torch 2.4 to 2.15; a program remains something to take only
        from those whom one trusts with a computation.
    """
    if not path.is_file():
        raise ModelError(f"expected a torch.export program at {path}, found no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
    except (zipfile.BadZipFile, OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"expected a program of torch.export.save at {path}, got: {error}; fetch it again"
        ) from error


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    # torch's reader may take another of two members of one name than the one checked here.
    if len({name.lower() for name in names}) != len(names):
        raise _refusal(path, "two members of one name")
    for name in names:
        member = name.rpartition("/")[2]
        if member.endswith((".pt", ".pth", ".pkl")):
            _check_pickle(path, name, archive.read(name))
        elif member.endswith(".json"):
            _check_json(path, json.loads(archive.read(name)))
        elif member.endswith((".so", ".cpp", ".cubin")):
            raise _refusal(path, f"compiled code ({name})")


def _check_pickle(path: Path, name: str, content: bytes) -> None:
    import torch

    if not content:
        return
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever cannot be read safely is refused
        raise _refusal(path, f"a pickle of more than tensors ({name})") from error


def _check_json(path: Path, content: Any) -> None:
    for entry in _objects(content):
        if entry.get("use_pickle"):
            raise _refusal(path, "pickled weights")
        if str(entry.get("path_name", "")).startswith(_OBJECTS):
            raise _refusal(path, "pickled objects")
        if "expr_str" in entry and not _is_arithmetic(str(entry["expr_str"])):
            raise _refusal(path, f"the size {str(entry['expr_str'])[:60]!r}")
        if {"target", "inputs"} <= entry.keys() and not _OPERATOR.fullmatch(str(entry["target"])):
            raise _refusal(path, f"the operator {str(entry['target'])[:60]!r}")


def _objects(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, dict):
        yield content
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            yield from _objects(item)


def _is_arithmetic(expression: str) -> bool:
    bare = _QUOTED_SYMBOL.sub("", expression)
    return (
        re.fullmatch(r"[\w\s+\-*/(),=]*", bare) is not None
        and set(re.findall(r"[A-Za-z_]\w*", bare)) - _symbols(bare) <= _NAMES
    )


def _symbols(expression: str) -> set[str]:
    return set(re.findall(r"\b[su]\d+\b", expression))


def _refusal(path: Path, what: str) -> ModelError:
    return ModelError(
        f"expected only tensor operators and plain weights in {path}, got {what}, which could "
        "run code; it was not loaded. Export the model again with torch.export.save"
    )
