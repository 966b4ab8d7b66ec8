"""Classifiers by name: one line of text says where a model comes from.

::

    embedded                     the small model in the package; embedded:NAME others
    timm:mobilenetv2_100         SCHEME:WHAT
    timm:resnet18@weights.pth    SCHEME:NAME@FILE

A plugin adds a scheme as an entry point in the group ``scotoma.model_schemes`` whose object
is a :class:`Scheme`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.core.registry import Registry
from scotoma.models.classifier import Classifier

__all__ = ["SCHEMES", "Scheme", "list_models", "load_classifier"]

Loader = Callable[[str, str, str], Classifier]


@dataclass(frozen=True)
class Scheme:
    """One way to name a model.

    Args:
        forms: Every form of it, with what that form means.
        load: Makes the classifier of (spec, what follows the colon, device).
    """

    forms: tuple[tuple[str, str], ...]
    load: Loader


SCHEMES: Registry[Scheme] = Registry("model scheme")


def load_classifier(spec: str, *, device: str = "cpu") -> Classifier:
    """Return the classifier that ``spec`` names.

    Args:
        spec: One of the forms that :func:`list_models` returns.
        device: Where the network is put, for example ``cpu`` or ``cuda:0``.

    Raises:
        UnknownNameError: No such scheme or model; the message suggests the nearest.
        SettingsError: Not of the scheme's form, or no such device.
        ModelError: Missing or damaged files, weights that do not fit, answers that are not
            logits.
        MissingExtraError: The scheme needs a package that is not installed.
    """
    scheme, _, target = spec.partition(":")
    names = SCHEMES.names()
    if scheme not in names:
        raise UnknownNameError("model", spec, _suggestions(spec, names))
    if scheme != "embedded" and not target:
        forms = " or ".join(form for form, _ in SCHEMES.get(scheme).forms)
        raise SettingsError(f"expected {forms}, got {spec!r}")
    return SCHEMES.get(scheme).load(spec, target, device)


def list_models() -> list[tuple[str, str]]:
    """Return every form of SPEC with what it means, in the order of the schemes' names."""
    return [form for name in SCHEMES.names() for form in SCHEMES.get(name).forms]


def _suggestions(spec: str, names: list[str]) -> list[str]:
    """What may have been meant: a file or an architecture without its scheme, or a typo."""
    _, colon, target = spec.partition(":")
    if colon:
        return [f"{name}:{target}" if name != "embedded" else name for name in names]
    path = Path(spec)
    if (path / "config.json").is_file():
        return [f"timm:local-dir:{spec}"]
    by_suffix = {".onnx": "onnx", ".pt2": "exported", ".safetensors": "scotoma"}
    if path.suffix in by_suffix:
        return [f"{by_suffix[path.suffix]}:{spec}"]
    import timm

    if timm.is_model(spec):
        return [f"timm:{spec}"]
    return [form for form, _ in list_models()]


def _deferred(module: str, function: str) -> Loader:
    """Return a loader whose module, and with it torch, is imported when a model is loaded."""

    def load(spec: str, target: str, device: str) -> Classifier:
        loader: Loader = getattr(import_module(f"scotoma.models.{module}"), function)
        return loader(spec, target, device)

    return load


def _enter(name: str, module: str, function: str, *forms: tuple[str, str]) -> None:
    SCHEMES.register(name)(Scheme(forms, _deferred(module, function)))


_enter(
    "embedded",
    "loaders",
    "load_embedded",
    ("embedded", "the small model in the package: 10 classes of CIFAR-10, 64×64 pictures"),
    ("embedded:pevit", "a transformer of 32×32 pictures that reads shuffled releases of 8 pixels"),
    ("embedded:vit", "its plain twin, trained alike"),
)
_enter(
    "scotoma",
    "loaders",
    "load_saved",
    ("scotoma:FILE", "a model that scotoma train or scotoma adapt wrote"),
)
_enter(
    "compressed",
    "compressed",
    "load_compressed",
    ("compressed:FILE", "a model that scotoma compress wrote"),
    ("compressed:FILE@CODE.py:NAME", "the same of a network of your own, which CODE.py builds"),
)
_enter(
    "timm",
    "timm_models",
    "load_timm",
    ("timm:NAME", "a pretrained timm model, downloaded once"),
    ("timm:NAME@FILE", "a timm architecture with weights from .safetensors, .pth, .pt or .bin"),
    ("timm:local-dir:FOLDER", "a timm folder: config.json and model.safetensors"),
)
_enter(
    "torchvision",
    "loaders",
    "load_torchvision",
    ("torchvision:NAME@FILE", "a torchvision architecture with weights from a file"),
)
_enter(
    "exported",
    "exported",
    "load_exported",
    ("exported:FILE.pt2", "a torch.export program, with FILE.json or config.json beside it"),
)
_enter(
    "hf",
    "timm_models",
    "load_hub",
    ("hf:OWNER/NAME", "a timm repository of the Hugging Face hub, downloaded once"),
)
_enter(
    "onnx",
    "onnx_scores",
    "load_onnx",
    ("onnx:FILE", "an ONNX model, scores only, with FILE.json or config.json beside it"),
)
_enter(
    "python",
    "python_models",
    "load_python",
    ("python:FILE.py:NAME", "your own network or scoring function, with FILE.json beside it"),
    ("python:FILE.py:NAME@WEIGHTS", "your own network with weights from a file"),
)
for _scheme in ("http", "https"):
    _enter(
        _scheme,
        "http_scores",
        "load_http",
        (f"{_scheme}://URL@FILE.json", "an endpoint that answers with scores; FILE.json says how"),
    )
