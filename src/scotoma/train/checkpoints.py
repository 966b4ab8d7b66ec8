"""State of a training run on disk, and the refusal to go on from another run's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scotoma.core.errors import SettingsError

__all__ = ["keep", "read"]


def keep(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` in one step, so that a checkpoint is whole or absent."""
    part = path.with_name(path.name + ".part")
    torch.save(dict(state), part)
    part.replace(path)


def read(path: Path, *, recipe: str, pictures: str) -> dict[str, Any]:
    """Return the state that :func:`keep` wrote.

    Args:
        path: The checkpoint.
        recipe: What its entry ``recipe`` must be.
        pictures: What its entry ``pictures`` must be, where it has one.

    Raises:
        SettingsError: It is damaged, or belongs to another recipe or other pictures.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files fail in many ways inside torch
        raise SettingsError(
            f"the checkpoint {path} is damaged ({type(error).__name__}); delete it to start anew"
        ) from error
    if state["recipe"] != recipe:
        raise SettingsError(
            f"the checkpoint {path} belongs to another recipe; delete it or name another file"
        )
    if state.get("pictures", pictures) != pictures:
        raise SettingsError(
            f"the checkpoint {path} belongs to other pictures ({state['pictures']}, now "
            f"{pictures}); delete it or name another file"
        )
    return state
