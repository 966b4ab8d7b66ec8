"""Encode pictures and videos for a split network's server: what the camera does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from scotoma.core.errors import SettingsError, UnreadableImageError
from scotoma.images.bitstream import STREAM_SUFFIX, CodecSettings, LatentWriter
from scotoma.images.formats import PICTURE_SUFFIXES
from scotoma.images.read import decode_picture, read_file
from scotoma.images.video_frames import VIDEO_SUFFIXES, read_frames
from scotoma.run.conversion import Conversion, ConversionSummary, convert_all, fingerprint_of

if TYPE_CHECKING:
    from PIL import Image

    from scotoma.core.keys import Key
    from scotoma.models.split_model import SplitModel

__all__ = ["ENCODED_SUFFIXES", "Encoder", "encode"]

ENCODED_SUFFIXES = PICTURE_SUFFIXES | VIDEO_SUFFIXES
"""What counts in a folder."""


def encode(
    inputs: Sequence[Path],
    out: Path,
    model: SplitModel,
    *,
    split_digest: str,
    settings: CodecSettings | None = None,
    key: Key | None = None,
    every: int = 1,
    device: str = "cpu",
    on_progress: Callable[[Conversion, bool], None] | None = None,
) -> ConversionSummary:
    """Encode pictures and videos into ``out`` and return the summary, also written there.

    Args:
        inputs: Pictures, videos, and folders of them.
        out: Output folder; mirrors the input tree and holds ``manifest.jsonl`` and
            ``summary.json``. What an earlier run finished is skipped.
        model: Head and encoder are used.
        split_digest: Names the split to whoever decodes.
        settings: Codec and quantizer; the entropy coder, lossless, by default.
        key: Seals the streams; None leaves them open.
        every: Of a video, encode the first frame and then each so-manieth.
        device: Where the network lies.
        on_progress: Called after each input with its line, and whether it was skipped.

    Raises:
        FileError: An input is missing, or ``out`` cannot be written.
        BitstreamError: Latents that the codec cannot hold.
        MissingExtraError: The codec cannot work here.

    Security:
        The streams may be published as far as ``scotoma evaluate`` shows attackers to fail; the
        manifest names the inputs and their hashes and stays with you.
    """
    encoder = Encoder(
        model, split_digest=split_digest, settings=settings, key=key, every=every, device=device
    )
    facts = {
        "split": split_digest,
        "codec": encoder.settings.name,
        "quantizer": encoder.settings.quantizer,
        "latent": list(model.latent_shape),
        "key_id": None if key is None else key.key_id,
    }
    return convert_all(
        inputs, out, encoder, facts=facts, suffixes=ENCODED_SUFFIXES, on_progress=on_progress
    )


class Encoder:
    """Turns a picture or video into a bitstream, one frame in memory at a time.

    Args:
        model: Head and encoder are used.
        split_digest: Names the split to whoever decodes.
        settings: Codec and quantizer.
        key: Seals the streams.
        every: Of a video, encode the first frame and then each so-manieth.
        device: Where the network lies.

    Raises:
        SettingsError: ``every`` below 1.
        BitstreamError: Latents that the codec cannot hold.
        MissingExtraError: The codec cannot work here.
    """

    suffix = STREAM_SUFFIX
    private = False

    def __init__(
        self,
        model: SplitModel,
        *,
        split_digest: str,
        settings: CodecSettings | None = None,
        key: Key | None = None,
        every: int = 1,
        device: str = "cpu",
    ) -> None:
        if every < 1:
            raise SettingsError(f"expected to take every 1st frame or fewer, got every {every}")
        self.settings = settings or CodecSettings()
        self._model = model.to(device)
        self._digest = split_digest
        self._key = key
        self._every = every
        self._device = device
        # Finds what cannot be before the first picture is read.
        self._open(BytesIO()).write(np.zeros(model.latent_shape, np.uint8))

    @property
    def fingerprint(self) -> str:
        """Changes with anything that could change a stream; says nothing of the key but its id."""
        return fingerprint_of(
            command="encode",
            split=self._digest,
            settings=asdict(self.settings),
            key_id=None if self._key is None else self._key.key_id,
            every=self._every,
        )

    def convert_file(self, path: Path, sink: BinaryIO) -> Mapping[str, Any]:
        """Write the stream of a picture or video.

        Raises:
            UnreadableImageError: It is no whole picture or video, or has no frames.
        """
        pictures = self._pictures(path)
        first = next(pictures, None)
        if first is None:
            raise UnreadableImageError(f"{path.name}: expected at least one frame, got none")
        frames = size = pixels = 0
        with self._open(sink, first.size) as writer:
            for picture in chain([first], pictures):
                size += writer.write(self.latents(picture))
                frames += 1
                pixels += picture.width * picture.height
        return {"frames": frames, "bits_per_pixel": round(8 * size / pixels, 6)}

    def latents(self, picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the ``(C, H, W)`` latents of an RGB picture."""
        images = self._model.description.preprocessing.transform(picture)[None]
        with torch.no_grad():
            found: np.ndarray[Any, np.dtype[np.uint8]] = (
                self._model.encode(images.to(self._device))[0].cpu().numpy()
            )
        return found

    def _pictures(self, path: Path) -> Iterator[Image.Image]:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return read_frames(path, every=self._every)
        # The stored numbers, as the model's own preprocessing would read them.
        picture = decode_picture(read_file(path), name=path.name, keep_profile=True)
        return iter([picture.to_pil()])

    def _open(self, sink: BinaryIO, size: tuple[int, int] | None = None) -> LatentWriter:
        """Open a stream; one for a detector says the pictures' size, which places boxes."""
        metadata: dict[str, Any] = {"split": self._digest}
        if size is not None and self._model.description.preprocessing.is_letterbox:
            metadata["size"] = list(size)
        return LatentWriter(
            sink,
            self._model.latent_shape,
            self.settings,
            key=self._key,
            metadata=metadata,
            model=self._model.coder,
        )
