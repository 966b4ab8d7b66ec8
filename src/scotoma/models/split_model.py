"""A network in two halves with a private bottleneck between them, and its file.

::

    camera   images ── head ── encoder ── quantizer ──► bytes (B, c, h, w)
    server   bytes ── quantizer ── decoder ── tail ──► what the plain network answers

The file is safetensors like :mod:`scotoma.models.saved`'s, format 3: the plain network's
weights and how to build it, where that is known, and the bottleneck's. Nothing in it is ever
executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scotoma.core.errors import CodingError, ImageError, ModelError
from scotoma.models import saved
from scotoma.models.assembly import freeze
from scotoma.models.blueprint import Blueprint
from scotoma.models.bottleneck import LEVELS, Bottleneck, BottleneckSettings, Quantizer
from scotoma.models.classifier import Classifier
from scotoma.models.split_description import FORMAT, SplitDescription
from scotoma.models.splits import split
from scotoma.models.weights import fit_weights, read_weights
from scotoma.models.yolov5 import YOLOv5
from scotoma.ops.latent_coding import LatentModel
from scotoma.ops.latent_fitting import fit_latent_model

__all__ = [
    "SplitModel",
    "digest_of",
    "is_split",
    "load_split",
    "open_split",
    "save_split",
]

_SLACK = 1_000_000  # parameters
_PLAIN, _BOTTLENECK, _QUANTIZER, _CODER = "network.", "bottleneck.", "quantizer.", "coder."


class SplitModel(nn.Module):
    """Head, bottleneck and tail; :meth:`encode` is the camera's half, :meth:`answer` the server's.

    Args:
        network: The plain network; frozen.
        description: Where it is cut, and what sits there.

    Raises:
        UnknownNameError: No such cut.
        ModelError: The bottleneck was made for another cut.
        ImageError: The cut is no grid of positions.

    ``coder`` tells the entropy coder how these latents look; None until :meth:`fit_coder`.
    ``anchors`` are a YOLOv5's, which place what its maps say; None of a classifier.

    Security:
        Everything of this object but the pictures is public: attackers are granted all of it.

    Example::

        model = load_split(Path("split.safetensors"))
        places = model.encode(images)  # what leaves the camera: (B, c, h, w) uint8
        logits = model.answer(places)
    """

    def __init__(self, network: nn.Module, description: SplitDescription) -> None:
        super().__init__()
        parts = split(network, description.at, description.preprocessing.input_size)
        self.head, self.tail, self.point = parts.head, parts.tail, parts.point
        self.description = description
        shape = tuple(self.point.shape)
        if len(shape) != 3:
            raise ImageError(
                f"expected a cut of (C, h, w) features, got {shape} at {description.at!r}; cut "
                "where the network has a grid of positions"
            )
        self.bottleneck: Bottleneck | None = None
        self.quantizer = Quantizer(shape[0], description.levels)
        self.coder: LatentModel | None = None
        self.anchors: Tensor | None = network.anchors if isinstance(network, YOLOv5) else None
        if description.bottleneck is not None:
            self.insert(description.bottleneck)
        self.eval().requires_grad_(False)

    def insert(self, settings: BottleneckSettings) -> None:
        """Put an untrained bottleneck into the cut; its first weights come from torch's generator.

        Raises:
            ModelError: It is made for another cut.
        """
        features = self.point.shape[0]
        if settings.features != features:
            raise ModelError(
                f"expected a bottleneck for {features} channels at {self.description.at!r}, got "
                f"one for {settings.features}"
            )
        self.description = replace(self.description, bottleneck=settings)
        self.bottleneck = Bottleneck(settings).eval().requires_grad_(False)
        self.quantizer = Quantizer(settings.channels, self.description.levels)
        self.coder = None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(c, h, w)`` of what leaves the camera."""
        channels, down, across = self.point.shape
        if self.bottleneck is None:
            return channels, down, across
        settings = self.bottleneck.settings
        stride = settings.stride
        return settings.channels, -(-down // stride), -(-across // stride)

    def latent(self, images: Tensor) -> Tensor:
        """Return the latent ``(B, c, h, w)`` of ``(B, 3, H, W)`` normalized pictures."""
        features: Tensor = self.head(images)
        return features if self.bottleneck is None else self.bottleneck.encode(features)

    def quantize(self, latent: Tensor) -> Tensor:
        """Return what leaves the camera: ``(B, c, h, w)`` uint8."""
        return self.quantizer.quantize(latent)

    def dequantize(self, places: Tensor) -> Tensor:
        """Return the latent that bytes stand for."""
        return self.quantizer.dequantize(places)

    def encode(self, images: Tensor) -> Tensor:
        """Return what leaves the camera, of ``(B, 3, H, W)`` normalized pictures: uint8."""
        return self.quantize(self.latent(images))

    def answer(self, places: Tensor) -> Any:
        """Return what the tail says of ``(B, c, h, w)`` uint8: logits, or a detector's maps."""
        latent = self.dequantize(places)
        if self.bottleneck is not None:
            down, across = self.point.shape[1:]
            latent = self.bottleneck.decode(latent, (down, across))
        return self.tail(latent)

    def forward(self, images: Tensor) -> Any:
        """Return what the server answers of what the camera would send."""
        return self.answer(self.encode(images))

    @torch.no_grad()
    def fit_range(self, batches: Iterable[Tensor], step: float = 0.0) -> None:
        """Take the quantizer's range from normalized training pictures.

        Args:
            batches: Each ``(B, 3, H, W)``.
            step: Of the rounding; 0 spreads the levels over the range.
        """
        self.quantizer.fit(torch.cat([self.latent(images).cpu() for images in batches]), step)

    @torch.no_grad()
    def fit_coder(self, batches: Iterable[Tensor]) -> None:
        """Learn how the entropy coder predicts these latents, from normalized training pictures.

        Args:
            batches: Each ``(B, 3, H, W)``.
        """
        places = torch.cat([self.encode(images).cpu() for images in batches])
        self.coder = fit_latent_model(places.numpy())


def open_split(
    classifier: Classifier,
    at: str,
    *,
    bottleneck: BottleneckSettings | None = None,
    levels: int = LEVELS,
) -> SplitModel:
    """Cut a classifier; its bottleneck, if any, is untrained.

    Raises:
        UnknownNameError: No such cut.
        ModelError: No gradients flow through the model, so it cannot be cut.
    """
    network = classifier.network
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"expected a network to cut, got {classifier.name}, which gives scores alone; name "
            "the model that it was exported from"
        )
    description = SplitDescription(
        classifier.name,
        at,
        classifier.preprocessing,
        classifier.classes,
        bottleneck,
        levels,
        classifier.blueprint,
        digest_of(network),
    )
    return SplitModel(network, description)


