"""Our own model files: safetensors whose header says how to build and feed the model.

The header's ``scotoma`` entry is a JSON object: ``format`` (1), ``architecture``
(a name of this module's table), ``arguments``, ``preprocessing``, ``classes``.
Nothing in the file is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scotoma.core.errors import ModelError, UnknownNameError
from scotoma.models.preprocessing import Preprocessing

__all__ = ["SavedModel", "build", "load", "save"]

FORMAT = 1


def _convmixer(**arguments: Any) -> nn.Module:
    from timm.models.convmixer import ConvMixer

    model: nn.Module = ConvMixer(**arguments)
    return model


_ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"convmixer": _convmixer}


@dataclass(frozen=True)
class SavedModel:
    """What a model file holds besides its weights.

    Args:
        architecture: Name of the network's family, for example ``convmixer``.
        arguments: Keyword arguments that build it.
        preprocessing: How pictures are read.
        classes: Name of each logit, in order.
    """

    architecture: str
    arguments: Mapping[str, Any]
    preprocessing: Preprocessing
    classes: tuple[str, ...]


def build(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return the untrained network.

    Raises:
        UnknownNameError: No such architecture.
        ModelError: The arguments do not fit it.
    """
    if architecture not in _ARCHITECTURES:
        raise UnknownNameError("architecture", architecture, _ARCHITECTURES)
    try:
        return _ARCHITECTURES[architecture](**arguments)
    except TypeError as error:
        raise ModelError(f"arguments do not fit {architecture}: {error}") from error


def save(path: Path, weights: Mapping[str, Tensor], model: SavedModel) -> None:
    """Write weights and description to ``path`` in one step (a temporary name, then a rename)."""
    from safetensors.torch import save_file

    header = {
        "format": FORMAT,
        "architecture": model.architecture,
        "arguments": dict(model.arguments),
        "preprocessing": model.preprocessing.to_config(),
        "classes": list(model.classes),
    }
    part = path.with_name(path.name + ".part")
    save_file(
        {name: value.contiguous() for name, value in weights.items()},
        part,
        metadata={"scotoma": json.dumps(header, sort_keys=True)},
    )
    part.replace(path)


def load(path: Path) -> tuple[nn.Module, SavedModel]:
    """Return the network in evaluation mode and its description.

    Raises:
        ModelError: The file is missing, damaged, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            weights: Sequence[tuple[str, Tensor]] = [
                (name, file.get_tensor(name)) for name in file.keys()  # noqa: SIM118
            ]
    except (OSError, SafetensorError) as error:
        raise ModelError(f"expected a safetensors file at {path}, got: {error}") from error
    model = _read_header(path, metadata)
    network = build(model.architecture, model.arguments)
    try:
        network.load_state_dict({name: value.float() if value.is_floating_point() else value
                                 for name, value in weights})
    except RuntimeError as error:
        raise ModelError(f"the weights in {path} do not fit {model.architecture}") from error
    return network.eval().requires_grad_(False), model


def _read_header(path: Path, metadata: Mapping[str, str]) -> SavedModel:
    if "scotoma" not in metadata:
        raise ModelError(
            f"{path} was not written by scotoma (its header has no 'scotoma' entry); for plain "
            "weights name the architecture, for example timm:mobilenetv2_100@FILE"
        )
    try:
        header = json.loads(metadata["scotoma"])
        version = header["format"]
        model = SavedModel(
            architecture=header["architecture"],
            arguments=header["arguments"],
            preprocessing=Preprocessing.from_config(header["preprocessing"]),
            classes=tuple(header["classes"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the header of {path} is damaged: {error!r}") from error
    if version != FORMAT:
        raise ModelError(f"expected model format {FORMAT} in {path}, got {version}; update scotoma")
    return model
