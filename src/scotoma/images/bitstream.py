"""Bitstreams: frames of quantized latents, coded, checked and, with a key, sealed.

::

    latents (C, H, W) uint8 ── codec ── payload ┐
                                                ├── container: header, frames, end
    codec, shape, metadata ── header ───────────┘

A frame is written as it comes and read as soon as it is whole, so a stream of any length takes
the memory of one frame. The same latents and settings are the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import BitstreamError, ScotomaError
from scotoma.images.bitstreams.codecs import (
    CodecSettings,
    LatentCodec,
    check_latents,
    check_shape,
    codecs,
)
from scotoma.images.bitstreams.container import (
    RecordReader,
    RecordWriter,
    damaged,
    is_bitstream,
)

if TYPE_CHECKING:
    from scotoma.core.keys import Key, KeyRing
    from scotoma.ops.latent_coding import LatentModel

__all__ = [
    "STREAM_SUFFIX",
    "CodecSettings",
    "LatentReader",
    "LatentStream",
    "LatentWriter",
    "codecs",
    "decode_latents",
    "encode_latents",
    "is_bitstream",
]

STREAM_SUFFIX = ".latents"
"""Ending of a bitstream's file name."""

Latents = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LatentStream:
    """A whole stream, read.

    Args:
        latents: ``(N, C, H, W)`` uint8.
        settings: How they were coded.
        metadata: Public, of whoever made the stream.
    """

    latents: Latents
    settings: CodecSettings
    metadata: Mapping[str, Any]


class LatentWriter:
    """Codes frames into a stream as they come.

    The header is written with the first frame. Leaving the ``with`` block writes the end;
    leaving it by an exception does not, and the stream is then one that was cut off.

    Args:
        sink: Takes the bytes.
        shape: Of every frame, ``(C, H, W)``.
        settings: Codec and quantizer.
        key: Seals the stream; None leaves it open.
        metadata: Plain data that everyone may read.
        model: For the codec ``entropy``: how values are predicted. The reader needs the same.

    Raises:
        BitstreamError: A shape that cannot be coded, or metadata that JSON cannot hold.
        MissingExtraError: The codec cannot work here.

    Security:
        Sealed, nobody without the key can read or change a frame, move it, leave it out, or cut
        the end off unnoticed. Lengths, the number of frames and the header stay readable, and
        the same frame in the same stream gives the same bytes.
    """

    def __init__(
        self,
        sink: BinaryIO,
        shape: tuple[int, ...],
        settings: CodecSettings | None = None,
        *,
        key: Key | None = None,
        metadata: Mapping[str, Any] | None = None,
        model: LatentModel | None = None,
    ) -> None:
        self._sink = sink
        self._shape = check_shape(tuple(shape))
        self._settings = settings or CodecSettings()
        self._key = key
        self._metadata = dict(metadata or {})
        self._model = model
        self._codec = _open_codec(self._settings, self._shape, model)
        self._setup = b""
        self._records: RecordWriter | None = None

    def write(self, latents: Latents) -> int:
        """Code the next frame and return how many bytes its record takes.

        Raises:
            BitstreamError: Latents of another shape or type.
        """
        payload = self._codec.encode(check_latents(latents, self._shape))
        if self._records is None:
            self._setup = payload[: self._codec.setup_size(payload)]
            self._begin()
        if not payload.startswith(self._setup):
            raise BitstreamError(
                f"expected {self._settings.name} to begin every frame alike, got another "
                "beginning; update PyAV"
            )
        return self._begin().frame(payload[len(self._setup) :])

    def close(self) -> None:
        """Write the end."""
        self._begin().end()

    def __enter__(self) -> LatentWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()

    def _begin(self) -> RecordWriter:
        if self._records is None:
            header = {
                "codec": self._settings.name,
                "quantizer": self._settings.quantizer,
                "shape": list(self._shape),
                "setup": base64.b64encode(self._setup).decode("ascii"),
                "model": None if self._model is None else self._model.digest,
                "metadata": self._metadata,
            }
            self._records = RecordWriter(self._sink, header, key=self._key)
        return self._records


