"""Secret keys, and what is derived from them.

::

    secret (32 bytes) ── HKDF-Extract ── root
        ├── HKDF-Expand("id")                 8 bytes, public: the key's name
        ├── HKDF-Expand("subkey", purpose)    the secret of another key
        ├── HKDF-Expand("mac")                HMAC-SHA256 key
        └── HKDF-Expand("stream")             SHAKE-256(this, label, ...)

Nothing below a key tells anything of the key itself or of its siblings. All of it is the
standard library's SHA-2 and SHA-3: the same bytes on every platform and version.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import NoReturn, SupportsIndex

from scotoma.core.errors import CipherKeyError, SecretError, SettingsError

__all__ = ["SECRET_BYTES", "Key", "KeyRing", "export_secret"]

SECRET_BYTES = 32
"""Length of a key's secret."""

_SALT = b"scotoma key 1"
_ID_BYTES = 8
# The shortest of the limits of hashlib's several implementations.
_LONGEST_STREAM = 2**29 - 1
_MOST_GENERATIONS = 1000


class _Secret:
    """Refuses every way in which Python would copy an object's content elsewhere."""

    __slots__ = ()

    def _refuse(self) -> NoReturn:
        raise SecretError(
            f"expected the secret to stay where it is, got a {type(self).__name__} to copy or "
            "pickle; hand over the object itself, or the key file's path to another process"
        )

    def __reduce__(self) -> NoReturn:
        self._refuse()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        self._refuse()

    def __getstate__(self) -> NoReturn:
        self._refuse()

    def __setstate__(self, state: object) -> NoReturn:
        self._refuse()


