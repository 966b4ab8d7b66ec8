"""Compress a classifier within a budget, measure the file as written, put it in place."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scotoma.compress.compression import Pricing, round_network
from scotoma.compress.pictures import Pictures, count_right
from scotoma.compress.settings import CompressSettings
from scotoma.core.errors import FileError, ModelError, SettingsError, UnsafePathError
from scotoma.models.blueprint import Blueprint
from scotoma.models.classifier import Classifier
from scotoma.models.compressed import (
    PYTHON,
    Code,
    CompressedModel,
    is_compressed,
    load_compressed,
    stored_names,
    write_compressed,
)
from scotoma.models.compressed_tensors import CompressedTensor
from scotoma.models.fold import fold_batch_norm

__all__ = ["Compression", "Tensors", "Tune", "compress", "float_bytes"]

Tensors = Mapping[str, CompressedTensor]
Tune = Callable[[nn.Module, Tensors, Pictures, float], Tensors]
"""Fine-tunes: (folded network, tensors, pictures, price) to tensors on the same grids."""

_START, _STRIDE = 1e-6, 8.0  # of prices, in nats a picture


@dataclass(frozen=True)
class Compression:
    """What was written, and what it is worth.

    Args:
        model: SPEC of the model.
        path: Of the file.
        size_bytes: Of the file.
        float_bytes: Of the model's weights in a float32 safetensors file.
        held_out: Pictures on which accuracy was measured.
        are_labelled: Whether accuracy is that of labels; else it is agreement with the model.
        accuracy_before: Of the model.
        accuracy_after: Of the file as written and read back.
        within_budget: Whether the loss is within the budget; None where none was given.
        price: What a bit cost, where weights were priced.
        onnx: Path of the ONNX file, where one was asked for.
    """

    model: str
    path: Path
    size_bytes: int
    float_bytes: int
    held_out: int
    are_labelled: bool
    accuracy_before: float
    accuracy_after: float
    within_budget: bool | None
    price: float | None
    onnx: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        onnx = None if self.onnx is None else str(self.onnx)
        return {**asdict(self), "path": str(self.path), "onnx": onnx}


def compress(
    classifier: Classifier,
    pictures: Pictures,
    path: Path,
    settings: CompressSettings,
    *,
    tune: Tune | None = None,
    code: Code | None = None,
    onnx: bool = False,
    on_try: Callable[[int, int, float], None] | None = None,
) -> Compression:
    """Write ``classifier`` as a compressed file.

    Args:
        classifier: Of an architecture that a file can name.
        pictures: In random order: the first are held out, the next show what weights are worth.
        path: The file to write.
        settings: What may be lost, and how.
        tune: Fine-tunes on all pictures that are not held out.
        code: Builds the untrained network where its blueprint names a user's own.
        onnx: Write an ``.onnx`` file beside it.
        on_try: Called with (files tried, bytes, points lost) after each one.

    Raises:
        SettingsError: A model that no file can describe, or too few pictures.
        ModelError: The written file is not the network that was compressed.
        UnsafePathError: The file would replace one that is no compressed model.
        FileError: It cannot be written.
        MissingExtraError: constriction, or what ONNX needs, is not installed.
    """
    run = _Run(classifier, pictures, path, settings, tune, code, on_try)
    with _beside(path) as folder:
        part = Path(folder, path.name)
        price, within = run.write(part)
        written = run.read(part)
        exported = _export(written, part.with_suffix(".onnx")) if onnx else None
        made = Compression(
            model=classifier.spec,
            path=path,
            size_bytes=part.stat().st_size,
            float_bytes=float_bytes(run.plain),
            held_out=len(run.held_out),
            are_labelled=pictures.are_labelled,
            accuracy_before=run.right_before / len(run.held_out),
            accuracy_after=count_right(_module_of(written), run.held_out) / len(run.held_out),
            within_budget=within,
            price=price,
            onnx=None if exported is None else path.with_suffix(".onnx"),
        )
        part.replace(path)
        if exported is not None:
            exported.replace(path.with_suffix(".onnx"))
    return made


def float_bytes(network: nn.Module) -> int:
    """Return the size of a network's float32 safetensors file."""
    from safetensors.torch import save

    state = network.state_dict()
    weights = {name: state[name].detach().float().cpu().clone() for name in stored_names(network)}
    return len(save({name: value.contiguous() for name, value in weights.items()}))


