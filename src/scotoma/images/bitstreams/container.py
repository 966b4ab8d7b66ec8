"""The container of a bitstream: a header, one record per frame, and an end that counts them.

::

    magic        8 bytes
    header       length, JSON in its one spelling, check (4 bytes of SHA-256)
    frame        index, 1 + length, payload, check
    ...
    end          number of frames, 0, check

Numbers are LEB128. Each check covers all before it: the hash of the record before is hashed in.
So a record that is damaged, left out, moved, or taken from another stream does not fit, and a
stream without its end was cut off.

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
        self._chain = digest_of(head)
        self._index = 0
        sink.write(head + self._chain[:CHECK_BYTES])

    def frame(self, payload: bytes) -> int:
        """Write the next frame's payload and return how many bytes that took."""
        size = self._record(payload, is_end=False)
        self._index += 1
        return size

    def end(self) -> int:
        """Write the end; nothing comes after it."""
        return self._record(b"", is_end=True)

    def _record(self, payload: bytes, *, is_end: bool) -> int:
        bound = _bound(self._chain, self._index, is_end)
        written, check, self._chain = self._guard.close(payload, bound)
        size = 0 if is_end else 1 + len(written)
        record = _number(self._index) + _number(size) + written + check
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
            payload = self._payload(index, guard, longest)
            if payload is None:
                break
            yield payload
            index += 1
        if self._source.read(1):
            raise damaged(self._name, f"more bytes after the end of {index} frames")

    def _payload(self, index: int, guard: Guard, longest: int) -> bytes | None:
        """Return the next frame's payload; None at the end."""
        first = self._source.read(1)
        if not first:
            raise damaged(self._name, f"one cut off after {index} frames, without its end")
        found = self._read_number("a record", first)
        size = self._read_number("a record")
        is_end = size == 0
        what = f"the end after {index} frames" if is_end else f"frame {index}"
        if found != index:
            due = f"an end of {found} frames after {index}"
            moved = f"frame {found} where frame {index} was due (reordered, or frames left out)"
            raise damaged(self._name, due if is_end else moved)
        if size - 1 > longest + guard.overhead:
            raise damaged(self._name, f"{size} bytes for {what}, more than any frame has")
        # An open end is empty; a sealed one has its nonce, which its size of 0 does not count.
        length = guard.overhead if is_end else size - 1
        if length < guard.overhead:
            raise damaged(self._name, f"too few bytes for {what}")
        written = self._read(length, what)
        check = self._read(guard.check_bytes, what)
        opened = guard.open(written, check, _bound(self._chain, index, is_end))
        if opened is None:
            raise damaged(
                self._name,
                f"{what} that does not match its check (damaged, or out of another stream)",
            )
        payload, self._chain = opened
        return None if is_end else payload

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

    def _read_number(self, what: str, first: bytes = b"") -> int:
        return _read_number(self._source, self._name, what, first)

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
    chain = digest_of(MAGIC + _number(size) + text)
    if _read_exactly(source, CHECK_BYTES, name, "the header") != chain[:CHECK_BYTES]:
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


def _bound(chain: bytes, index: int, is_end: bool) -> bytes:
    """Return what a record's check covers besides its payload."""
    return chain + bytes([is_end]) + _number(index)


def _read_number(source: BinaryIO, name: str, what: str, first: bytes = b"") -> int:
    value = 0
    for place in range(_LONGEST_NUMBER):
        (byte,) = first or _read_exactly(source, 1, name, what)
        first = b""
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
