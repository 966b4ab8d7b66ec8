"""The container of a bitstream: a header, one record per frame, and an end that counts them.

::

    magic        8 bytes
    header       length, JSON in its one spelling, check (8 bytes of SHA-256)
    frame        "F", index, length, payload, check
    ...
    end          "E", number of frames, check

Lengths and numbers are LEB128. Each check covers all before it: the check of the record before
is hashed in. So a record that is damaged, left out, moved, or taken from another stream does not
fit, and a stream without its end was cut off.

Sealed with a key, payloads are AES-256-GCM ciphertexts and checks are GCM's tags over the same.
Lengths and the header stay readable.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from scotoma.core.errors import BitstreamError, CipherKeyError
from scotoma.images.bitstreams.guards import CHECK_BYTES, Checksum, Guard, Seal, digest_of

if TYPE_CHECKING:
    from scotoma.core.keys import Key, KeyRing

__all__ = ["MAGIC", "RecordReader", "RecordWriter", "damaged", "is_bitstream", "read_header"]

MAGIC = b"\x89SCL1\r\n\n"
"""First bytes of every stream; a transfer as text would change them."""

_MAX_HEADER = 1 << 20
_FRAME, _END = b"F", b"E"
_LONGEST_NUMBER = 9


def damaged(name: str, got: str) -> BitstreamError:
    """Return the error for a stream that is not what was written."""
    return BitstreamError(
        f"{name}: expected a whole bitstream as scotoma wrote it, got {got}; get an undamaged copy"
    )


def is_bitstream(data: bytes) -> bool:
    """Return whether a file's first bytes claim to be a bitstream; it may still be damaged."""
    return data.startswith(MAGIC)


class RecordWriter:
    """Writes a header at once, then records.

    Args:
        sink: Takes the bytes; nothing is kept here.
        header: Plain data, public.
        key: Seals the records; None leaves them open.

    Raises:
        BitstreamError: A header that JSON cannot hold, or a very long one.
    """

    def __init__(
        self, sink: BinaryIO, header: Mapping[str, Any], *, key: Key | None = None
    ) -> None:
        self._sink = sink
        self._guard: Guard = Checksum() if key is None else Seal(key)
        text = _canonical({**header, "seal": None if key is None else key.key_id})
        if len(text) > _MAX_HEADER:
            raise BitstreamError(f"expected metadata of at most 1 MiB, got {len(text)} bytes")
        head = MAGIC + _number(len(text)) + text
        self._chain = digest_of(head)[:CHECK_BYTES]
        self._index = 0
        sink.write(head + self._chain)

    def frame(self, payload: bytes) -> int:
        """Write the next frame's payload and return how many bytes that took."""
        size = self._record(_FRAME, payload)
        self._index += 1
        return size

    def end(self) -> int:
        """Write the end; nothing comes after it."""
        return self._record(_END, b"")

    def _record(self, kind: bytes, payload: bytes) -> int:
        place = kind + _number(self._index)
        written, check = self._guard.close(payload, self._chain + place)
        record = place + _number(len(written)) + written + check
        self._chain = check
        self._sink.write(record)
        return len(record)


