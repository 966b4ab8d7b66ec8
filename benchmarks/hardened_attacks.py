"""Attacks on keyed releases that know how they are made, helped by oracles; plain mathematics.

A *component* is a number for every block of every picture. The attacker has several and does
not know which is brightness; an oracle takes the best one and its sign, once for all pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = [
    "block_brightness",
    "components",
    "eigenpictures",
    "known_pairs",
    "oracle",
    "within",
]

_SMOOTHEST = 12
_EIGENPICTURES, _PATTERNS = 20, 8
_STEPS = 60
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def block_brightness(images: Tensor, block: int) -> Tensor:
    """Return ``(B, h, w)`` float64 means of the blocks of ``(B, 3, H, W)`` images."""
    return torch.nn.functional.avg_pool2d(images.double().mean(1, keepdim=True), block)[:, 0]


def within(guess: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over pictures of the correlation of ``(..., B, N)`` within a picture."""
    centred = [values - values.mean(-1, keepdim=True) for values in (guess, truth)]
    lengths = [values.norm(dim=-1).clamp(min=1e-9) for values in centred]
    found: Tensor = (centred[0] * centred[1]).sum(-1) / (lengths[0] * lengths[1])
    return found.mean(-1)


def oracle(candidates: Tensor, truth: Tensor) -> float:
    """Return the best correlation within pictures of ``(K, B, h, w)`` components."""
    return float(within(candidates.flatten(2), truth.flatten(1)).abs().max())


def components(blocks: Tensor) -> dict[str, Tensor]:
    """Return what second and higher orders give, each ``(K, B, h, w)``.

    Args:
        blocks: ``(B, D, h, w)`` encrypted blocks.
    """
    blocks = blocks.double()
    count, size, rows, columns = blocks.shape
    vectors = blocks.permute(0, 2, 3, 1).reshape(-1, size)
    vectors = vectors - vectors.mean(0)
    values, axes = torch.linalg.eigh(vectors.T @ vectors / len(vectors))
    order = values.argsort(descending=True)
    order = order[values[order] > 1e-9 * values.max()]
    principal = vectors @ axes[:, order]
    white = (principal / values[order].sqrt()).view(count, rows, columns, -1)
    lag = torch.zeros(len(order), len(order), dtype=torch.float64)
    for axis in (1, 2):
        first = white.narrow(axis, 0, white.shape[axis] - 1).reshape(-1, len(order))
        second = white.narrow(axis, 1, white.shape[axis] - 1).reshape(-1, len(order))
        lag += first.T @ second + second.T @ first
    smooth = torch.linalg.eigh(lag).eigenvectors.flip(1)
    smoothest = white.reshape(-1, len(order)) @ smooth[:, :_SMOOTHEST]

    def maps(flat: Tensor) -> Tensor:
        return flat.view(count, rows, columns, -1).permute(3, 0, 1, 2)

    # "Any two positions of one picture" is a lag as well: components that differ by picture.
    means = white.mean((1, 2))
    apart = torch.linalg.eigh(means.T @ means).eigenvectors.flip(1)[:, :_SMOOTHEST]
    return {
        "norm": blocks.norm(dim=1)[None],
        "components": maps(principal),
        "lag": maps(white.reshape(-1, len(order)) @ smooth),
        "lag + ICA": maps(_independent(smoothest)),
        "within pictures": maps(white.reshape(-1, len(order)) @ apart),
    }


def eigenpictures(values: Tensor, patterns: Tensor, skips: Sequence[int]) -> Iterator[Tensor]:
    """Yield components out of what pictures have in common, wherever their values are.

    The products of all pairs of releases are all that a rotation of everything leaves. Their
    leading eigenvectors are how much each picture has of the strongest directions; natural
    thumbnails have such directions too, and theirs are known.

    Args:
        values: ``(B, E)`` releases.
        patterns: ``(P, h, w)``, strongest first.
        skips: Numbers of leading eigenvectors that are noise; the next ones are taken.

    Yields:
        ``(K, B, h, w)`` for each of ``skips``: every eigenvector with every pattern.
    """
    count, size = values.shape
    if count <= size:
        vectors = torch.linalg.eigh(values @ values.T).eigenvectors.flip(1)
    else:
        vectors = values @ torch.linalg.eigh(values.T @ values).eigenvectors.flip(1)
    for skip in skips:
        scores = vectors[:, skip : skip + _EIGENPICTURES].double()
        made = torch.einsum("bk,phw->kpbhw", scores, patterns.double()[:_PATTERNS])
        yield made.flatten(0, 1)


def known_pairs(values: Tensor, plain: Tensor, others: Tensor) -> list[Tensor]:
    """Return guesses of others' thumbnails out of known pairs, one for each ridge.

    Ridge regression from all values of a release to each block's brightness, in its dual form.

    Args:
        values: ``(K, E)`` releases whose pictures are known.
        plain: ``(K, N)`` their brightness.
        others: ``(T, E)`` releases to be read.

    Returns:
        ``(T, N)`` each; the first is the mean of the known pictures.
    """
    mean = plain.mean(0)
    inner = values @ values.T / values.shape[1]
    outer = others @ values.T / values.shape[1]
    guesses = [mean.expand(len(others), -1)]
    for ridge in _RIDGES:
        kernel = (inner + ridge * torch.eye(len(values))).double()
        weights = torch.linalg.solve(kernel, plain.double() - mean)
        guesses.append(mean + outer.double() @ weights)
    return guesses


def _independent(vectors: Tensor) -> Tensor:
    """Return the independent components of white ``(n, k)`` vectors (FastICA, tanh).

    Source:
        Hyvärinen, Fast and Robust Fixed-Point Algorithms for Independent Component Analysis,
        IEEE Trans. Neural Networks 10(3), 1999.
    """
    white = vectors / vectors.std(0)
    generator = torch.Generator().manual_seed(0)
    side = white.shape[1]
    turn = torch.linalg.qr(torch.randn(side, side, generator=generator).double()).Q
    for _ in range(_STEPS):
        found = torch.tanh(white @ turn.T)
        turn = found.T @ white / len(white) - (1 - found.square()).mean(0)[:, None] * turn
        left, _, right = torch.linalg.svd(turn, full_matrices=False)
        turn = left @ right
    found = white @ turn.T
    return torch.as_tensor(found)
