"""Which block went where: recovered from pictures whose releases are known."""

from __future__ import annotations

import torch
from torch import Tensor

from scotoma.attacks.algebra.linear import fit_rotation

__all__ = ["match_blocks"]

_ROUNDS = 3


def match_blocks(encrypted: Tensor, plain: Tensor) -> Tensor:
    """Return the order in which blocks were moved, if a rotation was all that else happened.

    A rotation keeps lengths, so blocks are first paired by their lengths in all pictures; the
    rotation that fits the pairs best then pairs them anew.

    Args:
        encrypted: ``(N, d, rows, columns)``.
        plain: Likewise.

    Returns:
        ``(rows * columns,)`` int64: the encrypted block ``n`` is the plain block ``order[n]``.

    Source:
        Besl, McKay, A Method for Registration of 3-D Shapes (ICP), PAMI 1992; Kuhn's assignment.
    """
    there, here = encrypted.flatten(2), plain.flatten(2)
    order = _assign(there.norm(dim=1), here.norm(dim=1))
    for _ in range(_ROUNDS):
        known, wanted = (part.permute(0, 2, 1).flatten(0, 1) for part in (there, here[:, :, order]))
        turned = torch.einsum("ndk,de->nek", there, fit_rotation(known[None], wanted[None])[0])
        order = _assign(turned.flatten(0, 1), here.flatten(0, 1))
    return order


def _assign(first: Tensor, second: Tensor) -> Tensor:
    """Return which column of ``second`` each column of ``first`` is nearest to, one to one."""
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(first.T, second.T, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])
