"""A user's own network or scoring function, out of a Python file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import ModelError, SettingsError, UnknownNameError
from scotoma.models.answers import answers_of, as_logits
from scotoma.models.assembly import assemble, freeze
from scotoma.models.classifier import Classifier
from scotoma.models.config import find_config, read_config, require_config
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.weights import fit_weights, read_weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load_python"]

_FORM = "python:FILE.py:NAME or python:FILE.py:NAME@WEIGHTS"


def load_python(spec: str, target: str, device: str) -> Classifier:
    """Return what ``NAME`` in ``FILE.py`` is, or makes when it is called without arguments.

    A ``torch.nn.Module`` becomes an ordinary classifier with gradients. Any other callable is a
    black box: it gets ``(B, 3, H, W)`` normalized float32 tensors and returns ``(B, K)`` scores.
    Preprocessing, class names and the kind of answers come from the JSON beside the weights, or
    else beside the Python file.

    Raises:
        SettingsError: Not of that form, or weights for what is no module.
        ModelError: The file is missing or fails, or what it gives is not a classifier.
        UnknownNameError: The file has no such name.

    Security:
        The file is run, as any program is that its user names.
    """
    code, _, weights = target.partition("@")
    file, _, name = code.rpartition(":")
    if not file or not name:
        raise SettingsError(f"expected {_FORM}, got {spec!r}")
    path = Path(file).expanduser()
    found = _made(_look_up(path, name), path, name)
    config = _config(path, Path(weights).expanduser() if weights else None)
    preprocessing = Preprocessing.from_config(config)
    shown = f"{name}@{Path(weights).stem}" if weights else name
    if _is_module(found):
        if weights:
            weights_path = Path(weights).expanduser()
            fit_weights(found, read_weights(weights_path), weights_path, name)
        return assemble(
            spec,
            shown,
            freeze(found, device),
            preprocessing,
            config,
            differentiable=True,
            device=device,
        )
    if weights:
        raise SettingsError(
            f"expected weights only with a torch.nn.Module, got {weights!r} with {name}, which is "
            f"a {type(found).__name__}; leave @{weights} out"
        )
    kind = answers_of(config)
    return assemble(
        spec,
        shown,
        _Scores(found, name, kind, config),
        preprocessing,
        config,
        differentiable=False,
        device=device,
        labels_only=kind == "labels",
    )


class _Scores:
    """A callable whose answers are scores of whatever kind."""

    def __init__(
        self, function: Callable[[Tensor], Any], name: str, kind: str, config: dict[str, Any]
    ) -> None:
        self._function = function
        self._name = name
        self._kind = kind
        listed = config.get("classes")
        self._classes = len(listed) if isinstance(listed, list | dict) else None

    def __call__(self, images: Tensor) -> Tensor:
        import torch

        try:
            answers = torch.as_tensor(self._function(images))
        except Exception as error:  # a user's own code fails in its own ways
            raise ModelError(
                f"expected {self._name} to take inputs {tuple(images.shape)} and to return scores, "
                f"got {type(error).__name__}: {error}"
            ) from error
        return as_logits(answers, self._kind, classes=self._classes)


def _look_up(path: Path, name: str) -> Any:
    if not path.is_file():
        raise ModelError(f"expected a Python file at {path}, found no such file; write {_FORM}")
    described = spec_from_file_location(f"_scotoma_model_{path.stem}", path)
    if described is None or described.loader is None:
        raise ModelError(f"expected a Python file at {path}, got one that Python cannot import")
    module = module_from_spec(described)
    try:
        described.loader.exec_module(module)
    except Exception as error:  # a user's own code fails in its own ways
        raise ModelError(f"{path} failed with {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise UnknownNameError(f"model in {path.name}", name, known)
    return getattr(module, name)


def _made(found: Any, path: Path, name: str) -> Any:
    """Return a network or function as it is, and what a class or a function of nothing makes."""
    if not callable(found):
        raise ModelError(
            f"expected a network or a function called {name} in {path}, got a "
            f"{type(found).__name__}"
        )
    if _is_module(found) or _takes_an_argument(found):
        return found
    try:
        made = found()
    except Exception as error:  # a user's own code fails in its own ways
        raise ModelError(
            f"expected {name} of {path} to make a network, got {type(error).__name__}: {error}"
        ) from error
    if not callable(made):
        raise ModelError(
            f"expected {name} of {path} to make a network, got a {type(made).__name__}"
        )
    return made


def _takes_an_argument(found: Callable[..., Any]) -> bool:
    """Whether a call needs an argument, as one that scores pictures does."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(
        part.default is part.empty
        and part.kind in (part.POSITIONAL_ONLY, part.POSITIONAL_OR_KEYWORD)
        for part in parameters
    )


def _is_module(found: Any) -> bool:
    from torch import nn

    return isinstance(found, nn.Module)


def _config(path: Path, weights: Path | None) -> dict[str, Any]:
    beside = find_config(weights) if weights else None
    return read_config(beside) if beside else require_config(path)
