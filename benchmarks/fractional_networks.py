"""The trained networks whose kernels become fractional filters, and the pictures beside them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.figures import rate
from benchmarks.pictures import IMAGENET, MODELS, SHARED, SPECS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from scotoma.compress.fractional_layer import FractionalLayer
    from scotoma.compress.pictures import Pictures
    from scotoma.models.classifier import Classifier

__all__ = [
    "Biases",
    "accuracy_of",
    "answers_of",
    "convolutions",
    "find_kernels",
    "fit_layers",
    "moments_of",
    "open_network",
]

Biases = dict[str, "Tensor"]
"""By convolution's name, in the place of its own."""

_CIFAR = SHARED / "data" / "cifar10"
_BATCH = 250


def find_kernels(family: str, count: int) -> Tensor:
    """Return ``(count, height, width)`` kernels that are not zero, drawn with one seed."""
    import torch

    if family == "face embedder":
        import onnx
        from onnx.numpy_helper import to_array

        graph = onnx.load(str(MODELS / "face_embedder.onnx")).graph
        arrays = [to_array(each) for each in graph.initializer if len(each.dims) == 4]
        found = [torch.from_numpy(each.copy()) for each in arrays if each.shape[2:] == (7, 6)]
    else:
        found = list(convolutions(_load(family).network).values())
    kernels = torch.cat([weight.detach().flatten(0, 1) for weight in found])
    kernels = kernels[kernels.square().sum((1, 2)) > 1e-8]
    order = torch.randperm(len(kernels), generator=torch.Generator().manual_seed(0))
    return kernels[order[:count]].contiguous()


@cache
def _load(name: str) -> Classifier:
    if name in SPECS:
        from benchmarks.jobs import classifier

        return classifier(name)
    from benchmarks.cifar_resnet import load_cifar_resnet

    return load_cifar_resnet(name)


@cache
def open_network(
    name: str, pictures: tuple[tuple[str, int], ...]
) -> tuple[Any, Pictures, Pictures]:
    """Return the folded network, pictures to fit on, and test pictures."""
    import torch

    from scotoma.compress.pictures import Pictures, read_pictures

    counts = dict(pictures)
    model = _load(name)
    if name in SPECS:
        half = read_pictures(IMAGENET / "val.csv", model, seed=0)
        more = read_pictures(IMAGENET / "samples.csv", model, seed=0)
        first = half.take(0, len(half) // 2)
        images = torch.cat([first.images, more.images])
        labels = torch.cat([first.labels, more.labels])
        fitting = Pictures(images, labels, model.preprocessing, first.are_labelled)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        fitting = Pictures(images[order], labels[order], model.preprocessing, first.are_labelled)
        test = half.take(len(half) // 2)
    else:
        fitting = read_pictures(_CIFAR / "train.zip", model, seed=0, most=counts["fitting"])
        test = read_pictures(_CIFAR / "test.zip", model, seed=0, most=counts["test"])
    return _fold(name), fitting.take(0, counts["fitting"]), test.take(0, counts["test"])


def fit_layers(
    name: str,
    settings: Mapping[str, Any],
    moments: Mapping[str, Tensor] | None,
) -> tuple[dict[str, FractionalLayer], Biases]:
    """Return layers fitted to weights, or with moments to outputs, and the biases they want."""
    from scotoma.compress.output_fitting import bias_shift, fit_outputs

    network = _fold(name)
    layers = dict(_fit_weights(name, tuple(settings.items())))
    biases: Biases = {}
    if moments is None:
        return layers, biases
    for each, weight in convolutions(network).items():
        layers[each] = fit_outputs(weight, layers[each], moments[each])
        shift = bias_shift(weight, layers[each], moments[each])
        biases[each] = network.get_submodule(each).get_parameter("bias") + shift
    return layers, biases


@cache
def _fit_weights(name: str, settings: tuple[tuple[str, Any], ...]) -> dict[str, FractionalLayer]:
    from scotoma.compress.fitting import FitSettings, fit_layer

    chosen = FitSettings(**dict(settings))
    return {each: fit_layer(w, chosen) for each, w in convolutions(_fold(name)).items()}


@cache
def _fold(name: str) -> Any:
    import torch

    from scotoma.models.fold import fold_batch_norm

    model = _load(name)
    network: Any = model.network
    return fold_batch_norm(network, torch.zeros(1, *model.preprocessing.input_size))


def convolutions(network: Any) -> dict[str, Tensor]:
    """Return the weights that are replaced: of 3×3 and more, but the first layer's."""
    from torch import nn

    found = {
        name: module.weight.detach()
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and min(module.kernel_size) >= 3
    }
    return dict(list(found.items())[1:])


def moments_of(network: nn.Module, pictures: Pictures) -> dict[str, Tensor]:
    """Return what each layer reads, see :func:`~scotoma.compress.moments.find_moments`."""
    from torch import Generator

    from scotoma.compress.moments import find_moments

    batches = (images for images, _ in pictures.batches(64))
    return find_moments(network, batches, generator=Generator().manual_seed(0))


def answers_of(
    network: nn.Module, layers: Mapping[str, FractionalLayer], biases: Biases, images: Tensor
) -> Tensor:
    """Return the logits with some weights and biases replaced."""
    import torch

    weights = {f"{name}.weight": layer.weight().detach() for name, layer in layers.items()}
    weights |= {f"{name}.bias": bias.detach() for name, bias in biases.items()}
    with torch.no_grad():
        parts = [
            torch.func.functional_call(network, weights, (part,))
            for part in torch.split(images, _BATCH)
        ]
    return torch.cat(parts)


def accuracy_of(answers: Tensor, pictures: Pictures) -> dict[str, Any]:
    """Return the rate of right answers."""
    return rate(int((answers.argmax(1) == pictures.labels).sum()), len(pictures))
