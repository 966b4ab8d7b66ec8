"""The layer that reads encrypted blocks in the place of a convolution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.core.errors import ImageError, ModelError
from scotoma.ops.diffusion import gather_values

__all__ = ["BlockStem", "BlockStemSettings"]


@dataclass(frozen=True)
class BlockStemSettings:
    """The geometry of a :class:`BlockStem`; public, holds nothing of a key.

    Args:
        block: Side ``M``.
        release_size: ``(C', H', W')`` that it reads.
        features: Channels ``D`` that it makes.
        output: Rows and columns that it makes.
        share: Rows and columns of the output that belong to one block.
        ranges: First and last row, and column, that one block's answer has; relative to its share.
        margin: Zeros around the release that the network adds and that are taken off again: top,
            bottom, left, right.
        cell: Side of the cells that the network has cut the release into, in an order of its
            own; 0 if it has not.
        period: Rows and columns of blocks after which the maps repeat.
        has_bias: Whether there is a bias.
        rounds: Rounds by which the release's values were spread; they are undone first.
        group: Values that one round mixes; 0 without rounds.

    Raises:
        ModelError: Numbers of which no stem consists; they may come from anyone's file.
    """

    block: int
    release_size: tuple[int, int, int]
    features: int
    output: tuple[int, int]
    share: tuple[int, int]
    ranges: tuple[tuple[int, int], tuple[int, int]]
    margin: tuple[int, int, int, int] = (0, 0, 0, 0)
    cell: int = 0
    period: tuple[int, int] = (1, 1)
    has_bias: bool = True
    rounds: int = 0
    group: int = 0

    def __post_init__(self) -> None:
        try:
            fits = self._is_whole() and all(map(self._fits, (0, 1)))
        except (TypeError, IndexError) as error:
            raise ModelError(
                f"expected whole numbers as the geometry of a block stem, got {self}; "
                "adapt the model again"
            ) from error
        if not fits:
            raise ModelError(
                f"expected the geometry of a block stem, got {self}; adapt the model again"
            )

    def _is_whole(self) -> bool:
        """Whether there are as many blocks, features and cells as there can be."""
        parts = (self.block, *self.release_size, self.features, *self.share, *self.period)
        return (
            len(self.release_size) == 3
            and min(*parts, *self.output) >= 1
            and min(*self.margin, self.cell, self.rounds, self.group) >= 0
            and (self.rounds > 0) == (self.group > 0)
            and (not self.rounds or math.prod(self.release_size) % self.group == 0)
        )

    def _fits(self, axis: int) -> bool:
        """Whether blocks, their shares and their answers cover the output, and not much more."""
        side, share, output = self.release_size[1 + axis], self.share[axis], self.output[axis]
        first, last = self.ranges[axis]
        reached = (side // self.block - 1) * share + last
        return (
            side % self.block == 0
            and self.block % share == 0
            and first <= 0
            and reached >= output - 1
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BlockStemSettings:
        """Read what :meth:`to_config` made, from JSON too.

        Raises:
            ModelError: A field is missing, unknown or of the wrong type.
        """
        try:
            return cls(**{name: _tuples(value) for name, value in config.items()})
        except TypeError as error:
            raise ModelError(f"expected the settings of a block stem, got: {error}") from error

    def to_config(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


class BlockStem(nn.Module):
    """A convolution of the plain picture, computed from its encrypted blocks.

    ::

        release (B, C', H', W')
          │ gathering             only with rounds: values go back to their blocks
          │ space to depth        each block a column of C'·M·M values
          │ alignment             only with several maps: all blocks go over to the first one's
          │ transposed conv       each block's answer, laid over its neighbours' answers
          │ crop                  to the plain convolution's output
        features (B, D, h, w)

    Each block is multiplied once by a matrix as wide as its own share of the output plus the few
    rows and columns of its neighbours' shares that it reaches. A convolution over blocks computes
    the same with zeros for most of what the neighbours do not reach: 4.8 times the work for the
    7×7/2 stem of ResNet and ``M`` = 16.

    Args:
        settings: The geometry. The weight, ``(C'*M*M, rows, columns, D)``, is zeros until it is
            set or loaded.
    """

    def __init__(self, settings: BlockStemSettings) -> None:
        super().__init__()
        self.settings = settings
        depth = settings.release_size[0] * settings.block**2
        rows, columns = (last - first + 1 for first, last in settings.ranges)
        self.weight = nn.Parameter(torch.zeros(depth, rows, columns, settings.features))
        self.bias = nn.Parameter(torch.zeros(settings.features)) if settings.has_bias else None
        cells = settings.release_size[0] * settings.cell**2
        count = settings.period[0] * settings.period[1]
        self.places: Tensor | None
        self.alignment: Tensor | None
        self.orders: Tensor | None
        self.matrices: Tensor | None
        self.register_buffer("places", torch.zeros(cells, dtype=torch.int64) if cells else None)
        self.register_buffer("alignment", torch.zeros(count, depth, depth) if count > 1 else None)
        rounds, group = settings.rounds, settings.group
        orders = (rounds, math.prod(settings.release_size))
        self.register_buffer("orders", torch.zeros(orders, dtype=torch.int32) if rounds else None)
        self.register_buffer("matrices", torch.zeros(rounds, group, group) if rounds else None)

    def forward(self, release: Tensor) -> Tensor:
        """Return the features ``(B, D, h, w)`` of a release ``(B, C', H', W')``.

        Raises:
            ImageError: A release of another size; the stem is made for one.
        """
        settings = self.settings
        release = self._as_sent(release)
        if self.orders is not None and self.matrices is not None:
            release = gather_values(release, self.orders, self.matrices)
        blocks = F.pixel_unshuffle(release, settings.block)
        if self.alignment is not None:
            blocks = _multiply_by_place(blocks, self.alignment, settings.period)
        # Channels last, as the weight is kept: up to twice as fast, and so is what comes after.
        blocks = blocks.contiguous(memory_format=torch.channels_last)
        weight = self.weight.permute(0, 3, 1, 2)
        answers = F.conv_transpose2d(blocks, weight, self.bias, stride=settings.share)
        top, left = (-first for first, _ in settings.ranges)
        rows, columns = settings.output
        return answers[:, :, top : top + rows, left : left + columns]

    def extra_repr(self) -> str:
        """Name the geometry only."""
        settings = self.settings
        return f"block={settings.block}, release={settings.release_size}, output={settings.output}"

    def _as_sent(self, received: Tensor) -> Tensor:
        """Undo what the network has done to the release on its way here, and check its size."""
        settings = self.settings
        channels, height, width = settings.release_size
        top, bottom, left, right = settings.margin
        cell = max(settings.cell, 1)
        expected = (
            channels * cell**2,
            (height + top + bottom) // cell,
            (width + left + right) // cell,
        )
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not tracing and tuple(received.shape[1:]) != expected:
            raise ImageError(
                f"expected a release (B, {channels}, {height}, {width}) made for blocks of "
                f"{settings.block}, got one that arrives as {tuple(received.shape)}; adapt the "
                "network for that size"
            )
        if self.places is not None:
            received = F.pixel_shuffle(received[:, self.places], cell)
        if any(settings.margin):
            received = received[:, :, top : top + height, left : left + width]
        return received


def _multiply_by_place(blocks: Tensor, maps: Tensor, period: tuple[int, int]) -> Tensor:
    """Multiply each block by its own map, all blocks of one map in one product.

    Args:
        blocks: ``(B, K, h, w)``.
        maps: ``(P_h * P_w, K, K)``; block ``(i, j)`` goes with ``[i % P_h * P_w + j % P_w]``.
        period: ``(P_h, P_w)``.
    """
    count, size, height, width = blocks.shape
    rows, columns = period
    whole = F.pad(blocks, (0, -width % columns, 0, -height % rows))
    down, across = -(-height // rows), -(-width // columns)
    by_place = whole.reshape(count, size, down, rows, across, columns).permute(3, 5, 1, 0, 2, 4)
    mixed = maps @ by_place.reshape(rows * columns, size, count * down * across)
    back = mixed.view(rows, columns, size, count, down, across).permute(3, 2, 4, 0, 5, 1)
    return back.reshape(count, size, down * rows, across * columns)[:, :, :height, :width]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
