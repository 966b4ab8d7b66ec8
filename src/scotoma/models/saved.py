"""Our own model files: safetensors whose header says how to build and feed the model.

The header's ``scotoma`` entry is a JSON object: ``format`` (1), ``architecture``
(a name of this module's table), ``arguments``, ``preprocessing``, ``classes``.
Nothing in the file is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import FileError, ModelError, UnknownNameError
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.weights import fit_weights, read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["SavedModel", "build", "load", "read_header", "save", "write_weights"]

FORMAT = 1


def _convmixer(**arguments: Any) -> nn.Module:
    from timm.models.convmixer import ConvMixer

    model: nn.Module = ConvMixer(**arguments)
    return model


def _pevit(**arguments: Any) -> nn.Module:
    from scotoma.models.pevit import PEViT

    model: nn.Module = PEViT(**arguments)
    return model


def _yolov5(**arguments: Any) -> nn.Module:
    from scotoma.models.yolov5 import YOLOv5, YOLOv5Config

    return YOLOv5(YOLOv5Config(**arguments))


_ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "convmixer": _convmixer,
    "pevit": _pevit,
    "yolov5": _yolov5,
}


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
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"arguments do not fit {architecture}: {error}") from error


def save(path: Path, weights: Mapping[str, Tensor], model: SavedModel) -> None:
    """Write weights and description to ``path`` in one step (a temporary name, then a rename)."""
    header = {
        "format": FORMAT,
        "architecture": model.architecture,
        "arguments": dict(model.arguments),
        "preprocessing": model.preprocessing.to_config(),
        "classes": list(model.classes),
    }
    write_weights(path, weights, header)


def write_weights(
    path: Path,
    weights: Mapping[str, Tensor],
    header: Mapping[str, Any],
    *,
    private: bool = False,
) -> None:
    """Write tensors and one JSON object to a model file, in one step.

    Args:
        path: The file, ending in ``.safetensors``.
        weights: By name; tensors that share memory are written as often as they are named.
        header: Plain data.
        private: Only its owner may read the file (mode 0600), at no time anyone else.

    Raises:
        FileError: It cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)  # or a link there would be followed, and its mode kept
        if private:
            part.touch(mode=0o600, exist_ok=False)
        save_file(_apart(weights), part, metadata={"scotoma": json.dumps(header, sort_keys=True)})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise FileError(
            f"expected to write {path}, got: {error}; check its folder, permissions and free space"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors of which no two share memory, as the format wants them."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in weights.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return found


def load(path: Path) -> tuple[nn.Module, SavedModel]:
    """Return the network in evaluation mode and its description.

    Raises:
        ModelError: The file is missing, damaged, or not one of ours.
    """
    model = _describe(path, read_header(path))
    network = build(model.architecture, model.arguments)
    fit_weights(network, read_weights(path), path, model.architecture)
    return network.eval().requires_grad_(False), model


def _read_metadata(path: Path) -> Mapping[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"expected a model written by scotoma at {path}, got: {error}; "
            "train one with: scotoma train classifier"
        ) from error


def read_header(path: Path) -> Mapping[str, Any]:
    """Return the JSON object that describes a model file of ours.

    Raises:
        ModelError: The file is missing, damaged, or not one of ours.
    """
    metadata = _read_metadata(path)
    if "scotoma" not in metadata:
        raise ModelError(
            f"{path} was not written by scotoma (its header has no 'scotoma' entry); for plain "
            "weights name the architecture, for example timm:mobilenetv2_100@FILE"
        )
    try:
        header = json.loads(metadata["scotoma"])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the header of {path} is damaged: {error!r}") from error
    if not isinstance(header, dict) or "format" not in header:
        raise ModelError(f"the header of {path} is damaged: it says no format")
    return header


def _describe(path: Path, header: Mapping[str, Any]) -> SavedModel:
    try:
        if header["format"] != FORMAT:
            raise ModelError(
                f"expected model format {FORMAT} in {path}, got {header['format']}; update scotoma"
            )
        return SavedModel(
            architecture=header["architecture"],
            arguments=header["arguments"],
            preprocessing=Preprocessing.from_config(header["preprocessing"]),
            classes=tuple(str(name) for name in header["classes"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the header of {path} is damaged: {error!r}") from error