class RecordReader:
    """Reads what :class:`RecordWriter` wrote, one record in memory at a time.

    Args:
        source: Gives the bytes.
        name: Of the stream, for messages.

    Attributes:
        header: The public header.

    Raises:
        BitstreamError: No bitstream, a damaged header, or one of another version.
    """

    def __init__(self, source: BinaryIO, *, name: str) -> None:
        self._source = source
        self._name = name
        self.header, self._chain = _read_head(source, name)

    def frames(self, key: Key | KeyRing | None, *, longest: int) -> Iterator[bytes]:
        """Yield each frame's payload as soon as it is proven whole.

        Args:
            key: The key that sealed the stream, or a ring with it; None for an open one.
            longest: A payload of more bytes is not read.

        Raises:
            BitstreamError: Damaged, reordered, cut off, or followed by something else; the
                frames before were right.
            CipherKeyError: Sealed with another key, or sealed and none given.
        """
        guard = self._guard_of(key)
        index = 0
        while True:
            kind = self._source.read(1)
            if not kind:
                raise damaged(self._name, f"one cut off after {index} frames, without its end")
            if kind not in (_FRAME, _END):
                raise damaged(self._name, f"what is no record after {index} frames")
            payload = self._payload(kind, index, guard, longest)
            if kind == _END:
                if payload:
                    raise damaged(self._name, "an end with something in it")
                if self._source.read(1):
                    raise damaged(self._name, f"more bytes after the end of {index} frames")
                return
            yield payload
            index += 1

    def _payload(self, kind: bytes, index: int, guard: Guard, longest: int) -> bytes:
        what = f"frame {index}" if kind == _FRAME else f"the end after {index} frames"
        found = self._read_number(what)
        if found != index:
            raise damaged(
                self._name,
                f"frame {found} where frame {index} was due (reordered, or frames left out)"
                if kind == _FRAME
                else f"an end of {found} frames after {index}",
            )
        size = self._read_number(what)
        if size > longest + guard.overhead:
            raise damaged(self._name, f"{size} bytes for {what}, more than any frame has")
        if size < guard.overhead:
            raise damaged(self._name, f"too few bytes for {what}")
        written = self._read(size, what)
        check = self._read(guard.check_bytes, what)
        payload = guard.open(written, check, self._chain + kind + _number(index))
        if payload is None:
            raise damaged(
                self._name,
                f"{what} that does not match its check (damaged, or out of another stream)",
            )
        self._chain = check
        return payload

    def _guard_of(self, key: Key | KeyRing | None) -> Guard:
        from scotoma.core.keys import KeyRing

        key_id = self.header["seal"]
        if key_id is None:
            if key is not None:
                raise BitstreamError(
                    f"{self._name}: expected a stream sealed with a key, got an open one, which "
                    "anyone can have made; leave the key out if that is all right"
                )
            return Checksum()
        if key is None:
            raise CipherKeyError(
                f"{self._name}: expected key {key_id} to open a sealed stream, got none; give "
                "the key file that it was made with"
            )
        if isinstance(key, KeyRing):
            return Seal(key.find(str(key_id)))
        if key.key_id != key_id:
            raise CipherKeyError(
                f"{self._name}: expected key {key_id}, which sealed it, got key {key.key_id}"
            )
        return Seal(key)

    def _read_number(self, what: str) -> int:
        return _read_number(self._source, self._name, what)

    def _read(self, size: int, what: str) -> bytes:
        return _read_exactly(self._source, size, self._name, what)


def read_header(data: bytes, *, name: str) -> dict[str, Any]:
    """Return the public header of a stream that begins with ``data``.

    Raises:
        BitstreamError: As for :class:`RecordReader`.
    """
    return _read_head(io.BytesIO(data), name)[0]


def _read_head(source: BinaryIO, name: str) -> tuple[dict[str, Any], bytes]:
    magic = source.read(len(MAGIC))
    if magic != MAGIC:
        if magic[:4] == MAGIC[:4] and len(magic) == len(MAGIC):
            raise damaged(name, "one of another version, or one changed by a transfer as text")
        raise BitstreamError(
            f"{name}: expected a bitstream, got an empty, cut off or other file; name one that "
            "scotoma encode wrote"
        )
    size = _read_number(source, name, "the header")
    if size > _MAX_HEADER:
        raise damaged(name, f"a header of {size} bytes, more than any stream has")
    text = _read_exactly(source, size, name, "the header")
    chain = digest_of(MAGIC + _number(size) + text)[:CHECK_BYTES]
    if _read_exactly(source, CHECK_BYTES, name, "the header") != chain:
        raise damaged(name, "a header that does not match its check")
    try:
        header = json.loads(text)
        same = isinstance(header, dict) and _canonical(header) == text
    except (ValueError, RecursionError, BitstreamError) as error:
        raise damaged(name, "a header that is no JSON") from error
    if not same or not isinstance(header.get("seal", 0), str | None):
        raise damaged(name, "a header of another form")
    return header, chain


def _read_exactly(source: BinaryIO, size: int, name: str, what: str) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise damaged(name, f"one cut off within {what}")
    return data


def _read_number(source: BinaryIO, name: str, what: str) -> int:
    value = 0
    for place in range(_LONGEST_NUMBER):
        (byte,) = _read_exactly(source, 1, name, what)
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            if byte == 0 and place:
                break  # a longer spelling of a shorter number
            return value
    raise damaged(name, f"a number in {what} that is not as scotoma writes it")


def _number(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def _canonical(value: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(dict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BitstreamError(f"expected metadata that JSON can hold, got: {error}") from error
    return text.encode("ascii")
