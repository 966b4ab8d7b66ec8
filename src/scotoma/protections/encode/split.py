"""A split network as a protection: pictures to latents of bytes, and the half that reads them.

::

    images ── head ── encoder ── quantizer ──► Release(bytes as float32, metadata)
    adapted model = quantizer ── decoder ── tail
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from scotoma.core.errors import CipherKeyError, ImageError, ModelError
from scotoma.core.protocols import Release

if TYPE_CHECKING:
    from scotoma.core.keys import Key
    from scotoma.models.split_model import SplitModel

__all__ = ["SCHEME", "SplitProtection", "Tail"]

SCHEME = "split"
_BATCH = 256


class SplitProtection:
    """What a camera sends instead of pictures.

    Args:
        model: The split network, with or without a bottleneck; public as a whole.

    Security:
        There is no key: whoever has the release and trains a network on releases of pictures
        of their own sees what that network sees. ``docs/encode.md`` says how much that is.
        A seal on the stream keeps others out; it does not keep out the server.

    Example::

        protection = SplitProtection(load_split(path))
        release = protection.protect(images)
        logits = protection.adapt(network)(release.data)
    """

    keyed = False

    def __init__(self, model: SplitModel) -> None:
        self.model = model

    def __repr__(self) -> str:
        description = self.model.description
        return f"SplitProtection({description.name!r} at {description.at!r})"

    @torch.no_grad()
    def protect(
        self,
        images: Tensor,
        key: Key | None = None,
        *,
        generator: Generator | None = None,  # noqa: ARG002 - nothing is drawn
    ) -> Release:
        """Return what leaves the camera.

        Args:
            images: ``(B, 3, H, W)`` float32, normalized, of the size that the network reads.
            key: None; a split network has none.
            generator: Not read.

        Raises:
            CipherKeyError: A key was given.
            ImageError: Images of another shape, or not finite.
        """
        if key is not None:
            raise CipherKeyError(
                "expected no key for a split network, got one; seal the stream with it instead"
            )
        expected = self.model.description.preprocessing.input_size
        if images.ndim != 4 or tuple(images.shape[1:]) != expected or len(images) == 0:
            raise ImageError(f"expected images (B, {expected}), got {tuple(images.shape)}")
        if not (images.is_floating_point() and bool(images.isfinite().all())):
            raise ImageError(f"expected finite float32 images, got {images.dtype} or NaN")
        parts = [self.model.encode(part.contiguous()) for part in torch.split(images, _BATCH)]
        return Release(torch.cat(parts).float(), self._metadata())

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return the server's half; the given model is only checked to be the one that was cut.

        Raises:
            CipherKeyError: A key was given.
            ModelError: It is another model.
        """
        from scotoma.models.split_model import digest_of

        if key is not None:
            raise CipherKeyError("expected no key for a split network, got one")
        found, expected = digest_of(model), self.model.description.plain_digest
        if found != expected:
            raise ModelError(
                f"expected the network that was cut (weights {expected}), got {found}; "
                "train a bottleneck for this one with scotoma train split"
            )
        return Tail(self.model)

    def _metadata(self) -> dict[str, Any]:
        description = self.model.description
        preprocessing = description.preprocessing
        return {
            "scheme": SCHEME,
            "model": description.name,
            "at": description.at,
            "levels": description.levels,
            "input_size": list(preprocessing.input_size),
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "settings": {},
            "key_id": None,
        }


class Tail(nn.Module):
    """The server's half: from released bytes, as numbers, to what the plain network answers."""

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, places: Tensor) -> Any:
        """Return the answer to ``(B, c, h, w)`` whole numbers from 0 to 255."""
        return self.model.answer(places)
