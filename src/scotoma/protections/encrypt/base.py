"""What every encryption does alike: check pictures and keys, pad, and say what was done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from scotoma import __version__
from scotoma.core.errors import CipherKeyError, ImageError, SettingsError
from scotoma.core.protocols import Release
from scotoma.protections.encrypt.schemes import Scheme, schemes
from scotoma.protections.encrypt.settings import EncryptSettings

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from scotoma.core.keys import Key
    from scotoma.models.preprocessing import Preprocessing
    from scotoma.protections.encrypt.maps import BlockMaps

__all__ = ["FORMAT", "Encryption"]

FORMAT = 1
"""Version of a release's metadata."""

_READING = ("mean", "std", "interpolation", "crop_pct", "crop_mode")


class Encryption(ABC):
    """One scheme with its settings; :func:`.encryption.open_protection` makes it.

    Args:
        settings: Scheme and its options.
        preprocessing: How pictures became what the network reads, where known.
    """

    def __init__(
        self, settings: EncryptSettings, preprocessing: Preprocessing | None = None
    ) -> None:
        self.settings = settings
        self.preprocessing = preprocessing

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings})"

    @property
    def keyed(self) -> bool:
        """Whether :meth:`protect` and :meth:`adapt` need a key."""
        return self._scheme.keyed

    @property
    def fresh(self) -> bool:
        """Whether :meth:`protect` needs a generator."""
        return self._scheme.fresh

    @property
    def _scheme(self) -> Scheme:
        return schemes.get(self.settings.scheme)

    def protect(
        self, images: Tensor, key: Key | None = None, *, generator: Generator | None = None
    ) -> Release:
        """Encrypt a batch of pictures.

        Args:
            images: ``(B, C, H, W)`` float32 as the network reads them, normalized. Sides that
                are not whole blocks are completed with zeros at the bottom and right.
            key: For a keyed scheme, and only for one.
            generator: On the CPU, for schemes that draw fresh randomness.

        Returns:
            Release with data ``(B, C', H', W')`` float32; the same for any split into batches.

        Raises:
            ImageError: Another shape, type or size, or values that are not finite.
            CipherKeyError: No key for a keyed scheme, or one for a key-less one.
            SettingsError: No generator for a scheme that draws.

        Security:
            What is drawn is as secret as the generator's state, and ``torch.Generator()`` begins
            with the same one in every process; see :mod:`scotoma.ops.generators`.
        """
        from scotoma.ops.blocks import pad_to_blocks

        self.check_key(key)
        self._check_images(images)
        self._check_generator(generator)
        whole = pad_to_blocks(images.contiguous(), self.settings.block)
        data = self._apply(whole, key, generator)
        return Release(data, self._metadata(tuple(images.shape[1:]), key))

    def check_key(self, key: Key | None) -> None:
        """Refuse a missing key, or one where none is used.

        Raises:
            CipherKeyError: No key for a keyed scheme, or one for a key-less one.
        """
        name = self.settings.scheme
        if self.keyed and key is None:
            raise CipherKeyError(
                f"expected a key for scheme {name!r}, got none; make one with Key.generate() "
                "or scotoma keygen"
            )
        if not self.keyed and key is not None:
            raise CipherKeyError(
                f"expected no key for the key-less scheme {name!r}, got one; it would protect "
                "nothing"
            )

    def most_pictures(self, size: tuple[int, int, int]) -> int | None:
        """Return how many pictures of one size should share a key and label, where we know.

        Args:
            size: ``(C, H, W)`` of the pictures.
        """
        from scotoma.ops.blocks import count_blocks
        from scotoma.protections.encrypt.maps import Layout

        if self._scheme.most_pictures is None:
            return None
        layout = Layout(size[0], *count_blocks(size[1], size[2], self.settings.block))
        return self._scheme.most_pictures(self.settings, layout)

    @abstractmethod
    def unprotect(self, release: Release, key: Key | None = None) -> Tensor:
        """Return the ``(B, C, H, W)`` pictures of a release, to float precision.

        Raises:
            SettingsError: The scheme cannot be undone.
            ReleaseError: A release of another scheme or other settings, or damaged.
            CipherKeyError: No key, or not the one that made the release.
        """

    @abstractmethod
    def derive_maps(self, key: Key | None, size: tuple[int, int, int]) -> BlockMaps:
        """Return what a key does to pictures of one size; as secret as the key itself.

        Args:
            key: The key.
            size: ``(C, H, W)`` of the pictures.

        Raises:
            SettingsError: The scheme has no key.
            CipherKeyError: No key.
        """

    @abstractmethod
    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return a model that reads releases; the given one stays as it is.

        Raises:
            CipherKeyError: No key for a keyed scheme, or one for a key-less one.
            ModelError: The model cannot read this scheme; the message says why.
        """

    @abstractmethod
    def _apply(self, images: Tensor, key: Key | None, generator: Generator | None) -> Tensor: ...

    def _check_images(self, images: Tensor) -> None:
        import torch

        if not isinstance(images, torch.Tensor) or images.ndim != 4 or 0 in images.shape:
            got = getattr(images, "shape", type(images).__name__)
            raise ImageError(f"expected images (B, C, H, W) as one tensor, got {got}")
        if images.dtype != torch.float32:
            raise ImageError(
                f"expected float32 images, normalized as the network reads them, got {images.dtype}"
            )
        # The sum shows any value that is not finite in one quick pass; it may also overflow.
        if not bool(images.sum().isfinite()) and not bool(images.isfinite().all()):
            count = int((~images.isfinite()).sum())
            raise ImageError(f"expected finite images, got {count} values that are not")
        if self.preprocessing is not None:
            expected = self.preprocessing.input_size
            if tuple(images.shape[1:]) != tuple(expected):
                raise ImageError(
                    f"expected images (B, {', '.join(map(str, expected))}) as the preprocessing "
                    f"makes them, got {tuple(images.shape)}"
                )

    def _check_generator(self, generator: Generator | None) -> None:
        if generator is None and self._scheme.fresh:
            raise SettingsError(
                f"expected a generator for scheme {self.settings.scheme!r}, which draws anew "
                "for each picture, got none; pass seeded_generator(...) of scotoma.ops.generators"
            )
        if generator is not None and generator.device.type != "cpu":
            raise SettingsError(
                f"expected a generator on the CPU, so that all devices draw alike, "
                f"got one on {generator.device}"
            )

    def _metadata(self, size: tuple[int, ...], key: Key | None) -> dict[str, Any]:
        reading = {} if self.preprocessing is None else self.preprocessing.to_config()
        return {
            "format": FORMAT,
            "version": __version__,
            "scheme": self.settings.scheme,
            "settings": self.settings.to_config(),
            "key_id": None if key is None else key.key_id,
            "dataset": self.settings.dataset or None,
            "input_size": list(size),
            **{name: reading.get(name) for name in _READING},
        }
