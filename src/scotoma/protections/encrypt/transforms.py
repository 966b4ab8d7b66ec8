"""Encryption as the last step of a torchvision-style transform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from torch import Tensor, nn

from scotoma.core.errors import ImageError, SecretError
from scotoma.models.preprocessing import Preprocessing
from scotoma.ops.generators import seeded_generator
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

if TYPE_CHECKING:
    from scotoma.core.keys import Key

__all__ = ["Encrypt"]

_SEED_BYTES = 32


class Encrypt(nn.Module):
    """Encrypt normalized pictures one by one or in batches, in a transform pipeline.

    Put it after the normalization. Schemes that draw fresh randomness take a seed from
    torch's global state on each call, as torchvision's transforms do: every worker of a
    data loader has its own, and ``torch.manual_seed`` repeats a run.

    Args:
        settings: Scheme and its options.
        key: For a keyed scheme.
        preprocessing: Where given, pictures must have its size, and the maps are derived at
            once, so that forked workers share them.

    Raises:
        CipherKeyError: No key for a keyed scheme, or one for a key-less one.

    Security:
        Holds the key. It refuses to be pickled or copied, hence data loaders must start their
        workers by fork; elsewhere encrypt after the loader, in the main process.
        torch's global state comes from 32 bits of a seed. That does for training; who hands out
        releases passes ``protect`` a generator of :mod:`scotoma.ops.generators` for each.

    Example::

        transform = v2.Compose([*model_transform, Encrypt(EncryptSettings("permute"), key)])
    """

    def __init__(
        self,
        settings: EncryptSettings,
        key: Key | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self._protection = open_protection(settings, preprocessing)
        self._key = key
        self._protection.check_key(key)  # now, and not in a worker
        if preprocessing is not None and self._protection.keyed:
            self(torch.zeros(preprocessing.input_size))

    def forward(self, images: Tensor) -> Tensor:
        """Return the release of ``(C, H, W)`` or ``(B, C, H, W)`` float32 images.

        Raises:
            ImageError: Another shape or type, or values that are not finite.
        """
        if images.ndim not in (3, 4):
            raise ImageError(
                f"expected images (C, H, W) or (B, C, H, W), got {tuple(images.shape)}"
            )
        batch = images if images.ndim == 4 else images[None]
        generator = None
        if self._protection.fresh:
            drawn = torch.randint(256, (_SEED_BYTES,), dtype=torch.uint8)
            generator = seeded_generator(drawn.numpy().tobytes())
        data = self._protection.protect(batch, self._key, generator=generator).data
        return data if images.ndim == 4 else data[0]

    def extra_repr(self) -> str:
        """Show settings and the key's public id."""
        return f"{self._protection.settings}, key={self._key}"

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        if self._key is not None:
            raise SecretError(
                "expected Encrypt to stay in its process, for it holds a key, got an attempt to "
                "pickle or copy it; start the data loader's workers by fork "
                "(multiprocessing_context='fork'), or encrypt batches after the loader"
            )
        return super().__reduce_ex__(protocol)
