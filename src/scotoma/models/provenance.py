"""Which pixel of a picture is where, after operations that only move pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["MOVES", "Provenance", "storage_of"]

_ATEN = torch.ops.aten
MOVES = frozenset(
    {
        _ATEN.clone,
        _ATEN._to_copy,
        _ATEN.constant_pad_nd,
        _ATEN.cat,
        _ATEN.stack,
        _ATEN.flip,
        _ATEN.roll,
        _ATEN.im2col,
        _ATEN.pixel_unshuffle,
        _ATEN.pixel_shuffle,
        _ATEN.channel_shuffle,
        _ATEN.index,
        _ATEN.index_select,
        _ATEN._unsafe_view,
        _ATEN._reshape_copy,
    }
)
"""Operations whose results hold pixels of their arguments, unchanged, or zeros."""


class Provenance:
    """Follows the pixels of one picture through views and moves.

    The provenance of a tensor has its shape and holds in each place the number of the pixel there,
    counted from 1, or 0 for a zero that was put there. It is kept by storage, so that every view
    of a tensor, made by whatever operation, has its provenance without being followed.

    Args:
        image: The picture.
    """

    def __init__(self, image: Tensor) -> None:
        # The tensor beside the numbers keeps its storage from being reused.
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        numbers = torch.arange(1, image.numel() + 1, dtype=torch.float64)
        self._remember(image, numbers.view(image.shape))

    def knows(self, value: object) -> bool:
        """Whether it is a tensor of pixels."""
        return isinstance(value, Tensor) and storage_of(value) in self._kept

    def of(self, tensor: Tensor) -> Tensor:
        """Return the numbers of the pixels in a tensor that :meth:`knows` knows."""
        _, numbers = self._kept[storage_of(tensor)]
        return numbers.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())

    def move(self, func: Any, given: tuple[Any, dict[str, Any]], output: Tensor) -> None:
        """Take note that ``output`` is what ``func``, one of the moves, made of ``given``."""
        args, kwargs = tree_map(lambda leaf: self.of(leaf) if self.knows(leaf) else leaf, given)
        kwargs.pop("dtype", None)
        kwargs.pop("device", None)
        self._remember(output, func(*args, **kwargs))

    def _remember(self, tensor: Tensor, numbers: Tensor) -> None:
        places = tensor.untyped_storage().nbytes() // tensor.element_size()
        flat = torch.zeros(places, dtype=torch.float64)
        flat.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset()).copy_(numbers)
        self._kept[storage_of(tensor)] = (tensor, flat)


def storage_of(tensor: Tensor) -> int:
    """Return what tells apart the memories behind tensors that are alive."""
    return int(tensor.untyped_storage()._cdata)
