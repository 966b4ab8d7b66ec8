"""What a suite finds: every violation, in one error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Generator, Tensor

from scotoma.core.keys import Key
from scotoma.core.protocols import Protection, Release

__all__ = ["KEYS", "ConformanceError", "Findings", "is_frozen", "protect"]

KEYS = tuple(Key.from_bytes(bytes(range(first, first + 32))) for first in (0, 1))
"""Two keys for tests; everybody knows them."""

T = TypeVar("T")


class ConformanceError(AssertionError):
    """A protection or attack that breaks its word; the message lists every way in which it does."""


class Findings:
    """Violations, collected.

    Args:
        subject: What is checked.
    """

    def __init__(self, subject: object) -> None:
        self._subject = type(subject).__name__
        self._found: list[str] = []

    def expect(self, holds: bool, violation: str) -> None:
        """Note a violation unless something holds."""
        if not holds:
            self._found.append(violation)

    def attempt(self, what: str, action: Callable[[], T]) -> T | None:
        """Return what an action gives; its error is a violation."""
        try:
            return action()
        except Exception as error:  # whatever goes wrong in a plugin is what we are here to find
            self._found.append(f"{what}: {type(error).__name__}: {error}")
            return None

    def expect_error(self, kind: type[Exception], what: str, action: Callable[[], object]) -> None:
        """An action that does not raise ``kind`` is a violation."""
        try:
            action()
        except kind:
            return
        except Exception as error:  # as above
            self._found.append(f"{what}: expected {kind.__name__}, got {type(error).__name__}")
            return
        self._found.append(f"{what}: expected {kind.__name__}, got none")

    def close(self) -> None:
        """Raise what was found.

        Raises:
            ConformanceError: There is something.
        """
        if self._found:
            lines = "".join(f"\n  - {violation}" for violation in self._found)
            raise ConformanceError(f"{self._subject} breaks its word:{lines}")


def protect(protection: Protection, images: Tensor, key: Key | None, *, seed: int = 0) -> Release:
    """Return the release of pictures, its randomness from a seed."""
    return protection.protect(images, key, generator=Generator().manual_seed(seed))


def is_frozen(thing: Any) -> bool:
    """Whether a thing is of a dataclass that refuses to be changed."""
    found = getattr(type(thing), "__dataclass_params__", None)
    return found is not None and bool(found.frozen)
