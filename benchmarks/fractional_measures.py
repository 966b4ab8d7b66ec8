"""What the rows of ``fractional`` measure: fits of kernels, of whole networks, and choices."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.fractional_networks import (
    accuracy_of,
    answers_of,
    convolutions,
    find_kernels,
    fit_layers,
    moments_of,
    open_network,
)
from benchmarks.record import Measured

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.fractional_networks import Biases
    from scotoma.compress.fractional_layer import FractionalLayer

__all__ = ["measure_answers", "measure_bits", "measure_choice", "measure_fit", "measure_network"]


def measure_fit(family: str, count: int, settings: Mapping[str, Any]) -> Measured:
    """Fit single kernels of a trained network by one method."""
    import torch

    from scotoma.compress.fitting import FitSettings, fit_stacks
    from scotoma.ops.fractional_filters import separable_energy

    kernels = find_kernels(family, count)
    begun = time.perf_counter()
    found = fit_stacks(kernels[:, None], FitSettings(**settings))
    seconds = time.perf_counter() - begun
    floor = 1 - separable_energy(kernels)
    return Measured(
        len(kernels),
        {
            "mean": round(float(found.errors.mean()), 5),
            "median": round(float(found.errors.median()), 5),
            "worst_tenth": round(float(torch.quantile(found.errors, 0.9)), 5),
            "floor": round(float(floor.mean()), 5),
            "evaluations": found.evaluations / len(kernels),
            "ms_per_kernel": round(1000 * seconds / len(kernels), 3),
        },
    )


def measure_bits(family: str, count: int) -> Measured:
    """Compare what kernels cost as filters and as rounded weights, at the same error.

    Bits are those of each number's own histogram, which an adaptive coder comes close to.
    """
    import torch

    from scotoma.compress.fitting import FitSettings, fit_stacks
    from scotoma.compress.quantization import bits_of, price_tensor
    from scotoma.compress.shape_search import best_amplitudes, unexplained_energy

    kernels = find_kernels(family, count)
    stacks = kernels[:, None]
    total = float(kernels.square().sum())

    def entropy(codes: Tensor) -> float:
        bits, middle = bits_of(codes.flatten())
        return float(bits[codes.flatten().long() + middle].sum()) / len(kernels)

    def left(stacks: Tensor, shapes: Tensor) -> float:
        each = unexplained_energy(stacks, shapes) * stacks.square().sum((1, 2, 3))
        return float(each.sum()) / total

    curve = []
    for price in torch.logspace(-7, 1, 33).tolist():
        grid = price_tensor(kernels, torch.ones_like(kernels), price * total / kernels.numel())
        wrong = float((grid.values() - kernels).square().sum()) / total
        curve.append((wrong, entropy(torch.from_numpy(grid.codes).float())))
    values: dict[str, Any] = {}
    for atoms in (1, 2):
        shapes = fit_stacks(stacks, FitSettings(atoms=atoms, starts=2)).shapes
        exact = left(stacks, shapes)
        # The coarsest step of shapes that adds a tenth to the error, at most; amplitudes alike.
        for step in (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125):
            codes = (shapes / step).round()
            codes[..., 2].clamp_(min=1)
            if left(stacks, codes * step) <= 1.1 * exact:
                break
        amplitudes = best_amplitudes(stacks, codes * step)
        grain = (12 * 0.05 * exact * total / amplitudes.numel()) ** 0.5
        rounded = (amplitudes / grain).round()
        error = (
            left(stacks, codes * step)
            + float((rounded * grain - amplitudes).square().sum()) / total
        )
        bits = sum(entropy(codes[..., which]) for which in range(5)) + entropy(rounded)
        values[f"atoms_{atoms}"] = {"error": round(error, 5), "bits": round(bits, 2)}
        values[f"atoms_{atoms}"]["plain_bits"] = round(_bits_at(error, curve), 2)
    return Measured(len(kernels), values)


def _bits_at(error: float, curve: Sequence[tuple[float, float]]) -> float:
    """Return the bits between the nearest points of a curve of (error, bits), bits by log error."""
    import numpy as np

    errors, bits = zip(*sorted(point for point in curve if 0 < point[0] < 1), strict=True)
    return float(np.interp(np.log(error), np.log(errors), bits))


def measure_network(
    name: str, settings: Mapping[str, Any], fit: str, pictures: Mapping[str, int]
) -> Measured:
    """Replace all kernels of a network, and ask it about the test pictures."""
    from scotoma.compress.accuracy_fitting import AccuracyFitSettings, find_divergence, fit_answers

    network, fitting, test = open_network(name, tuple(pictures.items()))
    some = fitting.take(0, pictures["moments"])
    moments = None if fit == "weights" else moments_of(network, some)
    layers, biases = fit_layers(name, settings, moments)
    if fit == "answers":
        images = fitting.normalized(fitting.images)
        steps = AccuracyFitSettings(budget=pictures["steps"])
        layers = fit_answers(network, layers, images, steps, biases=biases).layers
    fresh = test.normalized(test.images)
    answers = answers_of(network, {}, {}, fresh)
    count = sum(layer.plain.numel() for layer in layers.values())
    return Measured(
        len(test),
        {
            "numbers": round(sum(layer.numbers for layer in layers.values()) / count, 4),
            "share": round(count / sum(p.numel() for p in network.parameters()), 4),
            "divergence": round(find_divergence(network, layers, fresh, answers, biases=biases), 4),
            "plain": accuracy_of(answers, test),
            "accuracy": accuracy_of(answers_of(network, layers, biases, fresh), test),
        },
    )


def measure_answers(
    name: str, layer: str, settings: Mapping[str, Any], pictures: Mapping[str, int]
) -> Measured:
    """Fit one layer to the network's answers by one method, at so many passes."""
    from scotoma.compress.accuracy_fitting import (
        AccuracyFitSettings,
        find_divergence,
        fit_answers,
    )
    from scotoma.compress.fitting import FitSettings, fit_layer

    network, fitting, test = open_network(name, tuple(pictures.items()))
    images, fresh = fitting.normalized(fitting.images), test.normalized(test.images)
    wanted = answers_of(network, {}, {}, fresh)
    weight = network.get_submodule(layer).get_parameter("weight")
    start = {layer: fit_layer(weight, FitSettings(starts=1))}
    begun = time.perf_counter()
    found = fit_answers(network, start, images, AccuracyFitSettings(**settings))
    return Measured(
        len(images),
        {
            "numbers": start[layer].numbers,
            "passes": round(found.evaluations, 1),
            "before": round(found.before, 5),
            "after": round(found.after, 5),
            "test_before": round(find_divergence(network, start, fresh, wanted), 5),
            "test_after": round(find_divergence(network, found.layers, fresh, wanted), 5),
            "fit_seconds": round(time.perf_counter() - begun, 1),
        },
    )


