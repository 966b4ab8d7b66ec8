"""Fractional filters fitted to a convolution's kernels by the error of its weights.

::

    weight ──► stacks of kernels that share shapes ──► shapes ──► amplitudes ──► FractionalLayer
                                                       (search)   (projection)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scotoma.compress.fractional_layer import SHARING, FractionalLayer
from scotoma.compress.shape_search import (
    best_amplitudes,
    descend,
    search_shapes,
    start_from_table,
    unexplained_energy,
)
from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.ops.fractional_filters import shape_bounds

__all__ = ["FitSettings", "Fitted", "fit_kernels", "fit_layer", "fit_stacks", "kernel_errors"]

_PORTION = 2048  # stacks fitted at once: memory stays flat


@dataclass(frozen=True)
class FitSettings:
    """How shapes are found.

    Args:
        method: ``"table"`` (start from tabulated filters, then gradient steps), ``"gradient"``
            (gradient steps from random starts), or the name of an optimizer.
        sharing: Whose shape one is: of each ``"kernel"``, of all kernels of a ``"filter"`` (an
            output channel), of the whole ``"layer"``.
        atoms: Shapes that add up to one kernel, from 1 (the paper).
        starts: Of ``"table"`` (at most 8) and ``"gradient"``.
        steps: Of the gradient, for ``"table"`` and ``"gradient"``.
        budget: Evaluations for each stack of kernels, for an optimizer.
        seed: Of random starts and of optimizers.

    Raises:
        UnknownNameError: No such method or sharing.
        SettingsError: A number out of range.
    """

    method: str = "table"
    sharing: str = "kernel"
    atoms: int = 1
    starts: int = 4
    steps: int = 100
    budget: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sharing not in SHARING:
            raise UnknownNameError("sharing", self.sharing, SHARING)
        if self.method not in ("table", "gradient"):
            from scotoma.optimize.registry import optimizers

            names = optimizers.names()
            if self.method not in names:
                raise UnknownNameError("fitting method", self.method, ["table", "gradient", *names])
        for name in ("atoms", "starts", "budget"):
            if not getattr(self, name) >= 1:
                raise SettingsError(f"expected {name} of at least 1, got {getattr(self, name)}")
        for name in ("steps", "seed"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"expected {name} of at least 0, got {getattr(self, name)}")
        if self.method == "table" and self.starts > 8:
            raise SettingsError(f"expected at most 8 starts from a table, got {self.starts}")


@dataclass(frozen=True, eq=False)
class Fitted:
    """Filters fitted to stacks of kernels.

    Args:
        shapes: ``(G, M, 5)``: ``x0, y0, sigma, a, b``.
        amplitudes: ``(G, n, M)``.
        errors: ``(G,)`` share of each stack's energy that they leave, in [0, 1].
        evaluations: Of the error, of one stack's shapes each; a gradient step counts as one.
    """

    shapes: Tensor
    amplitudes: Tensor
    errors: Tensor
    evaluations: int


def fit_kernels(kernels: Tensor, settings: FitSettings | None = None) -> Tensor:
    """Return the fractional filter nearest to each kernel.

    Args:
        kernels: ``(N, height, width)`` float.
        settings: How; those of one atom and no sharing.

    Returns:
        ``(N, 6)``: ``A, x0, y0, sigma, a, b``, for
        :func:`~scotoma.ops.fractional_filters.fractional_kernel`.

    Raises:
        SettingsError: Settings with sharing or more than one atom.
    """
    settings = settings or FitSettings()
    if settings.sharing != "kernel" or settings.atoms != 1:
        raise SettingsError(
            "expected one shape for each kernel, got "
            f"{settings.atoms} for each {settings.sharing}; use fit_layer"
        )
    found = fit_stacks(kernels[:, None], settings)
    return torch.cat([found.amplitudes[:, 0], found.shapes[:, 0]], -1)


def fit_layer(
    weight: Tensor, settings: FitSettings | None = None, mask: Tensor | None = None
) -> FractionalLayer:
    """Return a convolution's weight with fractional kernels.

    Args:
        weight: ``(out, in, height, width)`` float.
        settings: How.
        mask: ``(out, in)`` bool, the kernels to be fractional; None is all.
    """
    settings = settings or FitSettings()
    weight = weight.detach()
    if mask is None:
        mask = torch.ones(weight.shape[:2], dtype=torch.bool, device=weight.device)
    fractional = torch.where(mask[..., None, None], weight, 0)
    out, inputs = weight.shape[:2]
    per_stack = {"kernel": 1, "filter": inputs, "layer": out * inputs}[settings.sharing]
    stacks = fractional.reshape(-1, per_stack, *weight.shape[2:])
    found = fit_stacks(stacks, settings)
    owners = {"kernel": (out, inputs), "filter": (out, 1), "layer": (1, 1)}[settings.sharing]
    return FractionalLayer(
        shapes=found.shapes.reshape(*owners, settings.atoms, -1),
        amplitudes=found.amplitudes.reshape(out, inputs, -1),
        mask=mask,
        plain=weight - fractional,
    )


def fit_stacks(stacks: Tensor, settings: FitSettings) -> Fitted:
    """Return shapes for stacks of kernels, and the best amplitudes for each kernel.

    Args:
        stacks: ``(G, n, height, width)`` float: ``n`` kernels that share shapes.
        settings: How; ``sharing`` says nothing here.

    Raises:
        SettingsError: Another form, NaN or infinity.
    """
    if stacks.ndim != 4 or not stacks.is_floating_point():
        raise SettingsError(
            f"expected float kernels (G, n, height, width), got {tuple(stacks.shape)}"
        )
    if not bool(torch.isfinite(stacks).all()):
        raise SettingsError("expected finite kernels, got NaN or infinity")
    stacks = stacks.detach()
    reduced = _reduce(stacks)
    shapes, evaluations = [], 0
    for number, part in enumerate(torch.split(reduced, _PORTION)):
        found, count = _find(part, settings, settings.seed + number * _PORTION)
        shapes.append(found)
        evaluations += count
    all_shapes = torch.cat(shapes)
    with torch.no_grad():
        errors = unexplained_energy(reduced, all_shapes)
        return Fitted(all_shapes, best_amplitudes(stacks, all_shapes), errors, evaluations)


def kernel_errors(weight: Tensor, layer: FractionalLayer) -> Tensor:
    """Return the share of each kernel's energy that a layer leaves.

    Args:
        weight: ``(out, in, height, width)``, what the layer stands for.
        layer: Fitted to it.

    Returns:
        ``(out, in)``, 0 for kernels of zeros that stay zeros.
    """
    left = (weight - layer.weight()).square().sum((2, 3))
    return left / weight.square().sum((2, 3)).clamp(min=torch.finfo(weight.dtype).tiny)


def _find(stacks: Tensor, settings: FitSettings, seed: int) -> tuple[Tensor, int]:
    atoms = settings.atoms
    if settings.method == "table":
        start = start_from_table(stacks, atoms=atoms, starts=settings.starts)
    elif settings.method == "gradient":
        start = _draw(stacks, settings, seed)
    else:
        return search_shapes(
            stacks, settings.method, atoms=atoms, budget=settings.budget, seed=seed
        )
    count = start.shape[0] * len(stacks) * (settings.steps + 1)
    return descend(stacks, start, steps=settings.steps), count


def _draw(stacks: Tensor, settings: FitSettings, seed: int) -> Tensor:
    """Random starts, uniform within the bounds."""
    lower, upper = map(torch.tensor, shape_bounds((stacks.shape[-2], stacks.shape[-1])))
    generator = torch.Generator().manual_seed(seed)
    count = (settings.starts, len(stacks), settings.atoms, len(lower))
    return (lower + (upper - lower) * torch.rand(count, generator=generator)).to(stacks)


def _reduce(stacks: Tensor) -> Tensor:
    """Return stacks of no more kernels than a kernel has weights, whose products are the same.

    What a shape explains of a stack depends on the sum of its kernels' outer products alone.
    """
    kernels, height, width = stacks.shape[1:]
    if kernels <= height * width:
        return stacks
    _, values, vectors = torch.linalg.svd(stacks.flatten(2), full_matrices=False)
    reduced: Tensor = (values[..., None] * vectors).reshape(len(stacks), -1, height, width)
    return reduced
