"""Patches to tokens by a small network inside each patch, and by looking for its neighbours.

::

    each patch (3, p, p)       or the whole mixed release (3, H/2, W/2)
      │ Conv 3×3, BN, GELU
      │ Conv 3×3 stride 2, BN, GELU, until a patch's side is 2
      │ linear, patch by patch
    token (D,) ── NeighbourMatching: borders that continue each other ──► token (D,)

Where patches may be shuffled, the network sees one at a time, so where a patch lies changes
nothing about its token. Matching compares every patch with every other, whatever their order:
permuted patches give permuted tokens. Mixing keeps the order of patches, so there the network
may look across their borders; what it sees is the release, which no order of sub-patches changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from scotoma.core.errors import ImageError, SettingsError
from scotoma.ops.blocks import mix_patches

__all__ = ["NeighbourMatching", "PatchNetworkEmbed"]

_LEAST_COST = 0.02  # of a squared difference of normalized pixels; flat patches match all others


class NeighbourMatching(nn.Module):
    """Let each token read the tokens of patches whose borders continue its own patch's.

    For each of four directions, every patch's border is extrapolated by half a pixel from its
    two outermost lines, and compared with the opposite border of every other patch. A softmax
    over what the comparisons cost, relative to the best alternatives of both patches, says
    which patch lies there; one more entry, learned, says none does: the picture's edge.

    Args:
        dim: Width of a token.
        rounds: How often tokens read their neighbours'; each round reaches one patch further.

    Security:
        What it finds out is what a jigsaw solver finds out. That it helps is a measure of how
        little shuffling hides.

    Differences from the paper:
        The paper has nothing of the kind.
    """

    def __init__(self, dim: int, rounds: int) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.zeros(()))
        self.outside = nn.Parameter(torch.tensor(-1.0))
        self.edges = nn.Parameter(torch.zeros(4, 1, dim))
        nn.init.trunc_normal_(self.edges, std=0.02)
        self.readers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(5 * dim),
                nn.Linear(5 * dim, 2 * dim),
                nn.GELU(),
                nn.Linear(2 * dim, dim),
            )
            for _ in range(rounds)
        )

    def forward(self, patches: Tensor, tokens: Tensor) -> Tensor:
        """Return ``(B, N, D)`` tokens of ``(B, N, C, p, p)`` patches that know their neighbours."""
        beliefs = [belief.to(tokens.dtype) for belief in self._match(patches.float())]
        for reader in self.readers:
            found = [tokens]
            for belief, edge in zip(beliefs, self.edges, strict=True):
                beyond = edge.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
                found.append(belief @ torch.cat([tokens, beyond], 1))
            tokens = tokens + reader(torch.cat(found, -1))
        return tokens

    def _match(self, patches: Tensor) -> tuple[Tensor, ...]:
        """Return four ``(B, N, N + 1)``: to the right, to the left, below and above each patch."""
        left = _border(patches[..., :, 0], patches[..., :, 1])
        right = _border(patches[..., :, -1], patches[..., :, -2])
        top = _border(patches[..., 0, :], patches[..., 1, :])
        bottom = _border(patches[..., -1, :], patches[..., -2, :])
        pairs = ((right, left), (left, right), (bottom, top), (top, bottom))
        return tuple(self._believe(ours, theirs) for ours, theirs in pairs)

    def _believe(self, ours: Tensor, theirs: Tensor) -> Tensor:
        cost = torch.cdist(ours, theirs).square() / ours.shape[-1]
        own = torch.eye(cost.shape[-1], dtype=torch.bool, device=cost.device)
        cost = cost.masked_fill(own, 1e4)
        best = (cost.amin(2, keepdim=True) * cost.amin(1, keepdim=True)).sqrt()
        logits = -cost / (best + _LEAST_COST) * self.sharpness.exp()
        outside = self.outside.expand(*logits.shape[:2], 1)
        return torch.cat([logits, outside], 2).softmax(2)


class PatchNetworkEmbed(PatchEmbed):
    """Embed each patch by a convolutional network that sees this patch alone, or the release.

    Args:
        img_size: Sides of the plain picture, in pixels.
        patch_size: Side ``p`` of a patch of the plain picture.
        in_chans: Colour channels.
        embed_dim: Width of a token.
        width: Channels of the first convolution; each later one doubles them.
        mixed: Read mixed releases, across the borders of patches: patches are averaged to half
            their sides first, unless the picture comes so.
        trunk: Residual blocks of two convolutions after the first; 0 for none.
        rounds: Rounds of :class:`NeighbourMatching`; 0 for none.
        **options: As :class:`timm.layers.PatchEmbed` takes them.

    Raises:
        SettingsError: Patches too small for borders of two lines, or that cannot be mixed.
    """

    def __init__(
        self,
        img_size: Any = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        *,
        width: int = 32,
        mixed: bool = False,
        trunk: int = 0,
        rounds: int = 0,
        **options: Any,
    ) -> None:
        side = patch_size // 2 if mixed else patch_size
        if not side >= 2:
            raise SettingsError(
                f"expected patches of at least 2×2 pixels{' once mixed' if mixed else ''}, "
                f"got a patch size of {patch_size}"
            )
        if mixed and patch_size & (patch_size - 1):
            raise SettingsError(
                "expected a patch size of 4, 8, 16, ... so that a network over the whole release "
                f"keeps to its patches, got {patch_size}"
            )
        super().__init__(img_size, patch_size, in_chans, embed_dim, **options)
        del self.proj
        self.mixed = mixed
        self.side = side
        layers = _convolution(in_chans, width, 1)
        layers += [_ResidualBlock(width) for _ in range(trunk)]
        while side > 2:
            layers += _convolution(width, 2 * width, 2)
            width, side = 2 * width, -(-side // 2)
        self.convolutions = nn.Sequential(*layers)
        self.last_side = side
        self.out = nn.Linear(width * side**2, embed_dim)
        self.matching = NeighbourMatching(embed_dim, rounds) if rounds else None

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, N, D)`` tokens of pictures, or of mixed releases where it reads those.

        Raises:
            ImageError: Another size.
        """
        images = self._mix(images) if self.mixed else images
        if (images.shape[-2], images.shape[-1]) != self._sides:
            also = f" or mixed releases of {_times(self._sides)}" if self.mixed else ""
            raise ImageError(
                f"expected pictures of {_times(self.img_size)}{also}, "
                f"got {_times(images.shape[-2:])}"
            )
        if self.mixed:
            features = self._convolve(images)
            return self.norm(self.out(_cut(features, self.last_side).flatten(2)))  # type: ignore[no-any-return]
        patches = _cut(images, self.side)
        count, number = patches.shape[:2]
        features = self._convolve(patches.flatten(0, 1))
        tokens = self.out(features.flatten(1)).view(count, number, -1)
        if self.matching is not None:
            tokens = self.matching(patches, tokens)
        return self.norm(tokens)  # type: ignore[no-any-return]

    @property
    def _sides(self) -> tuple[int, int]:
        """Height and width of what the convolutions read."""
        height, width = self.img_size
        return (height // 2, width // 2) if self.mixed else (height, width)

    def _mix(self, images: Tensor) -> Tensor:
        """Return the release of plain pictures, and what is no plain picture as it is."""
        if (images.shape[-2], images.shape[-1]) != tuple(self.img_size):
            return images
        return mix_patches(images, self.patch_size[0], 2)

    def _convolve(self, images: Tensor) -> Tensor:
        # With channels last, small convolutions take half the time on a CPU.
        return self.convolutions(images.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolution(width, width, 1), *_convolution(width, width, 1))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)  # type: ignore[no-any-return]


def _cut(images: Tensor, side: int) -> Tensor:
    """Return ``(B, N, C, side, side)`` patches of ``(B, C, H, W)``, in rows."""
    columns = F.unfold(images, side, stride=side)
    return columns.transpose(1, 2).reshape(images.shape[0], -1, images.shape[1], side, side)


def _times(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.GELU()]


def _border(outermost: Tensor, next_to_it: Tensor) -> Tensor:
    """Return ``(B, N, C·p)``: a border as its two outermost lines continue to the middle."""
    return (1.5 * outermost - 0.5 * next_to_it).flatten(2)
