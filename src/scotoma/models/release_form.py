"""Which releases a model reads, as public data that both sides can compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scotoma.core.errors import ModelError, ReleaseError
from scotoma.core.protocols import Release
from scotoma.models.preprocessing import Preprocessing

__all__ = ["ReleaseForm", "check_preprocessing"]

_CIPHER = ("scheme", "key_id", "dataset", "settings")
# Floats went through a file and back, which keeps them; a pixel more or less it does not.
_MOST_VALUES = 2**27  # half a GiB for one release; more is no picture that a network reads
_READING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


@dataclass(frozen=True)
class ReleaseForm:
    """What a release must say of itself for an adapted model to read it.

    Args:
        scheme: Name of the protection scheme.
        key_id: Public id of the key that it was made with; None for key-less schemes.
        dataset: Label of the pictures' set; None where there is none.
        settings: Of the scheme.
        shape: ``(C', H', W')`` of the release's numbers.

    Raises:
        ModelError: Not such data.
    """

    scheme: str
    key_id: str | None
    dataset: str | None
    settings: Mapping[str, Any]
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        sides = self.shape
        if len(sides) != 3 or not all(type(side) is int and side >= 1 for side in sides):
            raise ModelError(f"expected a release's shape (C, H, W), got {self.shape!r}")
        # A model's file says it, before a network of its own making is asked.
        if not math.prod(sides) <= _MOST_VALUES:
            raise ModelError(
                f"expected a release of at most {_MOST_VALUES} values, got {self.shape!r}; "
                "adapt the model again"
            )
        texts = (self.scheme, self.key_id or "", self.dataset or "")
        if not (all(isinstance(t, str) for t in texts) and isinstance(self.settings, Mapping)):
            raise ModelError(
                "expected a release's scheme, key id, dataset as text, and settings by name, got "
                f"{(*texts, self.settings)!r}; adapt the model again"
            )

    @classmethod
    def of(cls, release: Release) -> ReleaseForm:
        """Return the form of a release.

        Raises:
            ReleaseError: Its metadata say no scheme.
        """
        try:
            found = {name: release.metadata[name] for name in _CIPHER}
        except KeyError as error:
            raise ReleaseError(
                f"expected a release whose metadata name its {error.args[0]}, got none; "
                "encrypt the picture again"
            ) from error
        _, channels, height, width = release.data.shape
        return cls(**found, shape=(channels, height, width))

    def to_config(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_config` reads back."""
        return {
            **{name: getattr(self, name) for name in _CIPHER},
            "settings": dict(self.settings),
            "shape": list(self.shape),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ReleaseForm:
        """Read what :meth:`to_config` wrote.

        Raises:
            ModelError: It is something else.
        """
        try:
            found = {name: config[name] for name in _CIPHER}
            return cls(**found, shape=tuple(config["shape"]))
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"expected a description of the releases that a model reads, got {config!r}; "
                "adapt the model again"
            ) from error

    def check(self, release: Release, reader: str) -> None:
        """Raise unless a model of this form reads ``release``.

        Args:
            release: What there is to read.
            reader: The model's name, for the message.

        Raises:
            ReleaseError: Another scheme, key, dataset, setting or size.
        """
        found = ReleaseForm.of(release)
        for name, words in (
            ("scheme", "scheme"),
            ("key_id", "key"),
            ("dataset", "dataset label"),
            ("settings", "settings"),
            ("shape", "shape"),
        ):
            wanted, got = getattr(self, name), getattr(found, name)
            if wanted != got:
                raise ReleaseError(
                    f"expected a release of {words} {_shown(wanted)} for {reader}, "
                    f"got one of {words} {_shown(got)}; encrypt with what the model was adapted "
                    "to, or adapt the model to the release"
                )

    def __str__(self) -> str:
        key = f" under key {self.key_id}" if self.key_id else ""
        label = f", dataset {self.dataset!r}" if self.dataset else ""
        return f"scheme {self.scheme!r}{key}{label}"


def check_preprocessing(preprocessing: Preprocessing, release: Release, reader: str) -> None:
    """Raise unless the release's pictures were read as the model reads them.

    Args:
        preprocessing: The model's.
        release: What there is to read.
        reader: The model's name, for the message.

    Raises:
        ReleaseError: Another size, normalization or resize.
    """
    config = preprocessing.to_config()
    for name in _READING:
        wanted, got = _plain(config[name]), _plain(release.metadata.get(name))
        if wanted != got:
            raise ReleaseError(
                f"expected pictures read with {name} {wanted} for {reader}, got {name} {got}; "
                "encrypt with --model naming the model that will read them"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
