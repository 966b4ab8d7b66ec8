"""Networks from releases, or features of a split network, to pictures.

::

    release (B, C, h, w) ── cells ──► whiten ──► mix (1×1, per position where the key is)
        ──► a learned order of cells, where the key moves them
        ──► trunk over the grid of cells: convolutions, or attention
        ──► 3*cell*cell values a cell  (+ what one linear layer makes of the cell)
        ──► picture, its seams smoothed by two 3×3 convolutions, + mean picture

The last layer begins at zero: before any training the guess is the mean picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.attacks.inversion.geometry import Geometry
from scotoma.core.errors import UnknownNameError
from scotoma.ops.blocks import from_blocks, pad_to_blocks, to_blocks

__all__ = ["ARCHITECTURES", "Inverter", "build_inverter", "choose_width", "invariant_facts"]

ARCHITECTURES = ("conv", "transformer")
"""What the trunk may be."""

_FLOOR = 1e-6  # of the largest variance: below it is rounding
_UNSEEN = 0.1
_FAINT = 0.1  # what a key has turned is mostly noise beside what it leaves alone
_HEAD = 32
_SEAM = 24
_MOST_PLACED = 1024  # cells: a matrix of a million weights
_QUANTILES = 8
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


def choose_width(geometry: Geometry) -> int:
    """Return a trunk's channels for cells of so many numbers: 64 to 384, whole heads."""
    return _HEAD * max(2, min(12, -(-2 * geometry.values // (3 * _HEAD)) + 2))


def build_inverter(
    architecture: str,
    geometry: Geometry,
    sample: Tensor,
    base: Tensor | None,
    *,
    width: int = 0,
    depth: int = 4,
    other_key: bool = False,
) -> Inverter:
    """Return an untrained network; its first weights come from torch's own generator.

    Args:
        architecture: One of :data:`ARCHITECTURES`.
        geometry: Of what it reads and rebuilds.
        sample: ``(N, C, h, w)`` of what it will read, to scale by.
        base: ``(3, H, W)`` that the guess starts from; None for the input's first three
            channels, where that is a picture of the same size.
        width: Channels of the trunk; 0 chooses by :func:`choose_width`.
        depth: Residual blocks of the trunk.
        other_key: Whether releases will be under keys that training never saw. Then what no
            rotation or permutation of a cell's values changes is computed and read, too.

    Raises:
        UnknownNameError: No such architecture.
    """
    if architecture not in ARCHITECTURES:
        raise UnknownNameError("architecture", architecture, ARCHITECTURES)
    width = width or choose_width(geometry)
    trunk: nn.Module
    if architecture == "conv":
        trunk = nn.Sequential(*(_Convolution(width) for _ in range(depth)))
    else:
        trunk = _Attention(width, depth)
    if geometry.moved and geometry.rows * geometry.columns <= _MOST_PLACED:
        trunk = nn.Sequential(_Placement(geometry.rows * geometry.columns), trunk)
    reader = _Reader(geometry, sample, invariants=other_key)
    # A step of the convolutions takes 1.6 times as long in torch's default layout (on a CPU).
    inverter = Inverter(geometry, reader, trunk, width, base)
    return inverter.to(memory_format=torch.channels_last)


class Inverter(nn.Module):
    """Guesses pictures ``(B, 3, H, W)``, about in [0, 1], from ``(B, C, h, w)``."""

    base: Tensor | None

    def __init__(
        self, geometry: Geometry, reader: _Reader, trunk: nn.Module, width: int, base: Tensor | None
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.reader = reader
        self.mix = _Mixing(reader.values, width, geometry.period)
        self.position = nn.Parameter(torch.zeros(1, width, geometry.rows, geometry.columns))
        self.trunk = trunk
        self.norm = _ChannelNorm(width)
        self.head = nn.Conv2d(width, 3 * geometry.cell**2, 1)
        self.linear = _Mixing(reader.values, 3 * geometry.cell**2, geometry.period)
        self.seams = nn.Sequential(
            nn.Conv2d(3, _SEAM, 3, padding=1), nn.GELU(), nn.Conv2d(_SEAM, 3, 3, padding=1)
        )
        for layer in (self.head, self.linear, self.seams[2]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self.register_buffer("base", base)

    def forward(self, data: Tensor) -> Tensor:
        """Return the guesses; values may lie somewhat outside [0, 1]."""
        cells = self.reader(data)
        grid = self.norm(self.trunk(self.mix(cells) + self.position))
        rough = from_blocks(self.head(grid) + self.linear(cells), self.geometry.cell)
        rough = rough[..., : self.geometry.height, : self.geometry.width]
        base = data[:, :3] if self.base is None else self.base
        guess: Tensor = base + rough + self.seams(rough)
        return guess


class _Reader(nn.Module):
    """Cells of a release as vectors of like scale, with what keys leave alone beside them."""

    mean: Tensor
    scale: Tensor
    fact_mean: Tensor
    fact_scale: Tensor

    def __init__(self, geometry: Geometry, sample: Tensor, *, invariants: bool) -> None:
        super().__init__()
        self.side = geometry.side
        self.invariants = invariants
        cells = self._cells(sample)
        vectors = cells.transpose(0, 1).flatten(1).double()
        mean = vectors.mean(1)
        # One key: the common rotation is undone up to signs, and faint directions count as
        # much as strong ones. Many keys have no common directions.
        one_map = not invariants and geometry.period == (1, 1)
        spread = _FAINT if invariants else 1.0
        scale = _whitening(vectors - mean[:, None]) if one_map else _scaling(vectors, spread)
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", scale.float())
        self.values = geometry.values
        if invariants:
            facts = invariant_facts(cells.float()).transpose(0, 1).flatten(1)
            self.register_buffer("fact_mean", facts.mean(1)[:, None, None])
            self.register_buffer("fact_scale", facts.std(1)[:, None, None].clamp(min=1e-6))
            self.values += len(facts)

    def forward(self, data: Tensor) -> Tensor:
        cells = self._cells(data)
        scaled = F.conv2d(cells - self.mean[:, None, None], self.scale[:, :, None, None])
        if not self.invariants:
            return scaled
        facts = (invariant_facts(cells) - self.fact_mean) / self.fact_scale
        return torch.cat([scaled, facts], 1)

    def _cells(self, data: Tensor) -> Tensor:
        return to_blocks(pad_to_blocks(data, self.side), self.side)


def _whitening(vectors: Tensor) -> Tensor:
    """Return the matrix that makes centred ``(n, N)`` vectors uncorrelated, of variance one."""
    size, count = vectors.shape
    variances, directions = torch.linalg.eigh(vectors @ vectors.T / count)
    # Directions that few vectors leave empty are not faint, only unseen.
    unseen = min(1.0, _UNSEEN * size / count) * float(variances.mean())
    floor = max(1e-12, float(variances[-1]) * _FLOOR, unseen)
    whitening: Tensor = directions.T / variances.clamp(min=floor).sqrt()[:, None]
    return whitening


def _scaling(vectors: Tensor, spread: float) -> Tensor:
    return torch.eye(len(vectors)).double() * spread / vectors.std().clamp(min=1e-6)


def invariant_facts(cells: Tensor) -> Tensor:
    """Return what rotations or permutations of all cells alike leave as it is.

    Args:
        cells: ``(B, n, rows, columns)``.

    Returns:
        ``(B, F, rows, columns)``: length, mean, quantiles; inner product and angle with each
        of four neighbours.
    """
    values = cells.shape[1]
    power = cells.square().mean(1, keepdim=True)
    length = power.clamp(min=1e-12).sqrt()
    ranks = torch.linspace(0, values - 1, min(_QUANTILES, values)).long()
    quantiles = cells.sort(1).values[:, ranks.to(cells.device)]
    products = [(cells * _shifted(cells, shift)).mean(1, keepdim=True) for shift in _SHIFTS]
    angles = [
        product / (length * _shifted(length, shift))
        for product, shift in zip(products, _SHIFTS, strict=True)
    ]
    return torch.cat(
        [length, length.log(), cells.mean(1, keepdim=True), quantiles, *products, *angles], 1
    )


def _shifted(cells: Tensor, shift: tuple[int, int]) -> Tensor:
    """Return every cell's neighbour; at the border the cell itself."""
    down, across = shift
    framed = F.pad(cells, (1, 1, 1, 1), mode="replicate")
    rows, columns = cells.shape[-2:]
    return framed[..., 1 + down : 1 + down + rows, 1 + across : 1 + across + columns]


class _Mixing(nn.Module):
    """A linear layer on each cell, with weights of its own for each place of the period."""

    def __init__(self, size_in: int, size_out: int, period: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*period, size_out, size_in))
        self.bias = nn.Parameter(torch.zeros(size_out, 1, 1))
        nn.init.normal_(self.weight, std=size_in**-0.5)

    def forward(self, cells: Tensor) -> Tensor:
        down, across, size_out, size_in = self.weight.shape
        count, _, height, width = cells.shape
        if (down, across) == (1, 1):
            return F.conv2d(cells, self.weight[0, 0, :, :, None, None]) + self.bias
        whole = F.pad(cells, (0, -width % across, 0, -height % down))
        rows, columns = whole.shape[2] // down, whole.shape[3] // across
        parts = whole.view(count, size_in, rows, down, columns, across)
        classes = parts.permute(3, 5, 1, 0, 2, 4).reshape(down * across, size_in, -1)
        mixed = torch.bmm(self.weight.flatten(0, 1), classes)
        mixed = mixed.view(down, across, size_out, count, rows, columns)
        whole = mixed.permute(3, 2, 4, 0, 5, 1).reshape(count, size_out, rows * down, -1)
        return whole[..., :height, :width] + self.bias


class _Placement(nn.Module):
    """Adds to each cell a learned mixture of all cells, the same for every channel."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(cells, cells) * cells**-0.5)

    def forward(self, grid: Tensor) -> Tensor:
        return grid + (grid.flatten(2) @ self.weight.T).view_as(grid)


class _ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of ``(B, C, rows, columns)``."""

    def forward(self, grid: Tensor) -> Tensor:
        return super().forward(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Convolution(nn.Module):
    """Depthwise 5×5, then a perceptron at each cell; added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = _ChannelNorm(width)
        self.perceptron = _perceptron_grid(width)

    def forward(self, grid: Tensor) -> Tensor:
        update: Tensor = self.perceptron(self.norm(self.spatial(grid)))
        return grid + update


def _perceptron_grid(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))


class _Attention(nn.Module):
    """Pre-norm transformer blocks over all cells as tokens."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_TokenBlock(width) for _ in range(depth))

    def forward(self, grid: Tensor) -> Tensor:
        tokens = grid.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.transpose(1, 2).reshape(grid.shape)


class _TokenBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // _HEAD
        self.attention_norm = nn.LayerNorm(width)
        self.queries = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, width = tokens.shape
        mixed = self.queries(self.attention_norm(tokens))
        query, key, value = mixed.view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.project(read.transpose(1, 2).reshape(count, length, width))
        update: Tensor = self.perceptron(tokens)
        return tokens + update