class Key(_Secret):
    """32 secret bytes that show only their public name.

    Make one with :meth:`generate` or :meth:`from_bytes`. No public attribute holds the
    secret; ``repr`` and ``str`` show :attr:`key_id`; copying and pickling refuse.

    Security:
        Python cannot wipe memory: the secret stays in the process until its pages are
        reused, and whoever reads the process' memory has it.

    Example:
        >>> key = Key.from_bytes(bytes(range(32)))
        >>> key
        Key(id=7bbb2f2512b4a732)
        >>> key.stream("noise", 4) == key.stream("noise", 8)[:4]
        True
    """

    __slots__ = ("__mac", "__root", "__secret", "__stream")

    __mac: bytes
    __root: bytes
    __secret: bytes
    __stream: bytes

    def __init__(self) -> None:
        raise CipherKeyError(
            "expected Key.generate() for a new key or Key.from_bytes(...), got Key()"
        )

    @classmethod
    def generate(cls) -> Key:
        """Return a new key from the operating system's randomness."""
        return cls.from_bytes(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def from_bytes(cls, secret: bytes) -> Key:
        """Return the key with this secret.

        Args:
            secret: 32 bytes of full entropy; not a passphrase, nor anything else that can be
                guessed, for nothing here slows a guesser down.

        Raises:
            CipherKeyError: Another type or length.
        """
        if not isinstance(secret, (bytes, bytearray, memoryview)):
            raise CipherKeyError(
                f"expected a key's secret as {SECRET_BYTES} bytes, got {type(secret).__name__}; "
                "a passphrase is no key: seal a key file with it (scotoma keygen)"
            )
        content = bytes(secret)
        if len(content) != SECRET_BYTES:
            raise CipherKeyError(
                f"expected a key's secret as {SECRET_BYTES} bytes, got {len(content)}; "
                "make one with Key.generate()"
            )
        key = object.__new__(cls)
        key.__secret = content
        key.__root = hmac.digest(_SALT, content, "sha256")
        key.__mac = _expand(key.__root, "mac")
        key.__stream = _expand(key.__root, "stream")
        return key

    @property
    def key_id(self) -> str:
        """16 hex digits: the key's public name, which tells nothing of the secret."""
        return _expand(self.__root, "id")[:_ID_BYTES].hex()

    def subkey(self, purpose: str) -> Key:
        """Return the key for one purpose: a dataset, a picture, a scheme.

        Args:
            purpose: Any text, taken code point by code point; spell it the same every time.

        Security:
            Whoever gets a subkey has what was made with it, and neither its siblings nor
            this key.
        """
        return Key.from_bytes(_expand(self.__root, "subkey", purpose))

    def stream(self, label: str, size: int) -> bytes:
        """Return pseudorandom bytes that only this key and label give.

        A longer stream under the same label begins with the shorter one.

        Args:
            label: What the bytes are for; another label gives independent bytes.
            size: Number of bytes, below 512 MiB.

        Raises:
            SettingsError: A size that no stream has.
        """
        if not (isinstance(size, int) and 0 <= size <= _LONGEST_STREAM):
            raise SettingsError(
                f"expected a stream of 0 to {_LONGEST_STREAM} bytes, got {size!r}; "
                "take several labels for more"
            )
        return hashlib.shake_256(self.__stream + _framed(label)).digest(size)

    def mac(self, data: bytes) -> bytes:
        """Return the 32-byte HMAC-SHA256 of ``data``: only key holders can make or check it.

        Compare with :func:`hmac.compare_digest`, never with ``==``.
        """
        return hmac.digest(self.__mac, data, "sha256")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        return hmac.compare_digest(self.__secret, other.__secret)

    def __hash__(self) -> int:
        return hash(self.key_id)

    def __repr__(self) -> str:
        return f"Key(id={self.key_id})"


def export_secret(key: Key) -> bytes:
    """Return a key's 32 secret bytes, for a key file or another program's key store.

    A function of its own, so that a search for its name finds every place where a secret
    leaves its key.
    """
    secret: bytes = key._Key__secret  # type: ignore[attr-defined]
    return secret


class KeyRing(_Secret):
    """The generations of one key, newest last.

    New releases take :attr:`current`; older ones name the generation that reads them.

    Args:
        keys: At least one key, each once, oldest first.

    Raises:
        CipherKeyError: No key, a repeated one, or more than 1000.
    """

    __slots__ = ("__keys",)

    def __init__(self, keys: Iterable[Key]) -> None:
        self.__keys = tuple(keys)
        count = len(self.__keys)
        if not 1 <= count <= _MOST_GENERATIONS:
            raise CipherKeyError(
                f"expected 1 to {_MOST_GENERATIONS} keys in a ring, got {count}; "
                "start with KeyRing.generate(), and a new ring when one is full"
            )
        if len(set(self.ids())) != count:
            raise CipherKeyError(
                f"expected each key once in a ring, got ids {', '.join(self.ids())}; drop repeats"
            )

    @classmethod
    def generate(cls) -> KeyRing:
        """Return a ring of one new key."""
        return cls([Key.generate()])

    @property
    def current(self) -> Key:
        """The newest key, with which new releases are made."""
        return self.__keys[-1]

    @property
    def keys(self) -> tuple[Key, ...]:
        """All generations, oldest first."""
        return self.__keys

    def ids(self) -> tuple[str, ...]:
        """Return the public ids of all generations, oldest first."""
        return tuple(key.key_id for key in self.__keys)

    def find(self, key_id: str) -> Key:
        """Return the generation with this id.

        Raises:
            CipherKeyError: None has it.
        """
        for key in self.__keys:
            if key.key_id == key_id:
                return key
        raise CipherKeyError(
            f"expected key {key_id!r}, got a key file with {', '.join(self.ids())}; "
            "use the key file that the release was made with"
        )

    def rotate(self) -> KeyRing:
        """Return a ring with a new current key, all earlier ones kept."""
        return KeyRing([*self.__keys, Key.generate()])

    def __len__(self) -> int:
        return len(self.__keys)

    def __repr__(self) -> str:
        return f"KeyRing(ids={', '.join(self.ids())})"


def _framed(text: str) -> bytes:
    """Return text as bytes led by their number, so that no two lists of texts run together."""
    # "surrogatepass" is one to one and never fails, also for file names that are not UTF-8.
    content = text.encode("utf-8", "surrogatepass")
    return len(content).to_bytes(8, "big") + content


def _expand(root: bytes, *info: str) -> bytes:
    """Return the first 32 bytes of HKDF-Expand with SHA-256 (RFC 5869, Sec. 2.3)."""
    return hmac.digest(root, b"".join(map(_framed, info)) + b"\x01", "sha256")
