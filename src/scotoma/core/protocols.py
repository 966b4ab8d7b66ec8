"""What every protection has in common: it makes releases, and it makes models read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from scotoma.core.errors import SettingsError

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from scotoma.core.keys import Key

__all__ = ["Protection", "Release"]


@dataclass(frozen=True, eq=False)
class Release:
    """All that leaves the owner: protected pictures and what anyone may know of them.

    Args:
        data: ``(B, C', H', W')`` float32.
        metadata: Plain data that JSON can hold, public. It is copied; tuples become lists.

    Raises:
        SettingsError: ``metadata`` is not plain data.

    Security:
        Whatever is in ``metadata`` is written beside the pictures. A key is not plain data
        and is refused; only its id may be named.
    """

    data: Tensor
    metadata: Mapping[str, Any]

    def __post_init__(self) -> None:
        try:
            plain = json.loads(json.dumps(dict(self.metadata), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise SettingsError(
                "expected metadata of strings, finite numbers, booleans, lists and mappings, "
                f"got: {error}"
            ) from error
        object.__setattr__(self, "metadata", plain)

    def __repr__(self) -> str:
        return f"Release({tuple(self.data.shape)}, {self.metadata})"


@runtime_checkable
class Protection(Protocol):
    """One way to protect pictures, its settings fixed; pictures and keys are arguments."""

    @property
    def keyed(self) -> bool:
        """Whether :meth:`protect` and :meth:`adapt` need a key."""

    def protect(
        self, images: Tensor, key: Key | None = None, *, generator: Generator | None = None
    ) -> Release:
        """Return the release of a batch of pictures as the network would read them."""

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return a model that reads releases; the given one stays as it is."""
