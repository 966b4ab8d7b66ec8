"""The last steps that every kind of model goes through before it is a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import SettingsError
from scotoma.models.blueprint import Blueprint
from scotoma.models.classifier import Classifier
from scotoma.models.config import class_names
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.release_form import ReleaseForm

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["assemble", "file_label", "freeze", "nearest", "split_file"]

_GENERIC_STEMS = {"model", "pytorch_model", "weights", "checkpoint", "best", "last"}


def assemble(
    spec: str,
    name: str,
    network: Callable[[Tensor], Tensor],
    preprocessing: Preprocessing,
    config: Mapping[str, Any],
    *,
    differentiable: bool,
    device: str,
    blueprint: Blueprint | None = None,
    reads: ReleaseForm | None = None,
    labels_only: bool = False,
) -> Classifier:
    """Return the classifier, once it has answered one grey picture as a classifier should.

    Args:
        spec: As the user named it.
        name: Short, for tables.
        network: Already on ``device``.
        preprocessing: How pictures are read.
        config: May hold class names, see :func:`scotoma.models.config.class_names`.
        differentiable: Whether gradients flow through.
        device: Where the network lies.
        blueprint: How to build the network anew, where that is known.
        reads: Which releases it reads instead of pictures.
        labels_only: It gives labels without scores.

    Raises:
        ModelError: The answer is not ``(1, K)`` finite numbers, or ``K`` is not the number of
            class names.
    """
    import torch

    unnamed = Classifier(
        spec,
        name,
        network,
        preprocessing,
        None,
        differentiable,
        device,
        reads,
        blueprint,
        labels_only,
    )
    logits = unnamed.logits(torch.zeros(1, *unnamed.input_shape))
    return replace(unnamed, classes=class_names(config, logits.shape[1]))


def freeze(network: nn.Module, device: str) -> nn.Module:
    """Return ``network`` ready to be asked: evaluation mode, frozen weights, on ``device``.

    Convolution weights go channels-last, which CPU kernels run 1.4 to 2.5 times as fast.

    Raises:
        SettingsError: No such device here.
    """
    import torch

    try:
        network = network.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"expected a device of this machine, got {device!r}: {reason}"
        ) from error
    network = network.to(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def split_file(spec: str, target: str) -> tuple[str, Path]:
    """Split ``NAME@FILE``.

    Raises:
        SettingsError: One of the two is missing.
    """
    name, _, file = target.partition("@")
    if not name or not file:
        scheme = spec.partition(":")[0]
        raise SettingsError(
            f"expected {scheme}:NAME@FILE with a file of weights, got {spec!r}; "
            f"write for example {scheme}:{name or 'resnet50'}@{name or 'resnet50'}.safetensors"
        )
    return name, Path(file).expanduser()


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the five known names nearest to ``name``; all of timm's would bury a message."""
    return get_close_matches(name, list(known), n=5, cutoff=0.0)


def file_label(path: Path) -> str:
    """Return the file's stem, or its folder's name where the stem says nothing (``model.pt2``)."""
    folder = path.resolve().parent.name
    return folder if path.stem in _GENERIC_STEMS and folder else path.stem
