"""The public half of a release file: metadata, checksum, and the key holder's seal."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import ReleaseError, SettingsError

if TYPE_CHECKING:
    from scotoma.core.keys import Key, KeyRing

__all__ = ["MARK", "Envelope", "Scaling", "damaged"]

MARK = "scotoma_release"
"""Under this name both containers keep the envelope."""

_FORMAT = 1
_DOMAIN = b"scotoma release 1\0"
_LEVELS = 255


@dataclass(frozen=True)
class Scaling:
    """What the bytes of an 8-bit release mean: ``value = offset + scale * byte``, per channel.

    Fixed before any picture is seen, so that it tells nothing about one.

    Args:
        scale: Step per channel, positive.
        offset: Value of byte 0 per channel.

    Raises:
        SettingsError: Not as many scales as offsets, or not finite and positive.

    Example:
        >>> Scaling.between((-1.0,), (1.55,)).offset
        (-1.0,)
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.offset) or not self.scale:
            raise SettingsError(
                f"expected one scale and one offset per channel, got {self.scale}, {self.offset}"
            )
        if not all(0 < step < math.inf for step in self.scale):
            raise SettingsError(f"expected positive finite scales, got {self.scale}")
        if not all(math.isfinite(start) for start in self.offset):
            raise SettingsError(f"expected finite offsets, got {self.offset}")

    @classmethod
    def between(cls, low: Sequence[float], high: Sequence[float]) -> Scaling:
        """Return the scaling that maps bytes 0 to 255 onto ``low`` to ``high`` per channel."""
        steps = [(top - bottom) / _LEVELS for bottom, top in zip(low, high, strict=True)]
        return cls(tuple(steps), tuple(float(bottom) for bottom in low))

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return least and greatest value, half a step beyond the end bytes, as ``(C, 1, 1)``."""
        scale, offset = self._columns()
        return offset - scale / 2, offset + scale * (_LEVELS + 0.5)

    def quantize(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the nearest bytes of ``(B, C, H, W)`` values, clipped to 0 and 255."""
        scale, offset = self._columns()
        return np.clip(np.rint((values - offset) / scale), 0, _LEVELS).astype(np.uint8)

    def dequantize(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return the values of ``(B, C, H, W)`` bytes."""
        scale, offset = self._columns()
        return (array.astype(np.float64) * scale + offset).astype(np.float32)

    def _columns(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scale = np.array(self.scale, np.float64)[:, None, None]
        return scale, np.array(self.offset, np.float64)[:, None, None]


@dataclass(frozen=True)
class Envelope:
    """Everything in a release file besides the numbers.

    Args:
        metadata: The release's own, public.
        dtype: ``float32``, ``float16`` or ``uint8``.
        shape: Of the numbers, ``(B, C, H, W)``.
        scaling: What bytes mean; None for floating-point numbers.
        sha256: Of all the above and the numbers, in hexadecimal.
        tag: HMAC of the same under the key, in hexadecimal; None for key-less schemes.
    """

    metadata: Mapping[str, Any]
    dtype: str
    shape: tuple[int, ...]
    scaling: Scaling | None
    sha256: str
    tag: str | None

    @classmethod
    def seal(
        cls,
        metadata: Mapping[str, Any],
        array: NDArray[np.generic],
        *,
        key: Key | None = None,
        scaling: Scaling | None = None,
    ) -> Envelope:
        """Return the envelope of ``array``.

        Raises:
            ReleaseError: Metadata that JSON cannot hold.
        """
        try:
            plain = json.loads(_canonical(dict(metadata)))
        except (TypeError, ValueError) as error:
            raise ReleaseError(f"expected metadata that JSON can hold, got: {error}") from error
        bare = cls(plain, array.dtype.name, array.shape, scaling, "", None)
        digest = bare._digest(array)
        tag = key.mac(_DOMAIN + digest).hex() if key is not None else None
        return cls(plain, bare.dtype, bare.shape, scaling, digest.hex(), tag)

    def to_json(self) -> str:
        """Return one line of JSON, ASCII only; :meth:`from_json` takes no other form of it."""
        return _canonical({**self._public(), "sha256": self.sha256, "tag": self.tag})

    @classmethod
    def from_json(cls, text: str, name: str) -> Envelope:
        """Read what :meth:`to_json` wrote.

        Args:
            text: The JSON.
            name: The file's name, for messages.

        Raises:
            ReleaseError: Anything else.
        """
        try:
            found = json.loads(text, parse_constant=_refuse)
            if found["format"] != _FORMAT:
                raise ReleaseError(
                    f"{name}: expected release format {_FORMAT}, got {found['format']!r}; "
                    "update scotoma"
                )
            numbers = found["data"]
            scaled = "scale" in numbers
            envelope = cls(
                metadata=dict(found["metadata"]),
                dtype=str(numbers["dtype"]),
                shape=tuple(int(side) for side in numbers["shape"]),
                scaling=Scaling(tuple(numbers["scale"]), tuple(numbers["offset"]))
                if scaled
                else None,
                sha256=str(found["sha256"]),
                tag=None if found["tag"] is None else str(found["tag"]),
            )
            same = envelope.to_json() == text
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, ReleaseError):
                raise
            raise damaged(name, f"metadata that cannot be read ({type(error).__name__})") from error
        if not same:
            raise damaged(name, "metadata in another form")
        return envelope

    def check(
        self, array: NDArray[np.generic], name: str, *, key: Key | KeyRing | None = None
    ) -> None:
        """Check that ``array`` is what was written and, with the key, who wrote it.

        Args:
            array: The numbers as found in the file.
            name: The file's name, for messages.
            key: The key that made the release, or a ring that may hold it.

        Raises:
            ReleaseError: Corrupt, altered, or of another key.
            CipherKeyError: The ring lacks the key; the message says which it has.
        """
        if array.dtype.name != self.dtype or array.shape != self.shape:
            raise damaged(
                name,
                f"{array.dtype.name} {array.shape} where its metadata say {self.dtype} "
                f"{self.shape}",
            )
        if (self.dtype == "uint8") != (self.scaling is not None):
            raise damaged(name, f"{self.dtype} with{'out' * (self.scaling is None)} a scaling")
        if self.scaling is not None and len(self.scaling.scale) != self.shape[1]:
            raise damaged(name, f"{len(self.scaling.scale)} scales for {self.shape[1]} channels")
        digest = self._digest(array)
        if digest.hex() != self.sha256:
            raise damaged(name, "content that does not match its SHA-256")
        if key is not None:
            self._check_seal(digest, name, self._key_of(key, name))

    def _key_of(self, key: Key | KeyRing, name: str) -> Key:
        """Return the key that the release names, if that is ``key`` or in it."""
        from scotoma.core.keys import KeyRing

        key_id = self.metadata.get("key_id")
        if key_id is None:
            raise ReleaseError(
                f"{name}: expected a release that a key made, got one of the key-less scheme "
                f"{self.metadata.get('scheme')!r}; no key undoes or checks it"
            )
        if isinstance(key, KeyRing):
            return key.find(str(key_id))
        if key_id != key.key_id:
            raise ReleaseError(
                f"{name}: expected a release of key {key.key_id}, got one of key {key_id}; "
                "use the key that made it"
            )
        return key

    def _check_seal(self, digest: bytes, name: str, key: Key) -> None:
        if self.tag is None or not hmac.compare_digest(
            key.mac(_DOMAIN + digest).hex().encode(), self.tag.encode("utf-8", "replace")
        ):
            raise ReleaseError(
                f"{name}: expected the seal of key {key.key_id}, got another; someone without "
                "the key changed this file, get it from its owner again"
            )

    def _public(self) -> dict[str, Any]:
        numbers: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape)}
        if self.scaling is not None:
            numbers["scale"] = list(self.scaling.scale)
            numbers["offset"] = list(self.scaling.offset)
        return {"format": _FORMAT, "metadata": dict(self.metadata), "data": numbers}

    def _digest(self, array: NDArray[np.generic]) -> bytes:
        text = _canonical(self._public()).encode("ascii")
        digest = hashlib.sha256(_DOMAIN + len(text).to_bytes(8, "little") + text)
        digest.update(np.ascontiguousarray(array).data)
        return digest.digest()


def damaged(name: str, got: str) -> ReleaseError:
    """Return the error for a file that is not what scotoma wrote."""
    return ReleaseError(
        f"{name}: expected a whole release as scotoma wrote it, got {got}; get an undamaged copy"
    )


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
