"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real pictures and trained nets beside the checkout, or skip."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the pictures and trained nets in ../shared, which is absent here")
    return folder


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two small model files whose decisions vary between pictures and differ."""
    from support.tiny_models import write_tiny_model  # imports torch, which few tests need

    folder = tmp_path_factory.mktemp("models")
    return (
        write_tiny_model(folder / "first.safetensors", seed=0),
        write_tiny_model(folder / "second.safetensors", seed=2),
    )
