"""Fits the coder's model to latents of training pictures: least squares, rounded to integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import CodingError
from scotoma.ops.latent_coding import BITS, OTHER, OWN, PRIOR, LatentModel
from scotoma.ops.latent_curves import PARTS

__all__ = ["fit_latent_model"]

_MOST_VALUES = 4_000_000
_RIDGE = 32.0
_WIDEST = 2**15 - 1
_ROUNDS = 3

Floats = NDArray[np.float64]


def fit_latent_model(latents: NDArray[np.uint8], *, references: int = 4) -> LatentModel:
    """Return the model that predicts latents of a network well.

    Fit it to training pictures: it is public, and goes wherever the split goes.

    Args:
        latents: ``(N, C, H, W)`` uint8; of very many the first are used.
        references: Channels that each channel is also predicted from, at most.

    Raises:
        CodingError: Latents of another shape or type, or none.
    """
    if latents.dtype != np.uint8 or latents.ndim != 4 or not latents.size:
        raise CodingError(
            f"expected latents (N, C, H, W) of uint8, got {latents.shape} of {latents.dtype}"
        )
    if references < 0:
        raise CodingError(f"expected references of at least 0, got {references}")
    latents = latents[: max(1, _MOST_VALUES // latents[0].size)]
    means = np.rint(latents.mean((0, 2, 3))).astype(np.int64)
    known = latents.astype(np.float64) - means[:, None, None]
    chosen = _choose_references(known, min(references, latents.shape[1] - 1))
    places = _places(*latents.shape[2:])
    weights = np.zeros((latents.shape[1], len(places), len(OWN) + len(OTHER) * chosen.shape[1]))
    missed = np.zeros_like(known)
    for channel, others in enumerate(chosen):
        near = _neighbours(known, channel, others)
        for place, inside in enumerate(places):
            rows, wanted = near[:, inside].reshape(-1, near.shape[-1]), known[:, channel, inside]
            weights[channel, place] = _rounded(_solve(rows, wanted.reshape(-1), np.ones(len(rows))))
            guess = near[:, inside] @ weights[channel, place] / 2**BITS
            missed[:, channel, inside] = np.abs(wanted - guess) * PARTS
    errors = np.clip(np.rint(missed.mean((0, 2, 3))), 1, _WIDEST)
    return LatentModel(
        means=means,
        references=chosen,
        weights=weights.astype(np.int64),
        sizes=_fit_sizes(missed, errors, chosen, places).astype(np.int64),
        errors=errors.astype(np.int64),
    )


def _fit_sizes(
    missed: Floats, errors: Floats, references: NDArray[np.int64], places: list[NDArray[np.bool_]]
) -> Floats:
    """Return what the errors around a value tell of the size of its own."""
    channels, count = references.shape
    sizes = np.zeros((channels, len(places), len(OWN) + count + 2))
    for channel, others in enumerate(references):
        near = _around(missed[:, channel], OWN, errors[channel])
        there = np.maximum(others, 0)
        beside = np.where(others[:, None, None] < 0, 0.0, missed[:, there])
        so_far = _so_far(missed[:, channel], errors[channel])
        ones = np.ones_like(so_far)
        rows = np.stack([*near, *np.moveaxis(beside, 1, 0), so_far, ones], axis=-1)
        for place, inside in enumerate(places):
            part = rows[:, inside].reshape(-1, rows.shape[-1])
            wanted = missed[:, channel, inside].reshape(-1)
            # Large errors vary more than small ones; each counts by the size that is expected.
            trust = np.ones(len(part))
            for _ in range(_ROUNDS):
                found = _solve(part, wanted, trust)
                trust = 1 / np.maximum(part @ found, 1) ** 2
            sizes[channel, place, :-1] = _rounded(found[:-1])
            sizes[channel, place, -1] = np.clip(np.rint(found[-1]), -_WIDEST, _WIDEST)
    return sizes


def _choose_references(known: Floats, most: int) -> NDArray[np.int64]:
    """Return for each channel the earlier ones whose surprises are most like its own."""
    surprises = []
    for channel in range(known.shape[1]):
        near = _neighbours(known, channel, np.zeros(0, np.int64)).reshape(-1, len(OWN))
        wanted = known[:, channel].reshape(-1)
        surprises.append(wanted - near @ _solve(near, wanted, np.ones(len(near))))
    alike = np.abs(np.atleast_2d(_correlations(np.array(surprises))))
    chosen = np.full((len(alike), most), -1)
    for channel, row in enumerate(alike):
        best = np.argsort(-row[:channel], kind="stable")[:most]
        chosen[channel, : len(best)] = best
    return chosen


def _correlations(rows: Floats) -> Floats:
    centred = rows - rows.mean(1, keepdims=True)
    lengths = np.sqrt((centred**2).sum(1)) + 1e-9
    found: Floats = centred @ centred.T / lengths / lengths[:, None]
    return found


def _neighbours(known: Floats, channel: int, references: NDArray[np.int64]) -> Floats:
    """Return ``(N, H, W, F)`` neighbours of a channel's values, 0 where there are none."""
    found = _around(known[:, channel], OWN, 0.0)
    for other in references:
        source = known[:, other] if other >= 0 else np.zeros_like(known[:, channel])
        found += _around(source, OTHER, 0.0)
    return np.stack(found, axis=-1)


def _around(plane: Floats, offsets: tuple[tuple[int, int], ...], outside: float) -> list[Floats]:
    """Return a ``(N, H, W)`` plane moved so that each value lies on its neighbour."""
    height, width = plane.shape[1:]
    wide = np.pad(plane, ((0, 0), (2, 0), (2, 2)), constant_values=outside)
    return [
        wide[:, 2 + down : 2 + down + height, 2 + across : 2 + across + width]
        for down, across in offsets
    ]


def _so_far(missed: Floats, start: float) -> Floats:
    """Return the mean of a channel's errors before each value, row by row."""
    count, height, width = missed.shape
    flat = missed.reshape(count, -1)
    before = np.cumsum(flat, 1) - flat + PRIOR * start
    found: Floats = before / (np.arange(flat.shape[1]) + PRIOR)
    return found.reshape(count, height, width)


def _places(height: int, width: int) -> list[NDArray[np.bool_]]:
    """Return where the corner is, the first row, the first column, and the rest."""
    down, across = np.indices((height, width)) > 0
    return [~down & ~across, ~down & across, down & ~across, down & across]


def _solve(rows: Floats, wanted: Floats, trust: Floats) -> Floats:
    """Return weights of least weighted squares, drawn to 0 where there is little to tell."""
    weighted = rows * trust[:, None]
    square = weighted.T @ rows + _RIDGE * trust.mean() * np.eye(rows.shape[1])
    found: Floats = np.linalg.solve(square, weighted.T @ wanted)
    return found


def _rounded(weights: Floats) -> Floats:
    found: Floats = np.clip(np.rint(weights * 2**BITS), -_WIDEST, _WIDEST)
    return found
