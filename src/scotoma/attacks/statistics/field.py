"""Brightness that every position has in another direction, found because it is smooth.

Let each position ``i`` have its own unknown map. Brightness is some direction ``a_i`` there:
``a_i . y_i(p) = s_i(p)``, one number for each picture ``p``. Pictures are on the whole brighter
or darker, and that shows in the products of encrypted pictures: their top eigenvectors are
such numbers ``v(p)``, pooled over all positions. What correlates with ``v`` at a position is
``a_i``. A block never votes on its own value: there are fewer pictures than directions, and it
would only hear its own echo.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scotoma.attacks.statistics.classes import centred_classes, from_classes
from scotoma.attacks.statistics.natural import brightness_along

__all__ = ["find_fields", "smooth_field"]

_LEAST, _MOST = 0.02, 0.98
_TINY = 1e-12


def find_fields(blocks: Tensor, period: tuple[int, int], block: int, *, count: int) -> Tensor:
    """Return ``(K, B, rows, columns)`` fields that are smooth and linear in each block.

    Args:
        blocks: ``(B, d, rows, columns)``, encrypted; 4 pictures or more.
        period: Blocks after which maps repeat.
        block: Side of a block, in pixels.
        count: Fields to find, at most half as many as pictures; brightness, colours and
            slopes compete.

    Returns:
        Fields in the order of how well neighbours predict them.
    """
    shape = (len(blocks), *blocks.shape[2:])
    raw = centred_classes(blocks.float(), period)
    # Blocks of strong texture must not outvote the rest, nor flat ones be blown up.
    norms = raw.norm(dim=2, keepdim=True)
    usual = norms[norms > 0].median()
    voters = raw * (usual / norms.clamp(min=usual))
    votes = _picture_scores(voters, shape[0], min(count, shape[0] // 2))
    directions = voters.mT @ votes
    read = raw @ directions - (raw * voters).sum(2, keepdim=True) * votes
    grid = from_classes(_uncorrelated(read), period, shape).transpose(0, 1)
    return torch.stack([smooth_field(one, block) for one in _ordered(grid, block)])


def smooth_field(fields: Tensor, block: int, *, from_others: bool = False) -> Tensor:
    """Return the best linear guess of a smooth field from a noisy one, a Gaussian process.

    Args:
        fields: ``(..., rows, columns)``, of like noise; how noisy is read off neighbours.
        block: Side of a block, in pixels.
        from_others: Guess each place from the other places alone.
    """
    rows, columns = fields.shape[-2:]
    likeness = [brightness_along(side, block).to(fields) for side in (rows, columns)]
    (tall, down), (wide, across) = (torch.linalg.eigh(one) for one in likeness)
    strength = torch.outer(tall.clamp(min=0), wide.clamp(min=0))
    gain = strength / (strength + _noise_ratio(fields, float(likeness[1][0, min(1, columns - 1)])))
    smooth: Tensor = down @ ((down.T @ fields @ across) * gain) @ across.T
    if not from_others:
        return smooth
    own = down.square() @ gain @ across.square().T
    guessed: Tensor = (smooth - own * fields) / (1 - own).clamp(min=_TINY)
    return guessed


def _picture_scores(voters: Tensor, pictures: int, count: int) -> Tensor:
    """Return ``(C, m, K)``: what pictures have in common over all positions, flat on each."""
    by_picture = voters.view(len(voters), pictures, -1).transpose(0, 1).flatten(1)
    alike = (by_picture @ by_picture.T).fill_diagonal_(0)
    scores: Tensor = torch.linalg.eigh(alike)[1].flip(1)[:, :count]
    tiles = voters.shape[1] // pictures
    return scores.repeat_interleave(tiles, 0).expand(len(voters), -1, -1)


def _uncorrelated(fields: Tensor) -> Tensor:
    """Return the fields ``(C, m, K)`` turned and scaled to unit covariance over all places."""
    flat = fields.flatten(0, 1).double()
    values, axes = torch.linalg.eigh(flat.T @ flat / len(flat))
    inverse = axes / values.clamp(min=_TINY * float(values[-1])).sqrt() @ axes.T
    turned: Tensor = (flat @ inverse).to(fields)
    return turned.view_as(fields)


def _ordered(grid: Tensor, block: int) -> Tensor:
    """Return ``(K, B, h, w)`` fields turned so that the first is predicted best by neighbours."""
    predicted = torch.stack([smooth_field(one, block, from_others=True) for one in grid])
    agreement = predicted.flatten(1) @ grid.flatten(1).T
    axes = torch.linalg.eigh(agreement + agreement.T)[1].flip(1)
    return torch.einsum("kj,kbhw->jbhw", axes, grid)


def _noise_ratio(fields: Tensor, likeness: float) -> float:
    """Return noise over signal variance, by how like neighbours are against how like they'd be."""
    fields = fields - fields.mean((-2, -1), keepdim=True)
    together = (fields[..., 1:] * fields[..., :-1]).mean() / fields.square().mean().clamp(min=_TINY)
    share = min(max(float(together) / likeness, _LEAST), _MOST)
    return (1 - share) / share