class LatentReader:
    """Decodes a stream frame by frame; iterate over it once.

    Args:
        source: Gives the bytes.
        name: Of the stream, for messages.
        key: The key that sealed the stream, or a ring with it; None for an open one.
        model: As it was written with.
        shape: That frames must have; None for any. A server should give it: whoever makes an
            open stream chooses the shape, and with it the server's work.

    Attributes:
        metadata: Public; of a sealed stream proven right only with the first frame.
        settings: How it is coded.
        shape: Of every frame, ``(C, H, W)``.

    Raises:
        BitstreamError: No bitstream, or one of another kind or model; when iterated, damaged,
            reordered or cut off. Frames that came before were right.
        CipherKeyError: Sealed with another key, or sealed and none given; when iterated.
        MissingExtraError: The codec cannot work here.
    """

    def __init__(
        self,
        source: BinaryIO,
        *,
        name: str = "the stream",
        key: Key | KeyRing | None = None,
        model: LatentModel | None = None,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        self._records = RecordReader(source, name=name)
        self._name = name
        self._key = key
        header = self._records.header
        try:
            self.settings = CodecSettings(header["codec"], header["quantizer"])
            self.shape = check_shape(tuple(header["shape"]))
            self.metadata: Mapping[str, Any] = dict(header["metadata"])
            self._setup = base64.b64decode(header["setup"], validate=True)
            wanted = header["model"]
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            reason = str(error) if isinstance(error, ScotomaError) else type(error).__name__
            raise damaged(name, f"a header that cannot be used ({reason})") from error
        if shape is not None and self.shape != tuple(shape):
            raise BitstreamError(f"{name}: expected latents {tuple(shape)}, got {self.shape}")
        if wanted is not None and (model is None or model.digest != wanted):
            raise BitstreamError(
                f"{name}: expected the coder's model {wanted}, got "
                f"{'none' if model is None else model.digest}; use the split that made the stream"
            )
        chosen = model if wanted is not None else None
        self._codec = _open_codec(self.settings, self.shape, chosen)

    def __iter__(self) -> Iterator[Latents]:
        # No codec of ours takes four bytes for each value, and some hundred for its own needs.
        longest = 4 * int(np.prod(self.shape)) + 65_536
        for number, payload in enumerate(self._records.frames(self._key, longest=longest)):
            yield self._decode(payload, number)

    def _decode(self, payload: bytes, number: int) -> Latents:
        try:
            return check_latents(self._codec.decode(self._setup + payload), self.shape)
        except Exception as error:  # decoders raise whatever damaged data makes them stumble over
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise damaged(
                self._name, f"frame {number} that cannot be decoded ({reason})"
            ) from error


def encode_latents(
    latents: Latents | Iterable[Latents],
    settings: CodecSettings | None = None,
    *,
    key: Key | None = None,
    metadata: Mapping[str, Any] | None = None,
    model: LatentModel | None = None,
) -> bytes:
    """Return a whole stream: same input, same bytes.

    Args:
        latents: ``(C, H, W)`` uint8, one frame; or several of one shape, also as one array
            ``(N, C, H, W)``.
        settings: Codec and quantizer; the entropy coder, lossless, by default.
        key: Seals the stream; None leaves it open.
        metadata: Plain data that everyone may read.
        model: For the codec ``entropy``: how values are predicted.

    Raises:
        BitstreamError: No frame, frames that differ in shape, or that cannot be coded.
        MissingExtraError: The codec cannot work here.

    Example:
        >>> frame = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
        >>> stream = encode_latents([frame, frame], CodecSettings("png"))
        >>> bool((decode_latents(stream).latents == frame).all())
        True
    """
    if isinstance(latents, np.ndarray) and latents.ndim == 3:
        latents = latents[None]
    frames: Iterator[Latents] = iter(latents)
    first = next(frames, None)
    if first is None:
        raise BitstreamError("expected at least one frame of latents, got none")
    sink = io.BytesIO()
    with LatentWriter(
        sink, first.shape, settings, key=key, metadata=metadata, model=model
    ) as writer:
        writer.write(first)
        for frame in frames:
            writer.write(frame)
    return sink.getvalue()


def decode_latents(
    data: bytes,
    *,
    name: str = "the stream",
    key: Key | KeyRing | None = None,
    model: LatentModel | None = None,
    shape: tuple[int, int, int] | None = None,
) -> LatentStream:
    """Return a whole stream's frames; all of it must be right.

    Args:
        data: The stream.
        name: Of the stream, for messages.
        key: The key that sealed it, or a ring with it; None for an open one.
        model: As it was encoded with.
        shape: That frames must have; None for any.

    Raises:
        BitstreamError: Damaged, reordered, cut off, of another model, or no bitstream.
        CipherKeyError: Sealed with another key, or sealed and none given.
        MissingExtraError: The codec cannot work here.

    Security:
        A stream from outside is data. Without a key anyone can make one that passes; a sealed
        one comes from a holder of the key. Its HEVC, AV1, WebP or PNG is decoded by those
        libraries, whose mistakes are then reachable for who can make a stream; the codec
        ``entropy`` is integer arithmetic of ours.
    """
    reader = LatentReader(io.BytesIO(data), name=name, key=key, model=model, shape=shape)
    frames = list(reader)
    if not frames:
        raise damaged(name, "one without frames")
    return LatentStream(np.stack(frames), reader.settings, reader.metadata)


def _open_codec(
    settings: CodecSettings, shape: tuple[int, int, int], model: LatentModel | None
) -> LatentCodec:
    return codecs.get(settings.name).make(settings, shape, model)