def measure_choice(
    name: str, method: str, budget: int, lost: float, pictures: Mapping[str, int]
) -> Measured:
    """Choose kernels within a budget of accuracy on held-out pictures; report on test ones."""
    from scotoma.compress.output_fitting import OutputFitSettings, bias_shift, fit_outputs
    from scotoma.compress.selection import SelectionSettings, choose_kernels, replace_kernels

    network, both, test = open_network(name, tuple(pictures.items()))
    fitting, held_out = both.take(0, len(both) // 2), both.take(len(both) // 2)
    moments = moments_of(network, fitting)
    settings = {"starts": 1, "steps": 60}
    by_weights, _ = fit_layers(name, settings, None)
    whole, _ = fit_layers(name, settings, moments)
    weights = convolutions(network)
    still = OutputFitSettings(steps=0)  # amplitudes alone: shapes hardly hang on the mask

    def replaced(masks: Mapping[str, Tensor]) -> tuple[dict[str, FractionalLayer], Biases]:
        layers, biases = {}, {}
        for each, mask in masks.items():
            part = replace_kernels(weights[each], whole[each], mask)
            layers[each] = fit_outputs(weights[each], part, moments[each], still)
            shift = bias_shift(weights[each], layers[each], moments[each])
            biases[each] = network.get_submodule(each).get_parameter("bias") + shift
        return layers, biases

    images, fresh = held_out.normalized(held_out.images), test.normalized(test.images)

    def measure(masks: Mapping[str, Tensor]) -> float:
        right = answers_of(network, *replaced(masks), images).argmax(1) == held_out.labels
        return 100 * float(right.float().mean())

    chosen = choose_kernels(
        _harms(weights, by_weights, moments),
        {n: float(weight.shape[2] * weight.shape[3] - 6) for n, weight in weights.items()},
        measure,
        lost=lost,
        settings=SelectionSettings(method, budget=budget),
    )
    layers, biases = replaced(chosen.masks)
    every = [mask.float().mean() * mask.numel() for mask in chosen.masks.values()]
    kernels = sum(mask.numel() for mask in chosen.masks.values())
    plain = sum(weight.numel() for weight in weights.values())
    return Measured(
        len(test),
        {
            "fractional": round(float(sum(every)) / kernels, 4),
            "numbers": round(sum(layer.numbers for layer in layers.values()) / plain, 4),
            "measured": chosen.evaluations,
            "held_out": len(held_out),
            "held_out_lost": round(measure({}) - chosen.accuracy, 2),
            "plain": accuracy_of(answers_of(network, {}, {}, fresh), test),
            "accuracy": accuracy_of(answers_of(network, layers, biases, fresh), test),
        },
    )


def _harms(
    weights: Mapping[str, Tensor],
    layers: Mapping[str, FractionalLayer],
    moments: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return ``(out, in)`` by name: the error of a kernel alone, over its output's variance."""
    harms = {}
    for name, weight in weights.items():
        wrong = (weight - layers[name].weight()).flatten(2)
        inputs, kernel = wrong.shape[1:]
        moment = moments[name]
        mean = moment[:, :-1, -1:]
        covariance = moment[:, :-1, :-1] - mean @ mean.mT
        blocks = covariance.reshape(len(moment), inputs, kernel, inputs, kernel)
        own = blocks.diagonal(dim1=1, dim2=3).movedim(-1, 1)  # (groups, in, k, k)
        grouped = wrong.reshape(len(moment), -1, inputs, kernel)
        error = (grouped[..., None, :] @ own[:, None] @ grouped[..., None])[..., 0, 0]
        full = weight.reshape(len(moment), -1, inputs * kernel)
        variance = ((full @ covariance) * full).sum(-1)
        harms[name] = (error / variance.clamp(min=1e-12)[..., None]).reshape(weight.shape[:2])
    return harms
