"""An evaluation as a TOML file: protections × attacks × threat models × models × data.

::

    [run]                    seed, pictures_per_key, metrics, threat_models, ...
    [data.LABEL]             path and how many pictures
    [models.LABEL]           spec
    [protections.LABEL]      name in a registry, and its settings
    [attacks.LABEL]          name in the registry, its settings, its threat models
    [[paper]]                a published figure for a cell

:mod:`.config_reader` makes this of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.evaluate.records import Choice, Paper
from scotoma.evaluate.threat_models import ThreatModel

if TYPE_CHECKING:
    from scotoma.core.protocols import Attack, TrainableAttack
    from scotoma.evaluate.data import DataSettings

__all__ = [
    "AttackCell",
    "Config",
    "DataCell",
    "PaperCell",
    "ProtectionCell",
    "RunSettings",
    "open_attack",
    "tuples",
]

_DEFAULT_METRICS = ("block_brightness_correlation", "psnr_db", "ssim")


@dataclass(frozen=True)
class RunSettings:
    """What holds for every cell.

    Args:
        seed: Of everything random.
        pictures_per_key: Pictures in one release, unless the threat model says.
        metrics: Names in the registry of metrics.
        threat_models: Under which attacks are tried that name none.
        embedder: ``onnx:FILE`` of a face embedder, for data of identities.
        detectors: Asked whether they still find in guesses what they find in the originals:
            names in the registry, or ``onnx:FILE``.

    Raises:
        SettingsError: A number out of range.
    """

    seed: int = 0
    pictures_per_key: int = 40
    metrics: tuple[str, ...] = _DEFAULT_METRICS
    threat_models: tuple[str, ...] = ("many-releases",)
    embedder: str | None = None
    detectors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"expected a seed from 0 to 2^63 - 1, got {self.seed}")
        if not self.pictures_per_key >= 1:
            raise SettingsError(
                f"expected pictures_per_key of at least 1, got {self.pictures_per_key}"
            )


@dataclass(frozen=True)
class DataCell:
    """Pictures as configured.

    Args:
        settings: Which and how many.
        models: Labels of the models that read them; all by default.
    """

    settings: DataSettings
    models: tuple[str, ...]


@dataclass(frozen=True)
class ProtectionCell:
    """A protection as configured.

    Args:
        choice: Name, settings, label.
        models: Labels of the models that read it.
    """

    choice: Choice
    models: tuple[str, ...]


@dataclass(frozen=True)
class AttackCell:
    """An attack as configured.

    Args:
        choice: Name, settings, label.
        attack: The attack itself.
        threat_models: Under which it is tried.
        protections: Labels of the protections it is tried on.
    """

    choice: Choice
    attack: Attack | TrainableAttack
    threat_models: tuple[ThreatModel, ...]
    protections: tuple[str, ...]


@dataclass(frozen=True)
class PaperCell:
    """A published figure.

    Args:
        protection: Label.
        attack: Label; empty for utility.
        metric: Name.
        figure: Value and source.
    """

    protection: str
    attack: str
    metric: str
    figure: Paper


@dataclass(frozen=True)
class Config:
    """A whole evaluation.

    Args:
        run: What holds for every cell.
        data: By label.
        models: SPECs by label.
        protections: By label.
        attacks: By label.
        papers: Published figures.
    """

    run: RunSettings
    data: Mapping[str, DataCell]
    models: Mapping[str, str]
    protections: Mapping[str, ProtectionCell]
    attacks: Mapping[str, AttackCell]
    papers: tuple[PaperCell, ...] = ()

    def papers_of(self, protection: str, attack: str) -> dict[str, Paper]:
        """Return the published figures of a cell, by metric."""
        cell = (protection, attack)
        return {p.metric: p.figure for p in self.papers if (p.protection, p.attack) == cell}


def open_attack(name: str, settings: Mapping[str, Any] | None = None) -> Attack | TrainableAttack:
    """Return the attack of a name with its settings.

    Raises:
        UnknownNameError: No such attack or setting; the message suggests the nearest.
        SettingsError: A setting out of range.
    """
    from scotoma.attacks.registry import attacks

    kind: Any = attacks.get(name)
    options = dict(settings or {})
    known = [one.name for one in fields(kind) if one.init] if is_dataclass(kind) else []
    for option in options:
        if option not in known:
            raise UnknownNameError(f"setting of attack {name!r}", option, known)
    made: Attack | TrainableAttack = kind(**{key: tuples(value) for key, value in options.items()})
    return made


def tuples(value: Any) -> Any:
    """Return a value with its lists, however deep, as tuples."""
    return tuple(tuples(part) for part in value) if isinstance(value, list) else value
