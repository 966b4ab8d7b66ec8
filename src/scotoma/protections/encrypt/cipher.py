"""Block maps made ready for pictures: products where values mix, one gather where they move."""

from __future__ import annotations

from functools import cached_property
from typing import NoReturn, Protocol, SupportsIndex

import torch
from torch import Generator, Tensor

from scotoma.core.errors import SecretError, SettingsError
from scotoma.ops.blocks import (
    from_blocks,
    gather_entries,
    invert_index,
    map_blocks,
    map_vectors,
    move_blocks,
    picture_index,
)
from scotoma.protections.encrypt.maps import BlockMaps, Layout

__all__ = ["Cipher", "prepare"]


class Cipher(Protocol):
    """What block maps do to padded pictures of one layout, and how it is undone."""

    def encrypt(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Return ``(B, C', H, W)`` of ``(B, C, H, W)``, sides whole blocks."""

    def decrypt(self, data: Tensor) -> Tensor:
        """Return the ``(B, C, H, W)`` that became ``data``, to float precision."""


def prepare(maps: BlockMaps, layout: Layout, device: torch.device | str = "cpu") -> Cipher:
    """Return the quickest form of block maps for pictures of one layout on one device.

    Raises:
        SettingsError: The maps are of other channels or another number of positions.
    """
    size = layout.channels * maps.block**2
    if maps.forward.shape[3] != size:
        raise SettingsError(
            f"expected maps of blocks of {size} values, got {maps.forward.shape[3]}"
        )
    if maps.order is not None and len(maps.order) != layout.positions:
        raise SettingsError(
            f"expected an order of {layout.positions} blocks, got {len(maps.order)}"
        )
    sources = _permutation_of(maps)
    if sources is None:
        return _Products(maps, device)
    grid = (layout.rows, layout.columns)
    return _Moves(picture_index(sources, grid, maps.block, maps.order), device)


class _Stays:
    """Refuses to be copied or pickled: what it holds is as secret as the key."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise SecretError(
            "expected a prepared cipher to stay where it is, got an attempt to copy or pickle it; "
            "prepare it again from the key"
        )


class _Moves(_Stays):
    """Values change places within a picture and nothing else: one gather each way."""

    def __init__(self, index: Tensor, device: torch.device | str) -> None:
        # Half the memory to read, where it suffices.
        narrow = torch.int32 if len(index) < 2**31 else torch.int64
        self._index = index.to(device, narrow)
        self._inverse = invert_index(index).to(device, narrow)

    def encrypt(self, images: Tensor, generator: Generator | None) -> Tensor:  # noqa: ARG002
        return gather_entries(images, self._index)

    def decrypt(self, data: Tensor) -> Tensor:
        return gather_entries(data, self._inverse)


class _Products(_Stays):
    """Values mix: a matrix for each class of positions."""

    def __init__(self, maps: BlockMaps, device: torch.device | str) -> None:
        self._maps = maps
        self._device = device
        self._block = maps.block
        self._forward = maps.forward.float().contiguous().to(device)
        self._noise = None if maps.noise is None else maps.noise.float().contiguous().to(device)
        self._order = None if maps.order is None else maps.order.to(device)

    def encrypt(self, images: Tensor, generator: Generator | None) -> Tensor:
        if self._order is not None:
            images = move_blocks(images, self._order, self._block)
        data = map_blocks(images, self._forward, self._block)
        if self._noise is None:
            return data
        rows, columns = images.shape[2] // self._block, images.shape[3] // self._block
        grain = _draw_noise(len(images), (self._noise.shape[3], rows, columns), generator)
        noise = map_vectors(grain.to(images.device), self._noise)
        return data + from_blocks(noise, self._block)

    def decrypt(self, data: Tensor) -> Tensor:
        images = map_blocks(data, self._inverse, self._block)
        if self._order is None:
            return images
        return move_blocks(images, invert_index(self._order), self._block)

    @cached_property
    def _inverse(self) -> Tensor:
        return self._maps.inverse.float().contiguous().to(self._device)


def _draw_noise(count: int, shape: tuple[int, int, int], generator: Generator | None) -> Tensor:
    """Return ``(count, *shape)`` standard normal values, drawn picture by picture."""
    if generator is None:
        raise SettingsError("expected a generator for the scheme's fresh noise, got none")
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(count)])


def _permutation_of(maps: BlockMaps) -> Tensor | None:
    """Return ``(P_h, P_w, n)`` indices where every map only moves values, else None."""
    down, across, rows, columns = maps.forward.shape
    # One matrix tells nearly always, and spares a look at hundreds of them.
    if maps.noise is not None or rows != columns:
        return None
    if int(torch.count_nonzero(maps.forward[0, 0])) != rows:
        return None
    sources = maps.forward.argmax(-1)
    ones = maps.forward.gather(-1, sources[..., None]) == 1
    lone = int(torch.count_nonzero(maps.forward)) == down * across * rows
    once = (sources.sort(-1).values == torch.arange(rows)).all()
    return sources if lone and bool(ones.all() & once) else None
