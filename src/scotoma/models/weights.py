"""Weights from files, read so that nothing in them can run, and fitted to a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["fit_weights", "is_fitting", "load_known", "read_weights"]

_PICKLED = (".pth", ".pt", ".bin")
# Where training scripts keep the weights among optimizer state and settings; an
# exponential average, where there is one, is what was evaluated.
_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model")
_WRAPPERS = ("_orig_mod.", "module.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name, on the CPU.

    A checkpoint is unwrapped, and the prefixes that ``DataParallel`` and ``torch.compile``
    put before each name are removed.

    Args:
        path: ``.safetensors``, or ``.pth``, ``.pt`` or ``.bin`` as ``torch.save`` writes them.

    Raises:
        ModelError: Missing, damaged, of another kind, or a pickle that holds more than weights.

    Security:
        Pickles are read with ``weights_only``: a file that would run code is refused.
    """
    if not path.is_file():
        raise ModelError(f"expected a file of weights at {path}, found none; check the path")
    suffix = path.suffix.lower()
    if suffix != ".safetensors" and suffix not in _PICKLED:
        raise ModelError(
            f"expected weights as .safetensors, {', '.join(_PICKLED)}, got {path.name!r}"
        )
    content = _read_safetensors(path) if suffix == ".safetensors" else _read_pickle(path)
    return _tensors(path, content)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"expected a whole safetensors file at {path}, got: {error}; fetch it again"
        ) from error


def _read_pickle(path: Path) -> Any:
    import argparse
    import pickle
    import warnings

    import torch

    try:
        # Training scripts leave their settings beside the weights; a namespace does nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the file's pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"expected only weights in {path}, but it is damaged or holds objects that run code "
            "when read, and was not opened; convert it to .safetensors where you trust it"
        ) from error
    except Exception as error:  # damaged archives fail in many ways inside torch
        raise ModelError(
            f"expected a whole file of weights at {path}, got {type(error).__name__}; "
            "fetch it again"
        ) from error


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    from torch import Tensor

    for nest in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(nest), Mapping):
            content = content[nest]
            break
    if not isinstance(content, Mapping):
        raise ModelError(
            f"expected a mapping of names to tensors in {path}, got {type(content).__name__}"
        )
    tensors = {_unwrapped(str(k)): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ModelError(f"expected tensors in {path}, found none among {len(content)} entries")
    return tensors


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def is_fitting(network: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Return whether names and shapes are exactly the network's."""
    return not any(_differences(network, weights))


def fit_weights(
    network: nn.Module, weights: Mapping[str, Tensor], path: Path, architecture: str
) -> None:
    """Copy ``weights`` into ``network``, all of them or none; half precision becomes float32.

    Args:
        network: Changed in place.
        weights: By the network's own names.
        path: Where they came from, for the message.
        architecture: What the network is called, for the message.

    Raises:
        ModelError: A tensor is missing, unknown, or of another shape.
    """
    missing, unknown, reshaped = _differences(network, weights)
    if missing or unknown or reshaped:
        expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        counts = [
            f"{len(missing)} of {len(expected)} missing (as {missing[0]!r})" if missing else "",
            f"{len(unknown)} unknown (as {unknown[0]!r})" if unknown else "",
            f"{len(reshaped)} of another shape (as {reshaped[0]!r}: expected "
            f"{expected[reshaped[0]]}, got {tuple(weights[reshaped[0]].shape)})"
            if reshaped
            else "",
        ]
        raise ModelError(
            f"expected the tensors of {architecture} in {path}, got "
            f"{', '.join(filter(None, counts))}; name the architecture that was trained"
        )
    network.load_state_dict(weights, strict=False)


def _differences(
    network: nn.Module, weights: Mapping[str, Tensor]
) -> tuple[list[str], list[str], list[str]]:
    """Names that are missing, that are unknown, and whose shapes differ."""
    expected = network.state_dict()
    # Old checkpoints lack BatchNorm's step counter, which plays no part in evaluation.
    missing = [n for n in expected if n not in weights and not n.endswith("num_batches_tracked")]
    unknown = [n for n in weights if n not in expected]
    reshaped = [n for n in expected if n in weights and expected[n].shape != weights[n].shape]
    return missing, unknown, reshaped


def load_known(
    network: nn.Module, weights: Mapping[str, Tensor], fresh: Collection[str], expected: str
) -> None:
    """Load all weights but the fresh ones, and nothing that does not fit.

    Args:
        network: Takes them.
        weights: By name.
        fresh: Names that keep their first values, whatever ``weights`` has for them.
        expected: What the network is, for the message.

    Raises:
        ModelError: A tensor is missing, unknown or of another shape; nothing was loaded.
    """
    own = network.state_dict()
    given = {name: tensor for name, tensor in weights.items() if name not in fresh}
    wrong = sorted(
        (own.keys() - given.keys() - set(fresh))
        | (given.keys() - own.keys())
        | {name for name in own.keys() & given.keys() if own[name].shape != given[name].shape}
    )
    if wrong:
        raise ModelError(
            f"expected the weights of {expected}, got {len(wrong)} that do not fit "
            f"(as {wrong[0]!r}); build the network with the settings of the pretrained one"
        )
    network.load_state_dict(given, strict=False)
