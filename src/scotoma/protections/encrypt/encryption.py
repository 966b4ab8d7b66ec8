"""Encryption as a protection: pictures to releases, releases back, and models that read them.

::

    images (B, C, H, W) ── pad ──► blocks ── scheme ──► Release(data, metadata)
    model ── first layer (and order of positions) rewritten ──► adapted model

    adapted model (release) = model (images), whatever the key: for keyed schemes exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from scotoma.core.errors import CipherKeyError, ModelError, ReleaseError, SettingsError
from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.encrypt.base import FORMAT, Encryption
from scotoma.protections.encrypt.schemes import schemes
from scotoma.protections.encrypt.settings import EncryptSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Generator, Tensor, nn

    from scotoma.core.keys import Key
    from scotoma.core.protocols import Release
    from scotoma.protections.encrypt.cipher import Cipher
    from scotoma.protections.encrypt.maps import BlockMaps, Layout

__all__ = ["Encryption", "KeyedEncryption", "KeylessEncryption", "open_protection"]

_MOST_KEPT = 4
_Name = TypeVar("_Name")
_Thing = TypeVar("_Thing")


def open_protection(
    settings: EncryptSettings, preprocessing: Preprocessing | None = None
) -> Encryption:
    """Return the protection that ``settings`` describe.

    Args:
        settings: Scheme and its options.
        preprocessing: How pictures became what the network reads. It is noted in releases,
            and tells the size that :meth:`Encryption.adapt` adapts for; without it that is
            the size in the model's own timm configuration.

    Example::

        protection = open_protection(EncryptSettings("orthogonal", block=16))
        release = protection.protect(images, key)
        logits = protection.adapt(model, key)(release.data)
    """
    if schemes.get(settings.scheme).keyed:
        return KeyedEncryption(settings, preprocessing)
    return KeylessEncryption(settings, preprocessing)


class KeyedEncryption(Encryption):
    """A scheme of block maps that a key decides.

    Security:
        Maps that were derived are kept, so that a loop over batches derives them once. They
        are secret like the key; neither ``repr`` nor a pickle or copy of this object has them.
    """

    def __init__(
        self, settings: EncryptSettings, preprocessing: Preprocessing | None = None
    ) -> None:
        super().__init__(settings, preprocessing)
        self._maps: dict[tuple[str, Layout], BlockMaps] = {}
        self._ciphers: dict[tuple[str, Layout, str], Cipher] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}, "_ciphers": {}}

    def unprotect(self, release: Release, key: Key | None = None) -> Tensor:
        """Return the pictures; see :meth:`.base.Encryption.unprotect`."""
        self.check_key(key)
        size = self._check_release(release, key)
        expected, channels = self.derive_maps(key, size).channels_out, release.data.shape[1]
        if channels != expected:
            raise ReleaseError(f"expected a release of {expected} channels, got {channels}")
        cipher = self._cipher(key, size, release.data.device)
        images = cipher.decrypt(release.data.float().contiguous())
        return images[..., : size[1], : size[2]].contiguous()

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return the model with its stem rewritten; see :meth:`.base.Encryption.adapt`."""
        from scotoma.models.block_stem import adapt_stems

        self.check_key(key)
        size = self._input_size(model)
        maps = self.derive_maps(key, size)
        return adapt_stems(model, size, maps.block, maps.inverse, maps.order, maps.diffusion)

    def derive_maps(self, key: Key | None, size: tuple[int, int, int]) -> BlockMaps:
        """Return the maps, kept once derived; see :meth:`.base.Encryption.derive_maps`."""
        self.check_key(key)
        derive = self._scheme.derive
        if key is None or derive is None:
            raise CipherKeyError(f"expected a key for scheme {self.settings.scheme!r}, got none")
        layout, settings = self._layout(size), self.settings
        subkey = key.subkey(f"encrypt/{settings.dataset}")
        return _remembered(
            self._maps, (key.key_id, layout), lambda: derive(subkey, settings, layout)
        )

    def _apply(self, images: Tensor, key: Key | None, generator: Generator | None) -> Tensor:
        channels, height, width = images.shape[1:]
        cipher = self._cipher(key, (channels, height, width), images.device)
        return cipher.encrypt(images, generator)

    def _cipher(self, key: Key | None, size: tuple[int, int, int], device: torch.device) -> Cipher:
        from scotoma.protections.encrypt.cipher import prepare

        maps, layout = self.derive_maps(key, size), self._layout(size)
        name = ("" if key is None else key.key_id, layout, str(device))
        return _remembered(self._ciphers, name, lambda: prepare(maps, layout, device))

    def _layout(self, size: tuple[int, int, int]) -> Layout:
        from scotoma.ops.blocks import count_blocks
        from scotoma.protections.encrypt.maps import Layout

        return Layout(size[0], *count_blocks(size[1], size[2], self.settings.block))

    def _input_size(self, model: nn.Module) -> tuple[int, int, int]:
        if self.preprocessing is not None:
            return self.preprocessing.input_size
        if not hasattr(model, "pretrained_cfg"):
            raise SettingsError(
                "expected a preprocessing that tells the model's input size, got none, and the "
                "model has no timm configuration; pass one to open_protection"
            )
        return Preprocessing.from_timm(model).input_size

    def _check_release(self, release: Release, key: Key | None) -> tuple[int, int, int]:
        metadata = release.metadata
        if metadata.get("format") != FORMAT:
            raise ReleaseError(
                f"expected a release of format {FORMAT}, got {metadata.get('format')!r}; "
                "update scotoma"
            )
        made = EncryptSettings.from_metadata(metadata)
        if made != self.settings:
            raise ReleaseError(
                f"expected a release made with {self.settings}, got {made}; "
                "open the protection with EncryptSettings.from_metadata(release.metadata)"
            )
        if key is None or metadata.get("key_id") != key.key_id:
            raise CipherKeyError(
                f"expected key {metadata.get('key_id')!r}, which made the release, "
                f"got {None if key is None else key.key_id!r}"
            )
        size = metadata.get("input_size")
        if not (
            isinstance(size, list)
            and len(size) == 3
            and all(isinstance(side, int) and side >= 1 for side in size)
        ):
            raise ReleaseError(f"expected input_size [C, H, W] in the metadata, got {size!r}")
        block, shape = self.settings.block, tuple(release.data.shape)
        whole = tuple(-(-side // block) * block for side in size[1:])
        # Before anything is derived: metadata alone must not decide how much memory is taken.
        if len(shape) != 4 or shape[2:] != whole:
            raise ReleaseError(
                f"expected a release (B, C, {whole[0]}, {whole[1]}) by its metadata, got {shape}"
            )
        return size[0], size[1], size[2]


class KeylessEncryption(Encryption):
    """A scheme that anyone can apply and nobody's key undoes."""

    def unprotect(self, release: Release, key: Key | None = None) -> Tensor:  # noqa: ARG002
        """Refuse: nothing undoes it; see :meth:`.base.Encryption.unprotect`."""
        raise SettingsError(
            f"expected a keyed scheme, got {self.settings.scheme!r}, which has no key that "
            "undoes it; keep the originals"
        )

    def derive_maps(self, key: Key | None, size: tuple[int, int, int]) -> BlockMaps:  # noqa: ARG002
        """Refuse: there are none; see :meth:`.base.Encryption.derive_maps`."""
        raise SettingsError(
            f"expected a keyed scheme, got {self.settings.scheme!r}: it has no maps"
        )

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return the model itself if it reads the scheme; see :meth:`.base.Encryption.adapt`."""
        self.check_key(key)
        reads: frozenset[str] = getattr(model, "reads", frozenset())
        if self.settings.scheme not in reads:
            raise ModelError(
                f"expected a model trained to read {self.settings.scheme!r} releases, got a "
                f"{type(model).__name__} that reads {', '.join(sorted(reads)) or 'pictures only'}; "
                "no rewriting makes up for it: train one with scotoma train pevit"
            )
        self._check_patches(getattr(getattr(model, "patch_embed", None), "patch_size", None))
        return model

    def _check_patches(self, sides: tuple[int, int] | None) -> None:
        block = self.settings.block
        if sides is None or (block, block) == tuple(sides):
            return
        # An order of blocks of several patches is an order of patches; mixing has no such luck.
        if self.fresh and all(block % side == 0 for side in sides):
            return
        raise ModelError(
            f"expected blocks of the model's patches, {sides[0]}×{sides[1]} pixels, got {block}; "
            f"encrypt with --block {sides[0]}"
        )

    def _apply(self, images: Tensor, key: Key | None, generator: Generator | None) -> Tensor:  # noqa: ARG002
        if self._scheme.apply is None:
            raise SettingsError(f"scheme {self.settings.scheme!r} cannot be applied without a key")
        return self._scheme.apply(images, self.settings, generator)


def _remembered(
    kept: dict[_Name, _Thing], name: _Name, make: Callable[[], _Thing], *, most: int = _MOST_KEPT
) -> _Thing:
    """Return what is kept under a name, made where it is not; the oldest of too many goes."""
    if name not in kept:
        while len(kept) >= most:
            kept.pop(next(iter(kept)))
        kept[name] = make()
    return kept[name]
