"""One cell of the table: pictures are protected, an attack guesses, the guesses are judged.

::

    pictures ─► groups of one key ─► protect ─► Release ─► attack.run ─► guesses ─► Judge
                                         └► grant(threat model) ─► Knowledge ─┘

Groups go through one after another, and of each only numbers stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from scotoma.core.errors import (
    NotApplicableError,
    ScotomaError,
    SettingsError,
    UnsupportedModelError,
)
from scotoma.core.protocols import Attack, Protection, TrainableAttack
from scotoma.evaluate.groups import regroup
from scotoma.evaluate.judge import Judge, SetJudge
from scotoma.evaluate.measurement import Measurement, Shown
from scotoma.evaluate.records import Choice, Paper, Record
from scotoma.evaluate.subjects import describe
from scotoma.evaluate.threat_models import ThreatModel, open_threat_model
from scotoma.evaluate.trivial import Trivial
from scotoma.models.classifier import Classifier

__all__ = ["DEFAULT_METRICS", "PICTURES_PER_KEY", "evaluate"]

PICTURES_PER_KEY = 40
"""Pictures in one release where neither threat model nor caller says."""

DEFAULT_METRICS = ("block_brightness_correlation", "psnr_db", "ssim")
"""What is measured where the caller does not say."""

Images = Tensor | Iterable[Tensor | tuple[Tensor, Tensor]]


def evaluate(
    protection: Protection,
    attack: Attack | TrainableAttack,
    images: Images,
    *,
    threat_model: str | ThreatModel = "many-releases",
    auxiliary: Tensor | None = None,
    model: Classifier | None = None,
    pictures_per_key: int = PICTURES_PER_KEY,
    metrics: Sequence[str] = DEFAULT_METRICS,
    set_judges: Callable[[], Sequence[SetJudge]] = tuple,
    seed: int = 0,
    data: str = "pictures",
    chosen: tuple[Choice, Choice] | None = None,
    paper: Mapping[str, Paper] | None = None,
    checkpoint: Path | None = None,
    on_progress: Callable[[str, int, int | None], None] | None = None,
    on_release: Callable[[Shown], None] | None = None,
) -> Record:
    """Measure what an attack gets out of a protection under a threat model.

    Args:
        protection: Takes pictures in [0, 1]; see :func:`.subjects.open_subject`.
        attack: One that runs, or one that learns first.
        images: ``(N, 3, H, W)`` float32 in [0, 1], or batches of them, with or without
            ``(B,)`` labels; batches are read as they are needed.
        threat_model: Name, ``NAME:NUMBER``, or the model itself.
        auxiliary: ``(N, 3, H, W)`` pictures of the same kind, none of them attacked.
        model: Reads what the protection makes; granted where the threat model says so.
        pictures_per_key: Pictures in one release, unless the threat model says.
        metrics: Names in the registry of metrics.
        set_judges: Makes judges of all guesses together; called anew for each trivial guess.
        seed: Of keys, fresh randomness, the attack's randomness and the trivial guess.
        data: Name of the pictures, for the record.
        chosen: Name and settings of protection and attack, for the record.
        paper: Published figures, by metric.
        checkpoint: Where an attack that learns keeps its state.
        on_progress: Called with (what, done, in all or None).
        on_release: Called with each release, its originals and the guesses.

    Returns:
        A record; its status says whether the attack applies and did not fail. An attack's own
        errors end up there, so that a table goes on.

    Raises:
        SettingsError: Arguments that make no measurement: no picture, no such metric.
    """
    known = open_threat_model(threat_model)
    size = known.pictures_per_key or pictures_per_key
    if size < 1:
        raise SettingsError(f"expected at least 1 picture per key, got {size}")
    names = chosen or (describe(protection), _describe_attack(attack))
    blank = Record(
        kind="attack",
        protection=names[0],
        attack=names[1],
        threat_model=known.name,
        model="" if model is None else model.spec,
        data=data,
        n=0,
        seed=seed,
        pictures_per_key=size,
        paper=dict(paper or {}),
    )
    begun = time.perf_counter()
    cell = Measurement(
        protection,
        attack,
        known,
        auxiliary,
        model,
        seed,
        checkpoint,
        on_progress,
        on_release,
        judge=Judge(metrics, set_judges()),
        trivial=Trivial(auxiliary, lambda: Judge(metrics, set_judges()), seed),
    )
    try:
        cell.check()
        for group in regroup(images, size):
            cell.attack_group(group)
        record = cell.finish(blank)
    except (NotApplicableError, UnsupportedModelError) as error:
        record = replace(blank, status="not-applicable", reason=str(error))
    except ScotomaError as error:
        record = replace(blank, status="failed", reason=str(error))
    except Exception as error:  # an attack's own bug costs its cell, not the table
        record = replace(blank, status="failed", reason=f"{type(error).__name__}: {error}")
    return replace(record, seconds=round(time.perf_counter() - begun, 2))


def _describe_attack(attack: object) -> Choice:
    """Return class and settings of an attack that nobody named."""
    settings: Any = asdict(attack) if is_dataclass(attack) and not isinstance(attack, type) else {}
    return Choice(type(attack).__name__, settings)
