"""Shapes of fractional filters, searched for many stacks of kernels at once.

A stack is what one set of shapes stands for: a single kernel, or all kernels that share it. Only
shapes are searched; amplitudes follow by projection, so a search has 5 dimensions, not 6.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from scotoma.core.errors import SettingsError
from scotoma.ops.fractional_filters import (
    SHAPE_NUMBERS,
    fractional_profile,
    fractional_shape,
    shape_bounds,
)

__all__ = ["best_amplitudes", "descend", "search_shapes", "start_from_table", "unexplained_energy"]

_RIDGE = 1e-6  # relative; two atoms that became one must not divide by zero
_SIGMAS = 8
_CENTRES = 2  # per pixel of the range
_ORDERS = 13
_ALIKE = 0.99  # cosine beyond which two profiles are one: the table is several times smaller
_PORTION = 1 << 24  # numbers of the table held at once


def unexplained_energy(stacks: Tensor, shapes: Tensor) -> Tensor:
    """Return the share of each stack's energy that shapes leave, with the best amplitudes.

    Args:
        stacks: ``(G, n, height, width)``: ``n`` kernels that share their shapes.
        shapes: ``(..., G, M, 5)``.

    Returns:
        ``(..., G)`` in [0, 1], differentiable in ``shapes``; 0 for stacks of zeros.
    """
    atoms = fractional_shape(shapes, (stacks.shape[-2], stacks.shape[-1])).flatten(-2)
    products = torch.einsum("gnk,...gmk->...gnm", stacks.flatten(-2), atoms)
    total = stacks.square().sum((-3, -2, -1))
    if shapes.shape[-2] == 1:
        explained = products.square().sum((-2, -1))
    else:
        factor = torch.linalg.cholesky(_gram(atoms))
        solved = torch.linalg.solve_triangular(factor, products.mT, upper=False)
        explained = solved.square().sum((-2, -1))
    return torch.where(total > 0, 1 - explained / total.clamp(min=1e-30), 0.0).clamp(min=0)


def best_amplitudes(stacks: Tensor, shapes: Tensor) -> Tensor:
    """Return the amplitudes that leave the least energy.

    Args:
        stacks: ``(G, n, height, width)``.
        shapes: ``(G, M, 5)``.

    Returns:
        ``(G, n, M)``.
    """
    atoms = fractional_shape(shapes, (stacks.shape[-2], stacks.shape[-1])).flatten(-2)
    products = stacks.flatten(-2) @ atoms.mT
    if shapes.shape[-2] == 1:
        return products
    factor = torch.linalg.cholesky(_gram(atoms))
    return torch.cholesky_solve(products.mT, factor).mT


def start_from_table(stacks: Tensor, *, atoms: int, starts: int) -> Tensor:
    """Return the best shapes of a table, each atom for what those before it leave.

    A filter is a row times a column: for each sigma all pairs of a tabulated row and column are
    tried by two matrix products, some ten thousand filters for each stack.

    Args:
        stacks: ``(G, n, height, width)``.
        atoms: M, from 1.
        starts: Most starts, each from another sigma for the first atom; at most 8.

    Returns:
        ``(starts, G, M, 5)``.
    """
    if not 1 <= starts <= _SIGMAS:
        raise SettingsError(f"expected 1 to {_SIGMAS} starts from a table, got {starts}")
    first = _best_of_table(stacks)
    order = first[1].argsort(0, descending=True)[:starts]
    found = first[0].gather(0, order[..., None].expand(*order.shape, SHAPE_NUMBERS))[..., None, :]
    for _ in range(1, atoms):
        more = []
        for shapes in found:
            more.append(torch.cat([shapes, _next_atom(stacks, shapes)[:, None]], 1))
        found = torch.stack(more)
    return found


def descend(stacks: Tensor, start: Tensor, *, steps: int, rate: float = 0.05) -> Tensor:
    """Return shapes after Adam steps from every start, the best of each stack.

    Args:
        stacks: ``(G, n, height, width)``.
        start: ``(S, G, M, 5)`` within the bounds.
        steps: From 0.
        rate: Of learning, in widths of the bounds; falls to zero linearly.

    Returns:
        ``(G, M, 5)`` within the bounds.
    """
    lower, upper = _bounds(stacks)
    places = ((start - lower) / (upper - lower)).clamp(0, 1).detach().requires_grad_()
    optimizer = torch.optim.Adam([places], lr=rate)
    best, least = places.detach().clone(), torch.full(start.shape[:2], torch.inf)
    for step in range(steps + 1):
        left = unexplained_energy(stacks, lower + (upper - lower) * places)
        with torch.no_grad():
            better = left < least
            least = torch.where(better, left, least)
            best = torch.where(better[..., None, None], places, best)
        if step == steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        left.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            places.clamp_(0, 1)
    chosen = least.argmin(0)[None, :, None, None].expand(1, *best.shape[1:])
    return (lower + (upper - lower) * best).gather(0, chosen)[0]


def search_shapes(
    stacks: Tensor, name: str, *, atoms: int, budget: int, seed: int
) -> tuple[Tensor, int]:
    """Return what a black-box optimizer finds, one search per stack, all stacks in step.

    Args:
        stacks: ``(G, n, height, width)``.
        name: Of an optimizer.
        atoms: M, from 1; a search has 5·M dimensions.
        budget: Evaluations per stack.
        seed: Of the first stack; the others take the following ones.

    Returns:
        ``(G, M, 5)`` and the evaluations of all stacks together.
    """
    from scotoma.optimize.bounds import Bounds
    from scotoma.optimize.search import Search

    sides = shape_bounds((stacks.shape[-2], stacks.shape[-1]))
    bounds = Bounds(*(np.tile(np.array(side), atoms) for side in sides))
    searches = [
        Search(name, bounds, budget=budget, seed=seed + number) for number in range(len(stacks))
    ]
    running = list(range(len(searches)))
    while running:
        asked = [searches[number].ask() for number in running]
        counts = [len(points) for points in asked]
        which = torch.tensor(running).repeat_interleave(torch.tensor(counts))
        points = torch.from_numpy(np.concatenate(asked)).to(stacks)
        with torch.no_grad():
            left = unexplained_energy(stacks[which], points.reshape(-1, atoms, SHAPE_NUMBERS))
        values = np.split(left.double().numpy(), np.cumsum(counts)[:-1])
        for number, told in zip(running, values, strict=True):
            searches[number].tell(told)
        running = [number for number in running if not searches[number].is_over]
    found = torch.from_numpy(np.stack([search.best.point for search in searches])).to(stacks)
    evaluations = sum(search.evaluations for search in searches)
    return found.reshape(-1, atoms, SHAPE_NUMBERS), evaluations


def _best_of_table(stacks: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(sigmas, G, 5)`` shapes and ``(sigmas, G)`` energies, the best of each sigma."""
    height, width = stacks.shape[-2:]
    lower, upper = _bounds(stacks)
    sigmas = torch.linspace(float(lower[2]) ** 0.5, float(upper[2]) ** 0.5, _SIGMAS + 1)[:-1] ** 2
    orders = torch.linspace(float(lower[3]), float(upper[3]), _ORDERS)
    found, energies = [], []
    for sigma in sigmas.tolist():
        rows, row_numbers = _tabulate(lower[0], upper[0], sigma, orders, width, stacks)
        columns, column_numbers = _tabulate(lower[1], upper[1], sigma, orders, height, stacks)
        portion = max(1, _PORTION // (stacks.shape[1] * len(rows) * len(columns)))
        best = [
            torch.einsum("ch,gnhw,rw->gncr", columns, part, rows).square().sum(1).flatten(1).max(1)
            for part in torch.split(stacks, portion)
        ]
        energies.append(torch.cat([each.values for each in best]))
        place = torch.cat([each.indices for each in best])
        row, column = row_numbers[place % len(rows)], column_numbers[place // len(rows)]
        same = torch.full_like(row[:, 0], sigma)
        found.append(torch.stack([row[:, 0], column[:, 0], same, row[:, 1], column[:, 1]], -1))
    return torch.stack(found), torch.stack(energies)


def _tabulate(
    lower: Tensor, upper: Tensor, sigma: float, orders: Tensor, length: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``(P, length)`` profiles, no two alike, and their ``(P, 2)`` centres and orders."""
    count = max(2, round(_CENTRES * float(upper - lower)) + 1)
    centres = torch.linspace(float(lower), float(upper), count)
    numbers = torch.tensor(list(itertools.product(centres.tolist(), orders.tolist()))).to(like)
    centre, order = numbers.unbind(-1)
    profiles = fractional_profile(centre, torch.full_like(centre, sigma), order, length)
    alike = (profiles @ profiles.mT).abs() > _ALIKE
    kept, left = [], torch.ones(len(profiles), dtype=torch.bool, device=alike.device)
    for which in range(len(profiles)):
        if left[which]:
            kept.append(which)
            left &= ~alike[which]
    return profiles[kept], numbers[kept]


def _next_atom(stacks: Tensor, shapes: Tensor) -> Tensor:
    """Return ``(G, 5)``: the table's best for what ``(G, M, 5)`` shapes leave."""
    atoms = fractional_shape(shapes, (stacks.shape[-2], stacks.shape[-1]))
    rest = stacks - torch.einsum("gnm,gmhw->gnhw", best_amplitudes(stacks, shapes), atoms)
    found, energies = _best_of_table(rest)
    best: Tensor = found[energies.argmax(0), torch.arange(len(stacks))]
    return best


def _gram(atoms: Tensor) -> Tensor:
    """Inner products of ``(..., M, k)`` atoms of unit norm."""
    return atoms @ atoms.mT + _RIDGE * torch.eye(atoms.shape[-2]).to(atoms)


def _bounds(stacks: Tensor) -> tuple[Tensor, Tensor]:
    lower, upper = shape_bounds((stacks.shape[-2], stacks.shape[-1]))
    return torch.tensor(lower).to(stacks), torch.tensor(upper).to(stacks)
