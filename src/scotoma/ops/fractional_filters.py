"""Convolution kernels made of six numbers: fractional derivatives of a Gaussian.

A fractional filter is a product of a row and a column, so no choice of its numbers explains more
of a kernel than the best product of a free row and a free column does:
:func:`separable_energy` is what any fit can reach at most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scotoma.core.errors import SettingsError

__all__ = [
    "SHAPE_NUMBERS",
    "TERMS",
    "fractional_kernel",
    "fractional_profile",
    "fractional_shape",
    "separable_energy",
    "shape_bounds",
]

SHAPE_NUMBERS = 5
"""Of one shape: ``x0, y0, sigma, a, b``. With its amplitude a filter has six numbers."""

TERMS = 15
"""Of the Grünwald–Letnikov sum; Gaussians that fit a kernel have faded before its last."""

_TINY = 1e-12


def fractional_kernel(parameters: Tensor, size: tuple[int, int], *, terms: int = TERMS) -> Tensor:
    """Return the kernels ``A · D^a G(u − x0) · D^b G(v − y0)`` of many fractional filters.

    Args:
        parameters: ``(..., 6)`` float: ``A, x0, y0, sigma, a, b``; centres and sigma in pixels,
            centres from the middle of the kernel, ``sigma > 0``.
        size: Height and width of the kernels, in pixels.
        terms: Of the sum that stands for a derivative.

    Returns:
        ``(..., height, width)``, differentiable; ``u`` runs along the width. ``A`` is the
        kernel's Frobenius norm, with a sign.

    Differences from the paper:
        The shape has unit norm, so that ``A`` says how strong the kernel is, whatever its
        orders: it is then found by a projection and stored in few bits.

    Source:
        Zamora et al., Convolutional Filter Approximation Using Fractional Calculus, ICCVW 2021.
    """
    if parameters.shape[-1] != SHAPE_NUMBERS + 1:
        raise SettingsError(
            f"expected 6 numbers per filter (A, x0, y0, sigma, a, b), got {parameters.shape[-1]}"
        )
    shape = fractional_shape(parameters[..., 1:], size, terms=terms)
    return parameters[..., 0, None, None] * shape


def fractional_shape(shapes: Tensor, size: tuple[int, int], *, terms: int = TERMS) -> Tensor:
    """Return kernels of unit Frobenius norm.

    Args:
        shapes: ``(..., 5)`` float: ``x0, y0, sigma, a, b``.
        size: Height and width of the kernels, in pixels.
        terms: Of the sum that stands for a derivative.

    Returns:
        ``(..., height, width)``, differentiable.
    """
    if shapes.shape[-1] != SHAPE_NUMBERS:
        raise SettingsError(
            f"expected 5 numbers per shape (x0, y0, sigma, a, b), got {shapes.shape[-1]}"
        )
    x0, y0, sigma, a, b = shapes.unbind(-1)
    row = fractional_profile(x0, sigma, a, size[1], terms=terms)
    column = fractional_profile(y0, sigma, b, size[0], terms=terms)
    return column[..., :, None] * row[..., None, :]


def fractional_profile(
    centre: Tensor, sigma: Tensor, order: Tensor, length: int, *, terms: int = TERMS
) -> Tensor:
    """Return sampled fractional derivatives of Gaussians, each of unit norm.

    ``D^a f(x) ≈ Σ_n (−1)^n C(a, n) f(x − n)``, with steps of one pixel: the order 1 is the
    difference of neighbours, −1 their running sum.

    Args:
        centre: ``(...)``, from the middle of the line, in pixels.
        sigma: ``(...)``, in pixels, above 0.
        order: ``(...)``, any real number.
        length: Samples, one a pixel.
        terms: Of the sum.

    Returns:
        ``(..., length)``, differentiable.
    """
    if length < 1 or terms < 1:
        raise SettingsError(f"expected length and terms of at least 1, got {length} and {terms}")
    steps = torch.arange(terms, dtype=centre.dtype, device=centre.device)
    places = torch.arange(length, dtype=centre.dtype, device=centre.device) - (length - 1) / 2
    # Binomials with their signs: each is the one before it times (n − 1 − order) / n.
    factors = (steps[1:] - 1 - order[..., None]) / steps[1:]
    first = torch.ones_like(order)[..., None]
    weights = torch.cat([first, factors.cumprod(-1)], -1)
    distances = (places - steps[:, None]) - centre[..., None, None]
    exponents = -0.5 * (distances / sigma[..., None, None]) ** 2
    # The highest exponent is taken out, for a narrow Gaussian beside the kernel would vanish.
    highest = exponents.detach().amax((-2, -1), keepdim=True)
    profile = (weights[..., None] * torch.exp(exponents - highest)).sum(-2)
    return profile / (profile.square().sum(-1, keepdim=True) + _TINY).sqrt()


def separable_energy(kernels: Tensor) -> Tensor:
    """Return the share of each kernel's energy that a row times a column explains at most.

    Args:
        kernels: ``(..., height, width)``.

    Returns:
        ``(...)`` in [0, 1]; 1 for kernels of zeros.

    Source:
        Eckart, Young, The Approximation of One Matrix by Another of Lower Rank, 1936.
    """
    energies = torch.linalg.svdvals(kernels).square()
    total = energies.sum(-1)
    return torch.where(total > 0, energies[..., 0] / total.clamp(min=_TINY**2), 1.0)


def shape_bounds(size: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the least and the largest ``x0, y0, sigma, a, b`` that a fit looks at.

    Centres may lie a kernel's half beside it (a derivative reaches to one side), sigma goes
    from a single pixel to nearly flat, orders from a running sum to a third difference.

    Args:
        size: Height and width of the kernels, in pixels.
    """
    height, width = size
    lower = (-float(width), -float(height), 0.3, -1.0, -1.0)
    upper = (width / 2, height / 2, float(max(height, width)), 3.0, 3.0)
    return lower, upper
