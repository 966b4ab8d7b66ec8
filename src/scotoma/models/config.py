"""The JSON that lies beside a model: how it is fed, and what its classes are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from scotoma.core.errors import ModelError

__all__ = ["class_names", "find_config", "imagenet_names", "read_config", "require_config"]

_LABEL_KEYS = ("classes", "label_names", "labels")


def read_config(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises:
        ModelError: No such file, or not a JSON object.
    """
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"expected a JSON object in {path}, got: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"expected a JSON object in {path}, got a {type(config).__name__}")
    return config


def find_config(model: Path) -> Path | None:
    """Return the JSON that describes the model file: its own, else its folder's, else None.

    Its own is ``NAME.json`` or ``NAME.SUFFIX.json``; its folder's is ``config.json``.
    """
    candidates = (
        model.with_suffix(".json"),
        model.with_name(model.name + ".json"),
        model.with_name("config.json"),
    )
    return next((path for path in candidates if path.is_file()), None)


def require_config(model: Path) -> dict[str, Any]:
    """Return the content of the JSON beside the model file.

    Raises:
        ModelError: There is none, or it is not a JSON object.
    """
    path = find_config(model)
    if path is None:
        raise ModelError(
            f"expected {model.with_suffix('.json').name} or config.json beside {model}, found "
            'neither; write one like {"input_size": [3, 224, 224], "mean": [0.485, 0.456, 0.406], '
            '"std": [0.229, 0.224, 0.225], "interpolation": "bilinear", "crop_pct": 0.875}'
        )
    return read_config(path)


def class_names(config: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """Return the name of each of ``count`` logits, or None where they are not known.

    Names come from ``classes``, ``label_names`` or ``labels`` (a list, or a mapping of index
    to name), at the top of the configuration or in its ``pretrained_cfg``. A model of 1000
    classes without names is taken for an ImageNet model.

    Raises:
        ModelError: There are names, but not as many as logits.
    """
    nested = config.get("pretrained_cfg")
    levels = [config, nested] if isinstance(nested, Mapping) else [config]
    for level in levels:
        names = next((level[key] for key in _LABEL_KEYS if level.get(key)), None)
        if names is None:
            continue
        found = _as_tuple(names)
        if len(found) != count:
            raise ModelError(f"expected {count} class names, one per logit, got {len(found)}")
        described = level.get("label_descriptions") or config.get("label_descriptions")
        if isinstance(described, Mapping):
            return tuple(_first_synonym(str(described.get(name, name))) for name in found)
        return found
    return imagenet_names() if count == 1000 else None


def _as_tuple(names: Any) -> tuple[str, ...]:
    if isinstance(names, Mapping):
        try:
            names = [names[key] for key in sorted(names, key=int)]
        except (TypeError, ValueError) as error:
            raise ModelError(
                'expected class names as a list, or as a mapping like {"0": "cat"}, '
                f"got a mapping whose keys are not numbers: {error}"
            ) from error
    if not isinstance(names, list | tuple):
        raise ModelError(f"expected class names as a list, got a {type(names).__name__}")
    return tuple(str(name) for name in names)


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return the first WordNet synonym of each of the 1000 ImageNet classes."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(_first_synonym(str(text)) for text in ImageNetInfo().label_descriptions())


def _first_synonym(description: str) -> str:
    return description.partition(",")[0].strip()