class _Run:
    """One compression: what it works on, and the files that it tries."""

    def __init__(
        self,
        classifier: Classifier,
        pictures: Pictures,
        path: Path,
        settings: CompressSettings,
        tune: Tune | None,
        code: Code | None,
        on_try: Callable[[int, int, float], None] | None,
    ) -> None:
        self.plain = _module_of(classifier)
        self.blueprint, self.code = _blueprint_of(classifier), code
        if code is None and self.blueprint.family == PYTHON:
            self.code = lambda: copy.deepcopy(self.plain)
        if len(pictures) < settings.held_out + 1:
            raise SettingsError(
                f"expected more than the {settings.held_out} pictures that are held out, got "
                f"{len(pictures)}; give more pictures, or hold out fewer"
            )
        _check_target(path, classifier)
        self.settings, self.tune, self.on_try = settings, tune, on_try
        self.classifier = classifier
        self.held_out = pictures.take(0, settings.held_out)
        self.rest = pictures.take(settings.held_out)
        example = torch.zeros(1, *classifier.preprocessing.input_size)
        self.network = fold_batch_norm(self.plain, example)
        self.right_before = count_right(self.network, self.held_out)
        self.tries = 0

    def write(self, path: Path) -> tuple[float | None, bool | None]:
        """Write the smallest file that the settings allow; return its price, and if it fits."""
        settings = self.settings
        if settings.bits is not None:
            tensors = round_network(self.network, bits=settings.bits, prune=settings.prune)
            self._try(path, tensors, 0.0)
            return None, None
        pricing = Pricing(self.network, self.rest.take(0, settings.fitting), seed=settings.seed)
        if settings.price is not None:
            self._try(path, self._at(pricing, settings.price), settings.price)
            return settings.price, None
        return self._search(path, pricing, settings.budget or 0.0)

    def _search(self, path: Path, pricing: Pricing, budget: float) -> tuple[float, bool]:
        """Look for the dearest price within the budget: widen until it is between two, bisect."""
        best = low = high = None
        price, finest = _START, math.inf
        trial = path.with_name(path.name + ".trial")
        for _ in range(self.settings.tries):
            lost = self._try(trial, self._at(pricing, price), price)
            if lost <= budget:
                best = low = price
            else:
                high = price
            if best == price or (best is None and price < finest):
                trial.replace(path)  # the best so far, or else the finest
            finest = min(finest, price)
            if low is None:
                price /= _STRIDE
            elif high is None:
                price *= _STRIDE
            else:
                price = math.sqrt(low * high)
        trial.unlink(missing_ok=True)
        return best or finest, best is not None

    def read(self, path: Path) -> Classifier:
        """Return the classifier in a file, as anyone else would read it."""
        spec = f"compressed:{path.name}"
        return load_compressed(spec, str(path), self.classifier.device, code=self.code)

    def _at(self, pricing: Pricing, price: float) -> Tensors:
        return pricing.at(price, fractional=self.settings.fractional)

    def _try(self, path: Path, tensors: Tensors, price: float) -> float:
        """Write a file, read it back, and return the points of accuracy that it loses."""
        if self.tune is not None:
            tensors = self.tune(self.network, tensors, self.rest, price)
        model = CompressedModel(
            blueprint=self.blueprint,
            preprocessing=self.classifier.preprocessing,
            classes=_classes_to_store(self.classifier),
            is_folded=self.network is not self.plain,
            parameters=sum(tensor.values().numel() for tensor in tensors.values()),
            tensors=tensors,
        )
        size = write_compressed(path, model)
        right = count_right(_module_of(self.read(path)), self.held_out)
        lost = 100 * (self.right_before - right) / len(self.held_out)
        self.tries += 1
        if self.on_try:
            self.on_try(self.tries, size, lost)
        return lost


def _classes_to_store(classifier: Classifier) -> tuple[str, ...] | None:
    """Return the class names, unless a loader knows them anyway."""
    from scotoma.models.config import imagenet_names

    names = classifier.classes
    return None if names is not None and names == imagenet_names() else names


def _blueprint_of(classifier: Classifier) -> Blueprint:
    if classifier.blueprint is not None:
        return classifier.blueprint
    if classifier.spec.startswith(f"{PYTHON}:"):
        return Blueprint(PYTHON, classifier.spec.partition("@")[0].rpartition(":")[2])
    raise SettingsError(
        "expected an architecture that a file can name (embedded, scotoma:, timm:, hf:, "
        f"torchvision: or python:), got {classifier.spec}"
    )


def _module_of(classifier: Classifier) -> nn.Module:
    if not isinstance(classifier.network, nn.Module):
        raise SettingsError(
            f"expected a torch module, got {classifier.spec}, whose weights cannot be read"
        )
    return classifier.network


def _check_target(path: Path, classifier: Classifier) -> None:
    """Raise unless ``path`` may be written: nothing there, or a compressed model."""
    if not path.parent.is_dir():
        raise FileError(f"expected an existing folder to write {path.name} to, got {path.parent}")
    if path.exists() and not (path.is_file() and is_compressed(path)):
        raise UnsafePathError(
            f"expected no file at {path}, got one that scotoma compress did not write "
            f"(perhaps {classifier.spec} itself); choose another name"
        )


def _export(written: Classifier, path: Path) -> Path:
    """Write the ONNX form, and compare what onnxruntime makes of it."""
    from scotoma.models.onnx_export import export_onnx
    from scotoma.models.onnx_scores import load_onnx

    described = {
        **written.preprocessing.to_config(),
        "classes": None if written.classes is None else list(written.classes),
    }
    export_onnx(path, _module_of(written), written.preprocessing.input_size, described)
    exported = load_onnx(f"onnx:{path}", str(path), "cpu")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, *written.preprocessing.input_size, generator=generator)
    expected, got = written.logits(inputs), exported.logits(inputs)
    if not float((expected - got).abs().max()) <= 1e-3 * float(expected.abs().max()):
        raise ModelError(
            "expected onnxruntime to answer as torch does, got other logits; leave --onnx out"
        )
    return path


def _beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a hidden folder on the same disk, so that a checked file moves in one step."""
    try:
        return tempfile.TemporaryDirectory(dir=path.parent, prefix=".scotoma-")
    except OSError as error:
        raise FileError(
            f"expected to write to {path.parent}, got {error.strerror or error}; check its "
            "permissions and free space"
        ) from error
