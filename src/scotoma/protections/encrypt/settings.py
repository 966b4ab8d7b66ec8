"""What decides an encryption besides the pictures and the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scotoma.core.errors import ReleaseError, SettingsError, UnknownNameError
from scotoma.protections.encrypt.schemes import Scheme, schemes

__all__ = ["INNER", "STRONGEST_NOISE", "EncryptSettings"]

INNER = ("none", "orthogonal", "permute")
"""What ``block-shuffle`` may do within a block."""

STRONGEST_NOISE = 64.0
"""Above it float32 no longer keeps the picture within 1e-4."""


@dataclass(frozen=True)
class EncryptSettings:
    """Settings of one scheme; all of them are public.

    Args:
        scheme: Name in :data:`scotoma.protections.encrypt.schemes.schemes`.
        block: Side of a block or patch, in pixels of what the network reads.
        period: ``orthogonal-per-block``: maps repeat every so many blocks down and across;
            None gives every position of the picture its own.
        inner: ``block-shuffle``: what happens within a block, ``none``, ``orthogonal`` or
            ``permute``.
        sub_patches: ``mix``: parts of a patch that are averaged, a square number.
        noise_planes: ``hardened``: planes of fresh noise that a release has more than the picture.
        noise: ``hardened``: how many times stronger than a photograph the noise is, in root mean
            squares of whitened values. Rounding errors grow with it.
        dataset: Label that, with the key, decides the maps of a keyed scheme. Pictures under
            one label share their maps; a label per picture gives each its own.

    Raises:
        UnknownNameError: No such scheme or inner cipher.
        SettingsError: A value outside its range, or one that the scheme does not read.
    """

    scheme: str = "orthogonal"
    block: int = 16
    period: tuple[int, int] | None = None
    inner: str = "none"
    sub_patches: int = 4
    noise_planes: int = 1
    noise: float = 8.0
    dataset: str = ""

    def __post_init__(self) -> None:
        _check_side("block", self.block)
        if not isinstance(self.dataset, str):
            raise SettingsError(f"expected dataset as text, got {type(self.dataset).__name__}")
        if self.inner not in INNER:
            raise UnknownNameError("inner cipher", self.inner, INNER)
        if self.period is not None:
            if not (isinstance(self.period, tuple) and len(self.period) == 2):
                raise SettingsError(
                    f"expected period (down, across) in blocks, got {self.period!r}"
                )
            for side in self.period:
                _check_side("period", side)
        self._check_sub_patches()
        self._check_noise()
        self._check_options(schemes.get(self.scheme))

    @property
    def parts(self) -> int:
        """Sub-patches down and across a patch."""
        return math.isqrt(self.sub_patches)

    def to_config(self) -> dict[str, Any]:
        """Return block and the scheme's own options as plain data, for a release's metadata."""
        names = ["block", *sorted(schemes.get(self.scheme).options)]
        values = {name: getattr(self, name) for name in names}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> EncryptSettings:
        """Return the settings that a release names.

        Raises:
            ReleaseError: The metadata name no scheme of ours, or settings it cannot have.
        """
        try:
            options: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in metadata["settings"].items()
            }
            return cls(scheme=metadata["scheme"], dataset=metadata["dataset"] or "", **options)
        except (AttributeError, KeyError, TypeError, SettingsError) as error:
            raise ReleaseError(
                f"expected a release of a known scheme, got {error}; "
                "update scotoma, or install the plugin that made it"
            ) from error

    def _check_sub_patches(self) -> None:
        _check_side("sub_patches", self.sub_patches)
        if self.sub_patches == 1 or self.parts**2 != self.sub_patches:
            raise SettingsError(
                f"expected sub_patches as a square number above 1, got {self.sub_patches}"
            )

    def _check_noise(self) -> None:
        _check_side("noise_planes", self.noise_planes)
        if isinstance(self.noise, bool) or not (
            isinstance(self.noise, int | float) and 0 < self.noise <= STRONGEST_NOISE
        ):
            raise SettingsError(
                f"expected noise above 0 and up to {STRONGEST_NOISE:g} times the picture, "
                f"got {self.noise!r}"
            )

    def _check_options(self, scheme: Scheme) -> None:
        for field in fields(self):
            if field.name in {"scheme", "block", "dataset"} or field.name in scheme.options:
                continue
            if getattr(self, field.name) != field.default:
                raise SettingsError(
                    f"expected no {field.name} for scheme {self.scheme!r}, which does not read "
                    f"it, got {getattr(self, field.name)!r}; leave it out"
                )
        if not self.block >= scheme.least_block:
            raise SettingsError(
                f"expected a block of at least {scheme.least_block} for scheme {self.scheme!r}, "
                f"got {self.block}, with which everyone would see the picture; take 4 or more"
            )
        if self.dataset and not scheme.keyed:
            raise SettingsError(
                f"expected no dataset label for the key-less scheme {self.scheme!r}, "
                f"got {self.dataset!r}; leave it out"
            )
        if "sub_patches" in scheme.options and self.block % self.parts:
            raise SettingsError(
                f"expected a block that {self.parts}×{self.parts} sub-patches divide, "
                f"got {self.block}"
            )


def _check_side(name: str, value: object) -> None:
    if not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        raise SettingsError(f"expected {name} as a whole number of at least 1, got {value!r}")
