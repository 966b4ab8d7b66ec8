"""Networks to look at or to split: what classifiers' SPECs name, and others besides.

::

    timm:NAME, torchvision:NAME    an architecture alone, with random weights
    yolov5:n, yolov5:FILE[@SIDE]   the detector, of random weights or a file's
    transformers:FOLDER            an image classifier's config.json, weights where they lie beside
    all that scotoma list models shows
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from scotoma.core.errors import (
    MissingExtraError,
    ModelError,
    UnknownNameError,
    UnsupportedModelError,
)
from scotoma.models.assembly import nearest
from scotoma.models.blueprint import Blueprint
from scotoma.models.loaders import TORCHVISION
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.spec import load_classifier

__all__ = ["find_network"]

Size = tuple[int, int, int]
_TRANSFORMERS_SIDE = 224


def find_network(spec: str) -> tuple[nn.Module, Size]:
    """Return the network that ``spec`` names, in evaluation mode, and ``(C, H, W)`` of its input.

    Args:
        spec: A form above. Nothing is downloaded for an architecture alone.

    Raises:
        UnknownNameError: No such scheme or model; the message suggests the nearest.
        ModelError: Missing or damaged files, or weights that do not fit.
        UnsupportedModelError: It has no operations that can be looked at, as an ONNX model.
    """
    scheme, _, target = spec.partition(":")
    if scheme in _SCHEMES and target and not _has_weights(target):
        return _SCHEMES[scheme](target)
    if scheme in _OTHERS and target:
        return _OTHERS[scheme](target)
    classifier = load_classifier(spec)
    if not isinstance(classifier.network, nn.Module):
        raise UnsupportedModelError(
            f"expected a network of torch, got {spec!r}, which answers from outside of it; name "
            "the model that it was exported from"
        )
    return classifier.network, classifier.input_shape


def _has_weights(target: str) -> bool:
    return "@" in target or target.startswith(("local-dir:", "hf-hub:"))


def _find_timm(name: str) -> tuple[nn.Module, Size]:
    import timm

    if not timm.is_model(name):
        raise UnknownNameError("timm model", name, nearest(name, timm.list_models()))
    network = Blueprint("timm", name, {"config": {}, "model_args": {}}).build()
    return network, Preprocessing.from_timm(network).input_size


def _find_torchvision(name: str) -> tuple[nn.Module, Size]:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UnknownNameError("torchvision model", name, nearest(name, known))
    # These two warn about, and spend minutes on, an initialization that tells nothing here.
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return Blueprint("torchvision", name, quick).build(), TORCHVISION.input_size


def _find_yolov5(target: str) -> tuple[nn.Module, Size]:
    from scotoma.models.detectors import parse_detector
    from scotoma.models.yolov5 import YOLOv5, YOLOv5Config, load_yolov5

    name, side = parse_detector(target)
    if len(name) == 1:
        network = YOLOv5(YOLOv5Config(name)).eval().requires_grad_(False)
    else:
        network = load_yolov5(Path(name).expanduser())
    return network, (3, side, side)


def _find_transformers(target: str) -> tuple[nn.Module, Size]:
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError as error:
        raise MissingExtraError("a model of transformers", "transformers", "train") from error
    folder = Path(target).expanduser()
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"expected a folder with the config.json of a transformers model at {folder}, "
            "found none; fetch config.json and model.safetensors into one"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if (folder / "model.safetensors").is_file():
            network = AutoModelForImageClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        else:
            network = AutoModelForImageClassification.from_config(config)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(
            f"expected a transformers image classifier in {folder}, got: {reason}"
        ) from error
    return network.eval().requires_grad_(False), _size_of(config)


def _size_of(config: Any) -> Size:
    side = getattr(config, "image_size", None) or _TRANSFORMERS_SIDE
    height, width = side if isinstance(side, list | tuple) else (side, side)
    return getattr(config, "num_channels", 3), height, width


_SCHEMES: dict[str, Callable[[str], tuple[nn.Module, Size]]] = {
    "timm": _find_timm,
    "torchvision": _find_torchvision,
}
_OTHERS: dict[str, Callable[[str], tuple[nn.Module, Size]]] = {
    "transformers": _find_transformers,
    "yolov5": _find_yolov5,
}
