"""Spread every value of a picture over all its others, and gather it again.

A round moves all values of a picture by one permutation, cuts them into groups and multiplies
every group with one orthogonal matrix. After two rounds each value holds a little of ``n * n``
values from all over the picture, ``n`` being the size of a group; what was near is near no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, SupportsIndex

import torch
from torch import Tensor

from scotoma.core.errors import SecretError, SettingsError

__all__ = ["LARGEST_GROUP", "Diffusion", "gather_values", "group_size", "spread_values"]

LARGEST_GROUP = 256
"""Values that one round mixes at most: its cost grows with them, the gain hardly does."""

_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False, repr=False)
class Diffusion:
    """Rounds of a permutation of all values and a product of every group of them.

    Args:
        orders: ``(R, E)`` int64: in round ``r`` value ``e`` is what was value ``orders[r, e]``.
        matrices: ``(R, n, n)`` float64, orthogonal; ``n`` divides ``E``. Then each run of ``n``
            values is multiplied with ``matrices[r]``.

    Raises:
        SettingsError: Shapes or types that do not fit, or values that would be lost.

    Security:
        All of it is secret. ``repr`` shows shapes only; copying and pickling refuse.
    """

    orders: Tensor
    matrices: Tensor

    def __post_init__(self) -> None:
        rounds, size = self.orders.shape
        side = self.matrices.shape[-1]
        if self.matrices.shape != (rounds, side, side) or size % side:
            raise SettingsError(
                f"expected orders (R, E) and matrices (R, n, n), n a divisor of E, got "
                f"{tuple(self.orders.shape)} and {tuple(self.matrices.shape)}"
            )
        if self.matrices.dtype != torch.float64 or self.orders.dtype != torch.int64:
            raise SettingsError(
                f"expected orders in int64 and matrices in float64, got {self.orders.dtype} "
                f"and {self.matrices.dtype}"
            )
        if not bool((self.orders.sort(1).values == torch.arange(size)).all()):
            raise SettingsError("expected each order as a permutation of all values")
        error = (self.matrices @ self.matrices.mT - torch.eye(side, dtype=torch.float64)).abs()
        if not bool(error.amax() <= _TOLERANCE):
            raise SettingsError(
                f"expected orthogonal matrices within {_TOLERANCE}, "
                f"got an error of {float(error.amax()):.1e}"
            )

    @property
    def inverse_orders(self) -> Tensor:
        """``(R, E)`` int64: where value ``e`` went in each round."""
        return self.orders.argsort(1)

    def __repr__(self) -> str:
        return f"Diffusion(orders={tuple(self.orders.shape)}, group={self.matrices.shape[-1]})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise SecretError(
            "expected a cipher's diffusion to stay where it is, got an attempt to copy or pickle "
            "it; derive it again from the key"
        )


def group_size(size: int) -> int:
    """Return the largest divisor of ``size`` up to :data:`LARGEST_GROUP`."""
    return next(side for side in range(min(size, LARGEST_GROUP), 0, -1) if size % side == 0)


def spread_values(images: Tensor, orders: Tensor, matrices: Tensor) -> Tensor:
    """Return images after all rounds of a :class:`Diffusion`.

    Args:
        images: ``(B, C, H, W)``.
        orders: ``(R, E)``, ``E = C*H*W``.
        matrices: ``(R, n, n)`` of the images' type.

    Returns:
        ``(B, C, H, W)``; the same bits however pictures are batched.
    """
    spread = torch.empty_like(images)
    # One by one: how a product rounds depends on its size.
    for place, image in enumerate(images):
        values = image.reshape(-1)
        for order, matrix in zip(orders, matrices, strict=True):
            groups = values.index_select(0, order).view(-1, len(matrix))
            values = (groups @ matrix.T).view(-1)
        spread[place] = values.view(image.shape)
    return spread


def gather_values(images: Tensor, inverse_orders: Tensor, matrices: Tensor) -> Tensor:
    """Undo :func:`spread_values`.

    Args:
        images: ``(B, C, H, W)``.
        inverse_orders: ``(R, E)``, of :attr:`Diffusion.inverse_orders`.
        matrices: ``(R, n, n)`` as for :func:`spread_values`.
    """
    values = images.flatten(1)
    count, size = values.shape
    for place in range(len(matrices) - 1, -1, -1):
        matrix = matrices[place]
        groups = values.reshape(-1, matrix.shape[-1]) @ matrix
        values = groups.view(count, size).index_select(1, inverse_orders[place])
    return values.view(images.shape)
