"""The pages on adding an attack and a protection, followed from scratch as a package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"adding-an-attack.md": "True", "adding-a-protection.md": "True"}


def follow(page: str, folder: Path) -> None:
    """Write every code block that names its file; then do what an installer does."""
    text = (DOCS / page).read_text("utf-8")
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4, "the page has lost its files"
    for name, content in blocks:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("page", PAGES)
def test_the_page_works_as_written(page: str, tmp_path: Path) -> None:
    follow(page, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    out = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "tests")
    assert "1 passed" in out
    assert run("measure.py").split() == ["ok", "True"]
    kind, name = ("attacks", "shaded-mean") if "attack" in page else ("protections", "signs")
    assert name in run("-m", "scotoma", "list", kind)
