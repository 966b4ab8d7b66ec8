"""The rooms of the house: an import goes down, never up or across."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "scotoma"
FLOORS = [
    {"cli", "web", "serve", "testing"},
    {"report"},
    {"evaluate", "run", "train"},
    {"protections", "attacks", "compress"},
    {"models", "images", "optimize"},
    {"ops"},
    {"core"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(SOURCE.rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    """Yield every scotoma module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("scotoma."))
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "scotoma":
                yield from (f"scotoma.{alias.name}" for alias in node.names)
            elif node.module.startswith("scotoma."):
                yield node.module


def _breach(room: str, other: str) -> bool:
    return other in LEVEL and other != room and LEVEL[other] <= LEVEL[room]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    parts = path.relative_to(SOURCE).parts
    if len(parts) == 1:
        pytest.skip("the package's own front door belongs to no room")
    room = parts[0]
    assert room in LEVEL, f"{room} is no room of the house"
    breaches = [name for name in _imports(path) if _breach(room, name.split(".")[1])]
    assert not breaches, f"{room} must not import {breaches}"


def test_the_rule_catches_breaches() -> None:
    assert _breach("ops", "models")
    assert _breach("models", "images")
    assert _breach("protections", "attacks")
    assert not _breach("models", "ops")
    assert not _breach("run", "run")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_exports_are_sorted_and_exist(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    lists = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if path.name == "__init__.py" and not lists:
        return
    assert len(lists) == 1, "expected one __all__"
    names = lists[0]
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 330


@pytest.mark.parametrize("module", ["scotoma", "scotoma.cli.main"])
def test_import_loads_nothing_heavy(module: str) -> None:
    heavy = ["torch", "timm", "onnxruntime", "scipy", "skimage", "cv2"]
    code = f"import sys, {module}; print(*[m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
