"""The adaptive entropy coder as a codec of latents: lossless, or with coarser levels."""

from __future__ import annotations

import numpy as np

from scotoma.core.errors import BitstreamError, CodingError
from scotoma.images.bitstreams.codecs import CodecKind, CodecSettings, Latents
from scotoma.ops.latent_coding import LatentModel, decode_values, encode_values, generic_model

__all__ = ["ENTROPY"]

_COARSEST = 64


class _EntropyCodec:
    """Codes values one by one, each predicted from those before it.

    Args:
        settings: The quantizer is how many values become one level.
        shape: Of a frame, ``(C, H, W)``.
        model: How values are predicted; None for one that knows nothing of the network.
    """

    def __init__(
        self, settings: CodecSettings, shape: tuple[int, int, int], model: LatentModel | None
    ) -> None:
        self._step = settings.quantizer or 1
        self._shape = shape
        self._model = model or generic_model(shape[0])
        if len(self._model.means) != shape[0]:
            raise BitstreamError(
                f"expected latents of {len(self._model.means)} channels, as the coder was fitted "
                f"to, got {shape[0]}; leave the coder's model out or fit it anew"
            )

    def encode(self, latents: Latents) -> bytes:
        levels = (latents.astype(np.int64) + self._step // 2) // self._step
        levels = np.minimum(levels, 255 // self._step)
        return encode_values(levels.astype(np.uint8), self._model, step=self._step)

    def setup_size(self, payload: bytes) -> int:  # noqa: ARG002 - the protocol's
        return 0

    def decode(self, payload: bytes) -> Latents:
        try:
            levels = decode_values(payload, self._shape, self._model, step=self._step)
        except CodingError as error:
            raise BitstreamError(str(error)) from error
        return levels * np.uint8(self._step)


def _is_here() -> bool:
    from importlib.util import find_spec

    return find_spec("constriction") is not None


ENTROPY = CodecKind(
    "an adaptive entropy coder of ours, over constriction's range coder",
    (2, _COARSEST),
    _EntropyCodec,
    _is_here,
)
