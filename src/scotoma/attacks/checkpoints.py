"""State of an attack's training on disk, and the refusal to go on from another training's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scotoma.core.errors import FileError, SettingsError

__all__ = ["keep", "read"]


def keep(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state with its ``recipe`` and ``step`` in one step, so that it is whole or absent.

    Raises:
        FileError: It cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(state), part)
        part.replace(path)
    except (OSError, RuntimeError) as error:
        raise FileError(
            f"expected to write the checkpoint {path}, got: {error}; name another file"
        ) from error


def read(path: Path, *, recipe: str) -> dict[str, Any]:
    """Return the state that :func:`keep` wrote.

    Raises:
        SettingsError: It is damaged, or of another recipe.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found, state["step"] = state["recipe"], int(state["step"])
    except Exception as error:  # damaged files fail in many ways inside torch
        raise SettingsError(
            f"the checkpoint {path} is damaged ({type(error).__name__}); delete it to start anew"
        ) from error
    if found != recipe:
        raise SettingsError(
            f"the checkpoint {path} belongs to another training (other settings, pictures or "
            "seed); delete it or name another file"
        )
    return state
