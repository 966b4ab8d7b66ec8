"""Threat models by name: what an attacker sees and is granted.

Everybody knows the algorithm and its public settings (Kerckhoffs), and everybody has
pictures of the same kind. So ``simulate`` (the algorithm under keys of one's own) and
``auxiliary`` are granted by every threat model here; the attacked key is by none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from scotoma.core.errors import NotApplicableError, SettingsError
from scotoma.core.protocols import GRANTS, Knowledge, Protection, Release
from scotoma.core.registry import Registry

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from scotoma.core.keys import Key

__all__ = ["ThreatModel", "draw_key", "grant", "open_threat_model", "simulator", "threat_models"]

_PUBLIC = frozenset({"simulate", "auxiliary"})
_ALL_PAIRS = -1

T = TypeVar("T")


@dataclass(frozen=True)
class ThreatModel:
    """What an attacker sees and is granted.

    Args:
        name: As in configurations.
        summary: One line for listings.
        grants: Fields of :class:`~scotoma.core.protocols.Knowledge`.
        pictures_per_key: Pictures in the attacked release; None: as the evaluation says.
        pairs: Known pairs of picture and release under the attacked key, out of the auxiliary
            pictures; -1 for all of these.
        counts: What the number in ``NAME:NUMBER`` sets: ``pairs``, ``pictures_per_key`` or
            nothing.

    Raises:
        SettingsError: A grant that does not exist, or a number below 1.
    """

    name: str
    summary: str
    grants: frozenset[str] = _PUBLIC
    pictures_per_key: int | None = None
    pairs: int = 0
    counts: str = ""

    def __post_init__(self) -> None:
        unknown = self.grants - frozenset(GRANTS)
        if unknown:
            raise SettingsError(
                f"expected grants out of {', '.join(GRANTS)}, got {', '.join(sorted(unknown))}"
            )
        if self.pictures_per_key is not None and self.pictures_per_key < 1:
            raise SettingsError(f"expected at least 1 picture per key, got {self.pictures_per_key}")
        if ("pairs" in self.grants) != (self.pairs != 0) or self.pairs < _ALL_PAIRS:
            raise SettingsError(
                f"expected a number of pairs where, and only where, pairs are granted, "
                f"got {self.pairs}"
            )


threat_models: Registry[ThreatModel] = Registry("threat model")

for _model in (
    ThreatModel(
        "one-release",
        "sees one release under a fresh key",
        pictures_per_key=1,
    ),
    ThreatModel(
        "many-releases",
        "sees many releases under one key; many-releases:N says how many",
        counts="pictures_per_key",
    ),
    ThreatModel(
        "known-plaintext",
        "has pairs of picture and release under the key; known-plaintext:N says how many",
        _PUBLIC | {"pairs"},
        pairs=1,
        counts="pairs",
    ),
    ThreatModel(
        "chosen-plaintext",
        "has any picture protected under the key",
        _PUBLIC | {"protect"},
    ),
    ThreatModel(
        "server",
        "holds the adapted model",
        _PUBLIC | {"adapted_model"},
    ),
    ThreatModel(
        "server-public",
        "holds the adapted model and the public one it was made from",
        _PUBLIC | {"adapted_model", "public_model"},
    ),
    ThreatModel(
        "insider",
        "has all auxiliary pictures protected under the key, and may have more",
        _PUBLIC | {"pairs", "protect"},
        pairs=_ALL_PAIRS,
    ),
):
    threat_models.register(_model.name)(_model)


def open_threat_model(spec: str | ThreatModel) -> ThreatModel:
    """Return the threat model of ``NAME`` or ``NAME:NUMBER``, as ``known-plaintext:10``.

    Raises:
        UnknownNameError: No such name; the message suggests the nearest.
        SettingsError: A number that is none, below 1, or that the model does not take.
    """
    if isinstance(spec, ThreatModel):
        return spec
    name, colon, number = spec.partition(":")
    model = threat_models.get(name)
    if not colon:
        return model
    if not model.counts:
        raise SettingsError(f"expected {name!r} without a number, got {spec!r}")
    if not (number.isdecimal() and int(number) >= 1):
        raise SettingsError(f"expected {name}:NUMBER with a number of at least 1, got {spec!r}")
    if model.counts == "pairs":
        return replace(model, name=spec, pairs=int(number))
    return replace(model, name=spec, pictures_per_key=int(number))


@contextmanager
def grant(
    threat_model: ThreatModel,
    protection: Protection,
    key: Key | None,
    *,
    auxiliary: Tensor | None,
    adapted_model: Callable[[], nn.Module] | None = None,
    public_model: nn.Module | None = None,
    generator: Generator,
) -> Iterator[Knowledge]:
    """Yield what a threat model grants against one key; its oracle answers until the end.

    Args:
        threat_model: Says what.
        protection: As the owner uses it; attackers get copies that never saw the key.
        key: The attacked one; never part of what is yielded.
        auxiliary: ``(N, 3, H, W)`` pictures in [0, 1] of which none is attacked.
        adapted_model: Makes the model that reads releases; called only where it is granted.
        public_model: The model before it was adapted.
        generator: Of the owner's randomness, on the CPU.

    Raises:
        NotApplicableError: There is no model, or there are too few auxiliary pictures.
        SecretError: The protection holds a key, where keys are arguments.
    """
    from scotoma.evaluate.oracle import Oracle

    # A copy has none of the maps that the owner's own object keeps.
    own = copy.deepcopy(protection) if protection.keyed else protection
    granted = threat_model.grants
    known: dict[str, Any] = {
        "simulate": simulator(copy.deepcopy(own) if own.keyed else own),
        "auxiliary": auxiliary,
    }
    if "pairs" in granted:
        known["pairs"] = _pairs(threat_model, own, key, auxiliary, generator)
    if "public_model" in granted:
        known["public_model"] = _there(public_model)
    if "adapted_model" in granted:
        known["adapted_model"] = _there(adapted_model)()
    if "protect" not in granted:
        yield Knowledge(**known)
        return
    with Oracle(lambda images: own.protect(images, key, generator=generator)) as oracle:
        yield Knowledge(**known, protect=oracle)


def draw_key(generator: Generator) -> Key:
    """Return a key for an experiment, drawn from its generator; not one to protect anything."""
    import torch

    from scotoma.core.keys import Key

    drawn = torch.randint(256, (32,), dtype=torch.uint8, generator=generator)
    return Key.from_bytes(drawn.numpy().tobytes())


def simulator(protection: Protection) -> Callable[[Tensor, Generator], Release]:
    """Return what makes releases under fresh keys, drawn from the generator it is given.

    Args:
        protection: Takes pictures in [0, 1]; one that never saw the attacked key.
    """

    def simulate(images: Tensor, generator: Generator) -> Release:
        key = draw_key(generator) if protection.keyed else None
        return protection.protect(images, key, generator=generator)

    return simulate


def _pairs(
    threat_model: ThreatModel,
    protection: Protection,
    key: Key | None,
    auxiliary: Tensor | None,
    generator: Generator,
) -> tuple[Tensor, Release]:
    there = 0 if auxiliary is None else len(auxiliary)
    wanted = there if threat_model.pairs == _ALL_PAIRS else threat_model.pairs
    if auxiliary is None or not 0 < wanted <= there:
        raise NotApplicableError(
            f"expected at least {max(wanted, 1)} auxiliary pictures for the pairs of "
            f"{threat_model.name!r}, got {there}; set auxiliary to more"
        )
    pictures = auxiliary[:wanted]
    return pictures, protection.protect(pictures, key, generator=generator)


def _there(model: T | None) -> T:
    if model is None:
        raise NotApplicableError("expected a model for this threat model, got none")
    return model
