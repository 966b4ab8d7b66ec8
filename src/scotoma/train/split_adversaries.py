"""Networks that rebuild pictures from latents while the bottleneck is trained against them.

They share nothing with the attackers of :mod:`scotoma.attacks.inversion`, which are trained
afresh to judge the result: an encoder that hides from one architecture alone is found out.

::

    recnet   the bottleneck's decoder mirrored, a residual block and a transposed convolution
             for each doubling: the paper's, sized to the cut
    shuffle  wide 7×7 depthwise convolutions on the latent's grid, then pixel shuffle
    dense    a linear layer over all places of the grid, so that it sees the whole picture
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.core.errors import UnknownNameError
from scotoma.models.bottleneck import ResidualBlock

__all__ = ["ADVERSARIES", "Population", "build_adversary"]

_MOST_PLACES = 1024


def build_adversary(
    name: str, latent: tuple[int, int, int], size: tuple[int, int], width: int
) -> nn.Module:
    """Return an untrained adversary; its first weights come from torch's own generator.

    Args:
        name: One of :data:`ADVERSARIES`.
        latent: ``(c, h, w)`` of what it reads.
        size: Height and width of the pictures.
        width: Channels at the latent's grid.

    Raises:
        UnknownNameError: No such adversary.
    """
    if name not in ADVERSARIES:
        raise UnknownNameError("adversary", name, ADVERSARIES)
    return ADVERSARIES[name](latent, size, width)


class Population(nn.Module):
    """Several adversaries that see the same latents.

    Args:
        names: Their architectures.
        latent: ``(c, h, w)``.
        size: Height and width of the pictures.
        width: Channels at the latent's grid.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        latent: tuple[int, int, int],
        size: tuple[int, int],
        width: int,
    ) -> None:
        super().__init__()
        self._description = (latent, size, width)
        self.names = names
        self.members = nn.ModuleList(build_adversary(name, latent, size, width) for name in names)

    def forward(self, latent: Tensor) -> list[Tensor]:
        """Return each member's guesses ``(B, 3, H, W)``, about in [0, 1]."""
        return [member(latent) for member in self.members]

    def restart(self, place: int) -> list[nn.Parameter]:
        """Give a member fresh weights, in place, and return them."""
        member = self.members[place]
        fresh = build_adversary(self.names[place], *self._description)
        device = next(member.parameters()).device
        member.load_state_dict(fresh.to(device).state_dict())
        return list(member.parameters())


class _RecNet(nn.Module):
    def __init__(self, latent: tuple[int, int, int], size: tuple[int, int], width: int) -> None:
        super().__init__()
        self.size = size
        layers: list[nn.Module] = [
            nn.Conv2d(latent[0], width, 3, 1, 1),
            nn.SiLU(),
            ResidualBlock(width),
        ]
        for _ in range(_doublings(latent, size)):
            narrower = max(16, width // 2)
            layers += [
                ResidualBlock(width),
                nn.ConvTranspose2d(width, narrower, 4, 2, 1),
                nn.SiLU(),
            ]
            width = narrower
        layers += [ResidualBlock(width), nn.Conv2d(width, 3, 3, 1, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        return _fitted(self.layers(latent) + 0.5, self.size)


class _Shuffle(nn.Module):
    def __init__(self, latent: tuple[int, int, int], size: tuple[int, int], width: int) -> None:
        super().__init__()
        self.size = size
        factor = 2 ** _doublings(latent, size)
        self.read = nn.Conv2d(latent[0], width, 1)
        self.blocks = nn.ModuleList(_Wide(width) for _ in range(3))
        self.write = nn.Conv2d(width, 3 * factor**2, 1)
        self.factor = factor

    def forward(self, latent: Tensor) -> Tensor:
        grid = self.read(latent)
        for block in self.blocks:
            grid = grid + block(grid)
        return _fitted(F.pixel_shuffle(self.write(grid), self.factor) + 0.5, self.size)


class _Wide(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(
            nn.GroupNorm(1, width),
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            nn.Conv2d(width, 2 * width, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, width, 1),
        )


class _Dense(nn.Module):
    """Mixes places by a matrix and channels by a perceptron, twice; large grids are pooled."""

    def __init__(self, latent: tuple[int, int, int], size: tuple[int, int], width: int) -> None:
        super().__init__()
        self.size = size
        shrink = 2 ** max(0, math.ceil(math.log2(latent[1] * latent[2] / _MOST_PLACES) / 2))
        self.grid = (-(-latent[1] // shrink), -(-latent[2] // shrink))
        places = self.grid[0] * self.grid[1]
        self.factor = 2 ** _doublings((latent[0], *self.grid), size)
        self.read = nn.Conv2d(latent[0] * shrink**2, width, 1)
        self.shrink = shrink
        self.places = nn.ModuleList(nn.Linear(places, places) for _ in range(2))
        self.channels = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, width),
                nn.Conv2d(width, 2 * width, 1),
                nn.GELU(),
                nn.Conv2d(2 * width, width, 1),
            )
            for _ in range(2)
        )
        self.write = nn.Conv2d(width, 3 * self.factor**2, 1)

    def forward(self, latent: Tensor) -> Tensor:
        down, across = latent.shape[-2:]
        whole = F.pad(latent, (0, -across % self.shrink, 0, -down % self.shrink))
        grid = self.read(F.pixel_unshuffle(whole, self.shrink))
        for place, channel in zip(self.places, self.channels, strict=True):
            grid = grid + place(grid.flatten(2)).view_as(grid)
            grid = grid + channel(grid)
        return _fitted(F.pixel_shuffle(self.write(grid), self.factor) + 0.5, self.size)


def _doublings(latent: tuple[int, int, int], size: tuple[int, int]) -> int:
    """Return how often the latent's grid must double to cover the picture."""
    ratio = max(size[0] / latent[1], size[1] / latent[2])
    return max(0, math.ceil(math.log2(ratio) - 1e-9))


def _fitted(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Return pictures of the wanted size, whatever the stride made of them."""
    if tuple(pictures.shape[-2:]) == size:
        return pictures
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)


ADVERSARIES: dict[str, type[nn.Module]] = {
    "dense": _Dense,
    "recnet": _RecNet,
    "shuffle": _Shuffle,
}
"""What a population may be made of."""
