"""timm's architectures: pretrained, from a folder, from a file, or from the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import ModelError, SettingsError, UnknownNameError
from scotoma.models.assembly import assemble, file_label, freeze, nearest, split_file
from scotoma.models.blueprint import Blueprint
from scotoma.models.classifier import Classifier
from scotoma.models.config import find_config, read_config
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.weights import fit_weights, is_fitting, read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["load_hub", "load_timm"]

_LOCAL = "local-dir:"
_HUB = "hf-hub:"
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_timm(spec: str, target: str, device: str) -> Classifier:
    """Return the model that ``timm:NAME``, ``timm:NAME@FILE`` or ``timm:local-dir:FOLDER`` names.

    Raises:
        UnknownNameError: timm has no such architecture.
        ModelError: No weights, or weights that do not fit.
    """
    if target.startswith(_LOCAL):
        return _load_folder(spec, Path(target.removeprefix(_LOCAL)).expanduser(), device)
    if target.startswith(_HUB):
        return load_hub(spec, target.removeprefix(_HUB), device)
    if "@" in target:
        return _load_file(spec, *split_file(spec, target), device)
    return _load_pretrained(spec, target, device)


def load_hub(spec: str, target: str, device: str) -> Classifier:
    """Return the timm model of a repository on the Hugging Face hub.

    Raises:
        SettingsError: Not of the form ``OWNER/NAME``.
        ModelError: Not reachable, or not a timm repository.
    """
    if target.count("/") != 1:
        raise SettingsError(f"expected hf:OWNER/NAME, got {spec!r}; as hf:timm/resnet18.a1_in1k")
    network = _create(
        spec,
        f"{_HUB}{target}",
        advice=(
            "where there is no network, fetch the repository's config.json and model.safetensors "
            "elsewhere and write timm:local-dir:FOLDER; only timm's repositories can be read"
        ),
        pretrained=True,
    )
    name = target.partition("/")[2].partition("@")[0]
    return _classifier(spec, name, network, device, _hub_arguments(target))


def _load_pretrained(spec: str, name: str, device: str) -> Classifier:
    _check_known(name)
    import timm

    if not timm.is_model_pretrained(name):
        known = nearest(name, timm.list_models(pretrained=True))
        raise UnknownNameError("pretrained timm model", name, known)
    network = _create(
        spec,
        name,
        advice=f"where there is no network, fetch its weights elsewhere and write timm:{name}@FILE",
        pretrained=True,
    )
    return _classifier(spec, name, network, device, {})


def _load_folder(spec: str, folder: Path, device: str) -> Classifier:
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise ModelError(
            f"expected a timm folder with config.json and model.safetensors at {folder}, "
            f"found {'no config.json in it' if folder.is_dir() else 'no such folder'}"
        )
    config = read_config(config_path)
    architecture = _architecture(config_path, config)
    path = _weight_file(folder)
    network = _create(
        spec,
        f"{_LOCAL}{folder}",
        advice=f"check {config_path} (timm's model_args and pretrained_cfg)",
        pretrained=False,
    )
    _fit(network, read_weights(path), path, architecture)
    arguments = config.get("model_args") or {}
    return _classifier(spec, folder.resolve().name, network, device, arguments)


def _load_file(spec: str, name: str, path: Path, device: str) -> Classifier:
    _check_known(name)
    weights = read_weights(path)
    config_path = find_config(path)
    config = read_config(config_path) if config_path else {}
    if config_path and "architecture" in config:
        described = _architecture(config_path, config)
        if described != name.partition(".")[0]:
            raise ModelError(
                f"expected weights of {name}, but {config_path} describes {described}; "
                f"write timm:{described}@{path} or move the file"
            )
    overlay = _overlay(config)
    arguments = {"num_classes": overlay.get("num_classes", _count_classes(name, weights))}
    if isinstance(config.get("model_args"), dict):
        arguments |= config["model_args"]
    network = _create(
        spec,
        name,
        advice=f"check {config_path}" if config_path else "name another architecture",
        pretrained=False,
        pretrained_cfg_overlay=overlay,
        **arguments,
    )
    _fit(network, weights, path, name)
    label = file_label(path)
    name = name if label == name else f"{name}@{label}"
    return _classifier(spec, name, network, device, arguments)


def _classifier(
    spec: str, name: str, network: Any, device: str, arguments: Mapping[str, Any]
) -> Classifier:
    if getattr(network, "num_classes", 1) == 0:
        raise ModelError(
            f"expected a classifier, but {name} only makes features (it has no classes); "
            "name a model that was trained to classify"
        )
    return assemble(
        spec,
        name,
        freeze(network, device),
        Preprocessing.from_timm(network),
        network.pretrained_cfg,
        differentiable=True,
        device=device,
        blueprint=Blueprint.of_timm(network, arguments),
    )


def _hub_arguments(target: str) -> Mapping[str, Any]:
    """What a repository's configuration gives timm besides weights; read once already, and kept."""
    from timm.models import load_model_config_from_hf

    _, _, arguments = load_model_config_from_hf(target)
    return arguments or {}


def _create(spec: str, name: str, *, advice: str, **arguments: Any) -> nn.Module:
    import timm

    try:
        network: nn.Module = timm.create_model(name, **arguments)
    except Exception as error:  # hub, network, file and argument errors share no base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"expected timm to build {spec!r}, got: {reason}; {advice}") from error
    return network


def _check_known(name: str) -> None:
    import timm

    if not timm.is_model(name):
        raise UnknownNameError("timm model", name, nearest(name, timm.list_models()))


def _architecture(path: Path, config: Mapping[str, Any]) -> str:
    nested = config.get("pretrained_cfg")
    name = config.get("architecture") or (nested or {}).get("architecture")
    if not isinstance(name, str):
        raise ModelError(f"expected 'architecture': 'NAME' of a timm model in {path}, got {name!r}")
    _check_known(name)
    return name.partition(".")[0]


def _weight_file(folder: Path) -> Path:
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.suffix in _WEIGHT_SUFFIXES)
    if len(found) != 1:
        raise ModelError(
            f"expected model.safetensors (or one other file of weights) in {folder}, "
            f"found {len(found)}: {', '.join(path.name for path in found[:5]) or 'none'}"
        )
    return found[0]


def _overlay(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a JSON beside the weights changes in timm's own configuration."""
    nested = config.get("pretrained_cfg", config)
    if not isinstance(nested, Mapping):
        raise ModelError(f"expected 'pretrained_cfg' as an object, got {type(nested).__name__}")
    fields = {field.name for field in dataclasses.fields(Preprocessing)}
    fields |= {"num_classes", "label_names", "label_descriptions", "fixed_input_size"}
    found = {name: value for name, value in {**config, **nested}.items() if name in fields}
    names = config.get("classes") or config.get("labels")
    return {"label_names": names, **found} if names else found


def _count_classes(name: str, weights: Mapping[str, Tensor]) -> int | None:
    """Rows of the classification layer in ``weights``; None where it is not found by name."""
    from timm.models import get_pretrained_cfg

    described = get_pretrained_cfg(name)
    layer = described.classifier if described else None
    first = layer[0] if isinstance(layer, tuple | list) else layer
    weight = weights.get(f"{first}.weight")
    return None if weight is None else len(weight)


def _fit(network: nn.Module, weights: dict[str, Tensor], path: Path, name: str) -> None:
    if not is_fitting(network, weights):
        # Weights as their authors published them have other names; timm's module knows which.
        # Where that fails too, the message is about the names as they are.
        convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        with suppress(Exception):
            weights = convert(dict(weights), network) if convert else weights
    fit_weights(network, weights, path, name)
