"""Names of models that are short enough to stand under a picture."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["short_names"]


def short_names(models: Iterable[str]) -> dict[str, str]:
    """Return a name without folders for each model SPEC, where these names stay distinct.

    Example:
        >>> short_names(["timm:resnet18@nets/r.safetensors", "exported:nets/mine.pt2"])
        {'timm:resnet18@nets/r.safetensors': 'timm:resnet18', 'exported:nets/mine.pt2': 'mine.pt2'}
    """
    short = {}
    for model in models:
        name = model.partition("@")[0]
        short[model] = name.replace("\\", "/").rpartition("/")[2]
    return short if len(set(short.values())) == len(short) else {model: model for model in short}
