"""PEViT: a vision transformer that reads shuffled or mixed pictures without a key.

::

    RS   (B, 3, H, W), patches in any order          MI   (B, 3, H/2, W/2), mean sub-patches
          │ Conv p×p, stride p                             │ Conv p/2 × p/2, stride p/2
          │                                                │ GELU, 1×1
          │ z = e + σ(W2·ReLU(W1·(e − r)))                 │ + position embedding
          └──────────────┬─────────────────────────────────┘
                 class token in front
                  transformer blocks
                   class token → logits

A set of tokens has no order, so without a position embedding the class token's answer
cannot depend on where a patch lies. Mixing keeps the order of patches and only loses
what happens inside one, so its reader may keep the position embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from scotoma.core.errors import ImageError, SettingsError, UnknownNameError
from scotoma.models.patch_networks import PatchNetworkEmbed
from scotoma.models.weights import load_known

__all__ = [
    "EMBEDDINGS",
    "RELEASES",
    "MixedPatchEmbed",
    "PEViT",
    "ReferenceEncoding",
    "load_vit_weights",
]

EMBEDDINGS = ("linear", "network")
RELEASES = ("plain", "shuffle", "mix")


class ReferenceEncoding(nn.Module):
    """``z = e + σ(W2·ReLU(W1·(e − r)))`` for each token ``e`` by itself, ``r`` learned.

    Args:
        dim: Width of a token.

    Source:
        Hao et al., Human-Imperceptible, Machine-Recognizable Images, IJCAI, arXiv 2306.03679.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reference = nn.Parameter(torch.zeros(dim))
        self.inner = nn.Linear(dim, dim, bias=False)
        self.outer = nn.Linear(dim, dim, bias=False)
        for linear in (self.inner, self.outer):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``(..., dim)`` tokens, each encoded relative to the reference."""
        hidden = F.relu(self.inner(tokens - self.reference))
        return tokens + torch.sigmoid(self.outer(hidden))


class MixedPatchEmbed(PatchEmbed):
    """Embed mean sub-patches: Conv (k = s = p/2) → mean of each 2×2 → GELU → 1×1.

    The convolution is linear, so the mean of four embedded sub-patches is the embedding of
    their mean: a plain picture and its release of half the sides give the same tokens.

    Args:
        img_size: Sides of the plain picture, in pixels.
        patch_size: Side ``p`` of a whole patch of the plain picture; even.
        in_chans: Colour channels.
        embed_dim: Width of a token.
        **options: As :class:`timm.layers.PatchEmbed` takes them.

    Raises:
        SettingsError: A patch cannot be cut into 2×2 sub-patches.
    """

    def __init__(
        self,
        img_size: Any = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        **options: Any,
    ) -> None:
        if not (patch_size >= 2 and patch_size % 2 == 0):
            raise SettingsError(
                f"expected an even patch size, to be cut into 2×2 sub-patches, got {patch_size}"
            )
        super().__init__(img_size, patch_size, in_chans, embed_dim, **options)
        half = patch_size // 2
        self.proj = nn.Conv2d(in_chans, embed_dim, half, half, bias=options.get("bias", True))
        self.out = nn.Conv2d(embed_dim, embed_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, N, D)`` tokens of pictures, or of releases of half their sides.

        Raises:
            ImageError: Neither of the two sizes.
        """
        height, width = self.img_size
        sides = (images.shape[-2], images.shape[-1])
        tokens = self.proj(images)
        if sides == (height, width):
            tokens = F.avg_pool2d(tokens, 2)
        elif sides != (height // 2, width // 2):
            raise ImageError(
                f"expected pictures of {height}×{width} or mixed releases of "
                f"{height // 2}×{width // 2}, got {sides[0]}×{sides[1]}"
            )
        tokens = self.out(F.gelu(tokens))
        return self.norm(tokens.flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


class PEViT(VisionTransformer):
    """timm's vision transformer, reading key-less releases.

    ``reads`` says which schemes' releases it reads: ``{"shuffle"}``, ``{"mix"}``, or none
    for the plain twin, which is timm's vision transformer as it is.

    Args:
        release: ``shuffle``, ``mix`` or ``plain``.
        reference: Encode tokens relative to a learned reference; by default only for
            ``shuffle``, which has no other encoding.
        positions: Learned position embedding; by default for all but ``shuffle``, which
            cannot have one.
        embedding: ``linear``, the paper's, or ``network``: a small convolutional network inside
            each patch, see :class:`~scotoma.models.patch_networks.PatchNetworkEmbed`.
        neighbours: Rounds in which patches look for their neighbours by their borders; only for
            ``shuffle`` with a ``network``.
        trunk: Residual blocks in that ``network``.
        **settings: As :class:`timm.models.VisionTransformer` takes them.

    Raises:
        UnknownNameError: No such release.
        SettingsError: Settings that contradict each other.

    Differences from the paper:
        The paper reads mixed pictures with a plain DeiT and uses the mixed embedding for
        detection; here the classifier of mixed pictures has that embedding too.

    Source:
        Hao et al., Human-Imperceptible, Machine-Recognizable Images, IJCAI, arXiv 2306.03679.
    """

    def __init__(
        self,
        *,
        release: str = "shuffle",
        reference: bool | None = None,
        positions: bool | None = None,
        embedding: str = "linear",
        neighbours: int = 0,
        trunk: int = 0,
        **settings: Any,
    ) -> None:
        if release not in RELEASES:
            raise UnknownNameError("release", release, RELEASES)
        if release == "shuffle" and positions:
            raise SettingsError(
                "expected no position embedding for shuffled patches, whose positions mean "
                "nothing; leave positions out, or read another release"
            )
        if embedding not in EMBEDDINGS:
            raise UnknownNameError("embedding", embedding, EMBEDDINGS)
        if neighbours and (release, embedding) != ("shuffle", "network"):
            raise SettingsError(
                "expected neighbours only of shuffled patches with embedding 'network', got "
                f"{neighbours} with release {release!r} and embedding {embedding!r}"
            )
        if trunk and embedding != "network":
            raise SettingsError(
                f"expected a trunk only with embedding 'network', got {trunk} with {embedding!r}"
            )
        if {"pos_embed", "embed_layer"} & settings.keys():
            raise SettingsError(
                "expected release, positions and reference instead of pos_embed and embed_layer"
            )
        if embedding == "network":
            settings["embed_layer"] = partial(
                PatchNetworkEmbed, mixed=release == "mix", trunk=trunk, rounds=neighbours
            )
        elif release == "mix":
            settings["embed_layer"] = MixedPatchEmbed
        has_positions = release != "shuffle" if positions is None else positions
        super().__init__(pos_embed="learn" if has_positions else "none", **settings)
        self.reads: frozenset[str] = frozenset() if release == "plain" else frozenset({release})
        wanted = release == "shuffle" if reference is None else reference
        self.reference = ReferenceEncoding(self.embed_dim) if wanted else None

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Encode patch tokens; timm then puts the class token before them."""
        return super()._pos_embed(x if self.reference is None else self.reference(x))


def load_vit_weights(network: PEViT, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load what a timm ViT or DeiT shares with ``network``, in place.

    Where ``network`` has no position embedding, the class token's own entry, a constant, moves
    into the class token, and the mean of the patches' entries into the patch embedding's bias,
    so that only what tells positions apart is dropped.

    Args:
        network: Of the same width, depth and patch size as the one the weights are from.
        weights: State dict of :class:`timm.models.VisionTransformer`, without register tokens.

    Returns:
        Names of the tensors that keep their first values: the reference encoding, the embedding
        of mixed patches, a head for another number of classes.

    Raises:
        ModelError: Anything else is missing, unknown or of another shape.
    """
    own = network.state_dict()
    given = dict(weights)
    if "patch_embed.proj.weight" not in own:  # a network reads patches in its own way
        given = {name: w for name, w in given.items() if not name.startswith("patch_embed.proj.")}
    if network.pos_embed is None and "pos_embed" in given:
        _fold_positions(given, given.pop("pos_embed"), has_class=not network.no_embed_class)
    fresh = tuple(name for name in own if _is_new(name, own, given))
    expected = (
        f"a vision transformer of width {network.embed_dim}, depth {len(network.blocks)} and these "
        "patches"
    )
    load_known(network, given, fresh, expected)
    return fresh


def _fold_positions(weights: dict[str, Tensor], positions: Tensor, *, has_class: bool) -> None:
    """Move what a position embedding adds everywhere alike into the tensors it adds to."""
    if has_class and "cls_token" in weights:
        weights["cls_token"] = weights["cls_token"] + positions[:, :1]
        positions = positions[:, 1:]
    if "patch_embed.proj.bias" in weights:
        mean = positions.mean(dim=(0, 1))
        weights["patch_embed.proj.bias"] = weights["patch_embed.proj.bias"] + mean


def _is_new(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of the network has no counterpart in a vision transformer's weights."""
    if name.startswith("reference."):
        return name not in given
    if name.startswith("patch_embed."):
        mixed = "patch_embed.out.weight"
        return "patch_embed.proj.weight" not in own or (mixed in own and mixed not in given)
    if name.startswith("head."):
        head = given.get("head.weight")
        return head is None or head.shape != own["head.weight"].shape
    return False
