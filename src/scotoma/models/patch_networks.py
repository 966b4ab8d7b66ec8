"""Patches to tokens by a small network inside each patch, and by looking for its neighbours.

::

    patch (3, p, p)            release of mixed patches (3, p/2, p/2)
      │ Conv 3×3, BN, GELU
      │ Conv 3×3 stride 2, BN, GELU, until the side is 2
      │ linear
    token (D,) ── NeighbourMatching: borders that continue each other ──► token (D,)

The network sees one patch at a time, so where a patch lies changes nothing about its token.
Matching compares every patch with every other, whatever their order: permuted patches give
permuted tokens.
"""

from __future__ import annotations

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
                beyond = edge.to(tokens.dtype).expand(len(tokens), -1, -1)
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
    """Embed each patch by a convolutional network that sees nothing but this patch.

    Args:
        img_size: Sides of the plain picture, in pixels.
        patch_size: Side ``p`` of a patch of the plain picture.
        in_chans: Colour channels.
        embed_dim: Width of a token.
        width: Channels of the first convolution; each later one doubles them.
        mixed: Read mixed releases: patches are averaged to half their sides first, unless the
            picture comes so.
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
        rounds: int = 0,
        **options: Any,
    ) -> None:
        side = patch_size // 2 if mixed else patch_size
        if not (side >= 2 and (not mixed or patch_size % 2 == 0)):
            raise SettingsError(
                "expected patches of at least 2×2 pixels"
                f"{' that halve to as many' if mixed else ''}, got a patch size of {patch_size}"
            )
        super().__init__(img_size, patch_size, in_chans, embed_dim, **options)
        del self.proj
        self.mixed = mixed
        self.side = side
        layers = _convolution(in_chans, width, 1)
        while side > 2:
            layers += _convolution(width, 2 * width, 2)
            width, side = 2 * width, -(-side // 2)
        self.network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side**2, embed_dim))
        self.matching = NeighbourMatching(embed_dim, rounds) if rounds else None

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, N, D)`` tokens of pictures, or of mixed releases where it reads those.

        Raises:
            ImageError: Another size.
        """
        patches = self._patches(images)
        count, number = patches.shape[:2]
        # With channels last, small convolutions take half the time on a CPU.
        flat = patches.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        tokens = self.network(flat).view(count, number, -1)
        if self.matching is not None:
            tokens = self.matching(patches, tokens)
        return self.norm(tokens)  # type: ignore[no-any-return]

    def _patches(self, images: Tensor) -> Tensor:
        """Return ``(B, N, C, side, side)`` patches, in rows."""
        height, width = self.img_size
        sides = (images.shape[-2], images.shape[-1])
        halves = (height // 2, width // 2)
        if self.mixed and sides == (height, width):
            images = mix_patches(images, self.patch_size[0], 2)
        elif sides != (halves if self.mixed else (height, width)):
            also = f" or mixed releases of {halves[0]}×{halves[1]}" if self.mixed else ""
            raise ImageError(
                f"expected pictures of {height}×{width}{also}, got {sides[0]}×{sides[1]}"
            )
        columns = F.unfold(images, self.side, stride=self.side)
        shape = (len(images), -1, images.shape[1], self.side, self.side)
        return columns.transpose(1, 2).reshape(shape)


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.GELU()]


def _border(outermost: Tensor, next_to_it: Tensor) -> Tensor:
    """Return ``(B, N, C·p)``: a border as its two outermost lines continue to the middle."""
    return (1.5 * outermost - 0.5 * next_to_it).flatten(2)