def digest_of(network: nn.Module) -> str:
    """Return 16 hexadecimal digits that change with any weight."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_split(path: Path, model: SplitModel, network: nn.Module, *, half: bool = False) -> None:
    """Write a split model to ``path`` in one step.

    Args:
        path: The file, ending in ``.safetensors``.
        model: With its trained bottleneck.
        network: The plain network; its weights are written where a blueprint says how to build
            it, so that the file is all that camera and server need.
        half: Write the bottleneck's weights as float16; the plain network's stay what they are.

    Raises:
        FileError: It cannot be written.
    """
    weights: dict[str, Tensor] = {}
    if model.bottleneck is not None:
        state = model.bottleneck.state_dict()
        weights = {_BOTTLENECK + n: w.half() if half else w for n, w in state.items()}
    if model.description.blueprint is not None:
        weights |= {_PLAIN + name: value for name, value in network.state_dict().items()}
    weights |= {_QUANTIZER + name: value for name, value in model.quantizer.state_dict().items()}
    if model.coder is not None:
        arrays = model.coder.to_arrays()
        weights |= {_CODER + name: torch.from_numpy(array) for name, array in arrays.items()}
    saved.write_weights(path, weights, model.description.to_config())


def is_split(path: Path) -> bool:
    """Return whether the file is a split model.

    Raises:
        ModelError: It is missing, damaged, or not one of ours.
    """
    return saved.read_header(path).get("format") == FORMAT


def load_split(path: Path, *, network: nn.Module | None = None) -> SplitModel:
    """Return the split model that :func:`save_split` wrote.

    Args:
        path: The file.
        network: The plain network, for a file that does not hold it.

    Raises:
        ModelError: Missing, damaged, not a split model; or the plain network is not given
            though the file lacks it, or is another than the file's.
    """
    description = SplitDescription.from_config(saved.read_header(path), path)
    weights = read_weights(path)
    parts = {
        prefix: {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        for prefix in (_PLAIN, _BOTTLENECK, _QUANTIZER, _CODER)
    }
    if description.blueprint is not None:
        network = _built(description.blueprint, parts[_PLAIN], path)
    elif network is None:
        raise ModelError(
            f"expected the plain network of {path}, which does not hold it; name "
            f"{description.name} with --model"
        )
    elif digest_of(network) != description.plain_digest:
        raise ModelError(
            f"expected the weights that {path} was trained for ({description.plain_digest}), got "
            f"{digest_of(network)}; name the model it was made from"
        )
    model = SplitModel(network, description)
    if model.bottleneck is not None:
        fit_weights(model.bottleneck, parts[_BOTTLENECK], path, "bottleneck")
    fit_weights(model.quantizer, parts[_QUANTIZER], path, "quantizer")
    if parts[_CODER]:
        arrays = {name: tensor.numpy() for name, tensor in parts[_CODER].items()}
        try:
            model.coder = LatentModel.from_arrays(arrays)
        except CodingError as error:
            raise ModelError(f"the coder in {path} is damaged: {error}") from error
    return model


def _built(blueprint: Blueprint, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    most = 2 * sum(tensor.numel() for tensor in weights.values()) + _SLACK
    network = blueprint.build(most=most)
    fit_weights(network, weights, path, blueprint.architecture)
    return freeze(network, "cpu")
