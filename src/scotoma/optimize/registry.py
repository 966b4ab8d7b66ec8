"""The optimizers by name: each a frozen dataclass of settings, all with defaults.

Names, summaries and sources are here so that they can be listed without importing anybody; a
method's module is imported when somebody gets it. A plugin is an entry point in the group
``scotoma.optimizers`` that names such a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.core.registry import Registry
from scotoma.optimize.bounds import Bounds, Values
from scotoma.optimize.optimizer import Method, Optimizer, Task

__all__ = ["ENTRIES", "Entry", "open_method", "open_optimizer", "optimizers"]


@dataclass(frozen=True)
class Entry:
    """One built-in optimizer, as listings show it.

    Args:
        name: As settings and command lines have it.
        home: ``"module:Class"`` below ``scotoma.optimize``.
        summary: One line.
        source: Whose method it is.
    """

    name: str
    home: str
    summary: str
    source: str


_ALL = (
    Entry(
        "fda",
        "fractal:FractalDecomposition",
        "spheres within spheres, then coordinate steps that halve: as published",
        "Nakib et al. 2017",
    ),
    Entry(
        "fda-lines",
        "fractal_lines:FractalLines",
        "spheres within spheres, all lines at once: scans, parabolas, remembered slopes",
        "this project, after Nakib et al. 2017",
    ),
    Entry(
        "cma-es",
        "cma_es:CMAES",
        "evolution strategy that learns a covariance matrix (library cma)",
        "Hansen, Ostermeier 2001",
    ),
    Entry(
        "de",
        "differential_evolution:DifferentialEvolution",
        "differential evolution (library SciPy)",
        "Storn, Price 1997",
    ),
    Entry(
        "pso",
        "particle_swarm:ParticleSwarm",
        "standard particle swarm of 2011 (library nevergrad)",
        "Clerc 2012",
    ),
    Entry(
        "random",
        "random_search:RandomSearch",
        "uniform random points: what any search must beat",
        "textbook",
    ),
)

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ALL}
"""The built-in optimizers by name; plugins are in :data:`optimizers` only."""

optimizers: Registry[type[Method]] = Registry("optimizer")

for _entry in _ALL:
    optimizers.defer(_entry.name, f"scotoma.optimize.{_entry.home}")


def open_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """Return a method with its settings.

    Args:
        name: From :data:`optimizers`.
        settings: Fields of the method's dataclass that differ from their defaults.

    Raises:
        UnknownNameError: No such optimizer, or no such setting of it.
        SettingsError: A setting that the method refuses.
        MissingExtraError: The method's library is not installed.
    """
    kind: Any = optimizers.get(name)
    known = [field.name for field in fields(kind)]
    for setting in settings or {}:
        if setting not in known:
            raise UnknownNameError(f"setting of optimizer {name!r}", setting, known)
    try:
        method: Method = kind(**(settings or {}))
    except TypeError as error:
        raise SettingsError(f"expected settings that optimizer {name!r} takes: {error}") from error
    return method


def open_optimizer(
    name: str,
    bounds: Bounds,
    *,
    budget: int,
    seed: int,
    start: Values | None = None,
    batch: int | None = None,
    **settings: Any,
) -> Optimizer:
    """Begin a search by name, without anybody who counts; see :class:`~.search.Search` for that.

    Args:
        name: From :data:`optimizers`.
        bounds: Box that is searched.
        budget: Evaluations it may plan with, from 1.
        seed: Of everything random, from 0.
        start: ``(D,)`` point inside the box to begin at; None leaves it to the method.
        batch: Most points of one ask; None leaves it to the method.
        settings: Of the method.

    Returns:
        An optimizer whose ``ask`` gives the first points.

    Raises:
        SettingsError: As :class:`Task` and :func:`open_method`.
    """
    return open_method(name, settings).open(Task(bounds, budget, seed, start, batch))
