"""The encryption schemes by name: what each does, and which models can read it.

A keyed scheme derives :class:`~scotoma.protections.encrypt.maps.BlockMaps` from a key; all
else (padding, applying, undoing, adapting models) is the same for every one of them. A
key-less scheme is a function of the picture and fresh randomness; no key undoes it, and
models are trained to read it.

A plugin is an entry point in the group ``scotoma.encryptions`` that names a :class:`Scheme`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scotoma.core.errors import SettingsError
from scotoma.core.registry import Registry
from scotoma.protections.encrypt import hardened, keyed, keyless

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from scotoma.core.keys import Key
    from scotoma.protections.encrypt.maps import BlockMaps, Layout
    from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = ["Scheme", "schemes"]


@dataclass(frozen=True)
class Scheme:
    """One way to encrypt; either ``derive`` or ``apply`` is given.

    Args:
        name: As on the command line.
        summary: One line for listings.
        fits: Which architectures read it, and why.
        options: Names of the settings that it reads besides ``block``.
        derive: Keyed: from the dataset's key, settings and layout to maps. Must be a function
            of these alone, the same on every platform.
        apply: Key-less: from padded ``(B, C, H, W)`` images, settings and a generator to
            the release's data.
        fresh: Whether every call draws new randomness, so that a generator is needed.
        least_block: Smallest block side; below it the release would show the picture.
        most_pictures: Keyed: how many pictures should share a key and label, where we know.

    Raises:
        SettingsError: Both of ``derive`` and ``apply``, or neither.
    """

    name: str
    summary: str
    fits: str
    options: frozenset[str] = frozenset()
    derive: Callable[[Key, EncryptSettings, Layout], BlockMaps] | None = None
    apply: Callable[[Tensor, EncryptSettings, Generator | None], Tensor] | None = None
    fresh: bool = False
    least_block: int = 1
    most_pictures: Callable[[EncryptSettings, Layout], int] | None = None

    def __post_init__(self) -> None:
        if (self.derive is None) == (self.apply is None):
            raise SettingsError(
                f"expected scheme {self.name!r} with either derive (keyed) or apply (key-less)"
            )

    @property
    def keyed(self) -> bool:
        """Whether a key decides what happens."""
        return self.derive is not None

    @property
    def invertible(self) -> bool:
        """Whether the key's holder gets the pictures back."""
        return self.keyed


schemes: Registry[Scheme] = Registry("encryption")

_ANY_STEM = (
    "every model whose first layer is a convolution, overlapping or not: "
    "the layer is rewritten and the rest stays"
)

# Of one pixel to a block such a scheme changes colours only, and everyone sees the picture.
_IN_PLACE = 2

for _scheme in (
    Scheme(
        "orthogonal",
        "one secret random rotation for all blocks (Aso et al. 2023)",
        _ANY_STEM,
        derive=keyed.derive_one_orthogonal,
        least_block=_IN_PLACE,
    ),
    Scheme(
        "permute",
        "one secret order of the values within all blocks",
        _ANY_STEM,
        derive=keyed.derive_one_permutation,
        least_block=_IN_PLACE,
    ),
    Scheme(
        "orthogonal-per-block",
        "its own secret random rotation for every block position",
        "models whose first layer is a convolution, at a fixed input size; the rewritten layer "
        "holds one weight per position within the period, so it grows with it",
        options=frozenset({"period"}),
        derive=keyed.derive_orthogonal_per_block,
        least_block=_IN_PLACE,
    ),
    Scheme(
        "block-shuffle",
        "one secret order of the blocks, and what 'inner' does within each",
        "models with a patch embedding of this block size, to which position matters only "
        "through one learned embedding added after it (ViT, DeiT), which is reordered too",
        options=frozenset({"inner"}),
        derive=keyed.derive_block_shuffle,
    ),
    Scheme(
        "hardened",
        "whitened, drowned in fresh noise, and spread over the whole picture (ours)",
        "every model whose first layer is a convolution, overlapping or not, at a fixed input "
        "size; the rewritten layer first gathers what was spread",
        options=frozenset({"noise", "noise_planes"}),
        derive=hardened.derive_hardened,
        fresh=True,
        least_block=_IN_PLACE,
        most_pictures=hardened.pictures_per_label,
    ),
    Scheme(
        "shuffle",
        "patches in a fresh random order for each picture; no key (RS of Hao et al.)",
        "models trained to read patches in any order (PEViT, PEYOLOS)",
        apply=keyless.shuffle,
        fresh=True,
    ),
    Scheme(
        "mix",
        "the mean of every patch's sub-patches; no key (MI of Hao et al.)",
        "models trained to read mixed patches (PEViT, PEYOLOS)",
        options=frozenset({"sub_patches"}),
        apply=keyless.mix,
    ),
):
    schemes.register(_scheme.name)(_scheme)
