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
from scotoma.ops.diffusion import gather_values, spread_values
from scotoma.protections.encrypt.maps import BlockMaps, Layout

__all__ = ["Cipher", "prepare"]

_LEAST_NOISE = 0.25  # of a release's energy, for pictures stranger than any photograph


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
    values = maps.forward.shape[2] * layout.positions
    if maps.diffusion is not None and maps.diffusion.orders.shape[1] != values:
        raise SettingsError(
            f"expected a diffusion of {values} values, got {maps.diffusion.orders.shape[1]}"
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
    """Values mix: a matrix for each class of positions, and perhaps all of a picture's values."""

    def __init__(self, maps: BlockMaps, device: torch.device | str) -> None:
        self._maps = maps
        self._device = device
        self._block = maps.block
        # What is faint beside its noise keeps more digits than float32 has for both.
        self._type = torch.float32 if maps.diffusion is None else torch.float64
        self._forward = self._ready(maps.forward)
        self._noise = None if maps.noise is None else self._ready(maps.noise)
        self._order = None if maps.order is None else maps.order.to(device)
        self._rounds: tuple[Tensor, Tensor] | None = None
        if maps.diffusion is not None:
            orders = maps.diffusion.orders.to(device)
            self._rounds = orders, self._ready(maps.diffusion.matrices)

    def encrypt(self, images: Tensor, generator: Generator | None) -> Tensor:
        if self._order is not None:
            images = move_blocks(images, self._order, self._block)
        data = map_blocks(images.to(self._type), self._forward, self._block)
        if self._noise is not None:
            data = self._with_noise(data, self._noise, generator)
        if self._rounds is not None:
            data = spread_values(data, *self._rounds)
        return data.float()

    def decrypt(self, data: Tensor) -> Tensor:
        data = data.to(self._type)
        if self._back is not None:
            data = gather_values(data, *self._back)
        images = map_blocks(data, self._inverse, self._block).float()
        if self._order is None:
            return images
        return move_blocks(images, invert_index(self._order), self._block)

    def _with_noise(self, data: Tensor, maps: Tensor, generator: Generator | None) -> Tensor:
        rows, columns = data.shape[2] // self._block, data.shape[3] // self._block
        grain = _draw_noise(len(data), (maps.shape[3], rows, columns), generator)
        noise = from_blocks(map_vectors(grain.to(data), maps), self._block)
        if self._maps.level is not None:
            noise *= _strengths(data, noise, self._maps.level)
        return data + noise

    def _ready(self, maps: Tensor) -> Tensor:
        return maps.to(self._device, self._type).contiguous()

    @cached_property
    def _inverse(self) -> Tensor:
        return self._ready(self._maps.inverse)

    @cached_property
    def _back(self) -> tuple[Tensor, Tensor] | None:
        """Orders and rotations that undo the rounds."""
        if self._maps.diffusion is None or self._rounds is None:
            return None
        return self._maps.diffusion.inverse_orders.to(self._device), self._rounds[1]


def _draw_noise(count: int, shape: tuple[int, int, int], generator: Generator | None) -> Tensor:
    """Return ``(count, *shape)`` standard normal values, drawn picture by picture."""
    if generator is None:
        raise SettingsError("expected a generator for the scheme's fresh noise, got none")
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(count)])


def _strengths(data: Tensor, noise: Tensor, level: float) -> Tensor:
    """Return ``(B, 1, 1, 1)``: by what to multiply each picture's noise to reach the level."""
    whole = level * data[0].numel()
    # Picture by picture: sums of another size round otherwise.
    there = torch.stack([part.double().square().sum() for part in data])
    drawn = torch.stack([part.double().square().sum() for part in noise])
    missing = (whole - there).clamp(min=_LEAST_NOISE * whole)
    return (missing / drawn).sqrt().to(data).view(-1, 1, 1, 1)


def _permutation_of(maps: BlockMaps) -> Tensor | None:
    """Return ``(P_h, P_w, n)`` indices where every map only moves values, else None."""
    down, across, rows, columns = maps.forward.shape
    # One matrix tells nearly always, and spares a look at hundreds of them.
    if maps.noise is not None or maps.diffusion is not None or rows != columns:
        return None
    if int(torch.count_nonzero(maps.forward[0, 0])) != rows:
        return None
    sources = maps.forward.argmax(-1)
    ones = maps.forward.gather(-1, sources[..., None]) == 1
    lone = int(torch.count_nonzero(maps.forward)) == down * across * rows
    once = (sources.sort(-1).values == torch.arange(rows)).all()
    return sources if lone and bool(ones.all() & once) else None
