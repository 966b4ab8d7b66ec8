"""What all methods have in common: protections make releases, attacks guess what is in them.

::

    owner      protection.protect(images, key) ──► Release
    consumer   protection.adapt(model, key)    ──► a model that reads releases
    attacker   attack.run(release, knowledge)  ──► guesses; ``evaluate`` alone judges them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from scotoma.core.errors import NotGrantedError, SettingsError

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from scotoma.core.keys import Key

__all__ = ["GRANTS", "Attack", "Knowledge", "Protection", "Release", "TrainableAttack"]


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


@dataclass(frozen=True, eq=False, repr=False)
class Knowledge:
    """What a threat model grants an attacker besides the release; reading anything else raises.

    Everybody knows the algorithm and its public settings (Kerckhoffs), so ``simulate`` and
    public pictures are granted widely; a key is never among what is granted.

    Args:
        pairs: ``((N, 3, H, W) pictures in [0, 1], their release)``, made like the attacked
            release, under the same key.
        protect: Makes the release of ``(N, 3, H, W)`` pictures in [0, 1] that the attacker
            chooses, under the attacked key.
        simulate: Makes the release of pictures under a fresh key, drawn from the generator.
        auxiliary: ``(N, 3, H, W)`` pictures in [0, 1] of the same kind as the attacked ones,
            none of which is among them.
        adapted_model: The model that reads releases.
        public_model: The model before it was adapted.

    Raises:
        NotGrantedError: By :meth:`get` and by the attributes, for what is None.
    """

    pairs: tuple[Tensor, Release] | None = None
    protect: Callable[[Tensor], Release] | None = None
    simulate: Callable[[Tensor, Generator], Release] | None = None
    auxiliary: Tensor | None = None
    adapted_model: nn.Module | None = None
    public_model: nn.Module | None = None

    @property
    def granted(self) -> frozenset[str]:
        """Names of what is granted."""
        kept = object.__getattribute__(self, "__dict__")
        return frozenset(name for name, value in kept.items() if value is not None)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if value is None and name in GRANTS:
            raise NotGrantedError(
                f"expected a threat model that grants {name!r}, got one that grants "
                f"{', '.join(sorted(self.granted)) or 'the release alone'}"
            )
        return value

    def __repr__(self) -> str:
        return f"Knowledge({', '.join(sorted(self.granted))})"


GRANTS: tuple[str, ...] = tuple(field.name for field in fields(Knowledge))
"""Names of all that a threat model can grant."""


@runtime_checkable
class Attack(Protocol):
    """One way to guess pictures from a release; a frozen dataclass of its settings.

    ``needs`` names the fields of :class:`Knowledge` that it reads.
    """

    needs: ClassVar[frozenset[str]]

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        """Guess the pictures of a release.

        Args:
            release: Pictures under one key, if there is one.
            knowledge: What the threat model grants.
            generator: Of all randomness, on the CPU.

        Returns:
            ``(B, 3, H, W)`` float32 guesses in [0, 1], one per picture in the pictures' own
            size; or ``(K, B, 3, H, W)``, candidates among which only an oracle could choose:
            whoever judges takes the best one for the whole release and says so.

        Raises:
            NotGrantedError: It reads what is not granted.
            NotApplicableError: It has no hold on this kind of release.
        """


@runtime_checkable
class TrainableAttack(Protocol):
    """An attack that learns before it runs."""

    needs: ClassVar[frozenset[str]]

    def fit(
        self,
        knowledge: Knowledge,
        *,
        generator: Generator,
        checkpoint: Path | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Attack:
        """Return the attack that was learned; this object stays as it is.

        Args:
            knowledge: What the threat model grants.
            generator: Of all randomness, on the CPU.
            checkpoint: File of the training state: a stopped run goes on from it.
            on_step: Called with (steps done, steps in all).
        """
