"""Which kernels become fractional: the most that accuracy, measured, allows.

Each layer has a share of its kernels replaced, those first whose replacement does least harm.
The shares are what is searched; only shares whose accuracy was measured and found good enough
are ever returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scotoma.compress.fractional_layer import FractionalLayer
from scotoma.core.errors import ScoreError, SettingsError, UnknownNameError

__all__ = ["Selection", "SelectionSettings", "choose_kernels", "replace_kernels"]

Masks = dict[str, Tensor]

_THRESHOLD = "threshold"


@dataclass(frozen=True)
class SelectionSettings:
    """How the shares are found.

    Args:
        method: An optimizer's name; or ``"threshold"``: one limit of harm for all layers,
            halved upon.
        budget: Measurements of accuracy, from 1; the first is that of no fractional kernel.
        seed: Of the optimizer.

    Raises:
        UnknownNameError: No such method.
        SettingsError: A number out of range.
    """

    method: str = "fda-lines"
    budget: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method != _THRESHOLD:
            from scotoma.optimize.registry import optimizers

            names = optimizers.names()
            if self.method not in names:
                raise UnknownNameError("selection method", self.method, [_THRESHOLD, *names])
        if not self.budget >= 1:
            raise SettingsError(f"expected a budget of at least 1, got {self.budget}")
        if not self.seed >= 0:
            raise SettingsError(f"expected a seed of at least 0, got {self.seed}")


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen.

    Args:
        masks: By layer, ``(out, in)`` bool: the fractional kernels.
        accuracy: As measured with them.
        saved: What they save, in the unit of the savings given.
        evaluations: Measurements of accuracy.
    """

    masks: Masks
    accuracy: float
    saved: float
    evaluations: int


def choose_kernels(
    harms: Mapping[str, Tensor],
    savings: Mapping[str, float],
    measure: Callable[[Masks], float],
    *,
    lost: float,
    settings: SelectionSettings | None = None,
) -> Selection:
    """Return the kernels that save most while accuracy stays.

    Args:
        harms: By layer, ``(out, in)``: what replacing each kernel does to the answers, as
            estimated; comparable between layers for ``"threshold"``.
        savings: By layer: what one replaced kernel of it saves, above 0.
        measure: From masks to accuracy, on pictures held out; finite.
        lost: Accuracy that may be lost against no fractional kernel, in ``measure``'s unit.
        settings: How.

    Returns:
        The best of what was measured; no fractional kernel where nothing else is good enough.

    Raises:
        SettingsError: No layers, layers that do not match, NaN, or a negative ``lost``.
        ScoreError: An accuracy that is not finite.
    """
    settings = settings or SelectionSettings()
    _check(harms, savings, lost)
    trial = _Trial(harms, savings, measure, lost)
    trial.value(np.zeros(len(harms)))
    if settings.method == _THRESHOLD:
        _halve(trial, settings.budget - 1)
    elif settings.budget > 1:
        _search(trial, settings)
    return Selection(trial.masks(trial.shares), trial.accuracy, trial.saved, trial.evaluations)


def replace_kernels(weight: Tensor, layer: FractionalLayer, mask: Tensor) -> FractionalLayer:
    """Return a layer with fewer of its kernels fractional.

    Args:
        weight: ``(out, in, height, width)``, for the kernels that become plain again.
        layer: Fitted to it.
        mask: ``(out, in)`` bool: those to stay fractional.
    """
    mask = mask & layer.mask
    plain = torch.where(mask[..., None, None], 0, weight.detach())
    return FractionalLayer(layer.shapes, layer.amplitudes, mask, plain)


class _Trial:
    """What was measured, and the best of it that is good enough."""

    def __init__(
        self,
        harms: Mapping[str, Tensor],
        savings: Mapping[str, float],
        measure: Callable[[Masks], float],
        lost: float,
    ) -> None:
        self.harms = dict(harms)
        self.savings = savings
        self.measure = measure
        self.lost = lost
        # A kernel's place among those of its layer, the least harm first.
        self.places = {
            name: harm.flatten().argsort(stable=True).argsort().reshape(harm.shape)
            for name, harm in harms.items()
        }
        self.total = sum(savings[name] * harm.numel() for name, harm in harms.items())
        self.floor = -np.inf
        self.shares = np.zeros(len(harms))
        self.accuracy, self.saved, self.evaluations = np.nan, 0.0, 0
        self._known: dict[tuple[int, ...], float] = {}

    def masks(self, shares: NDArray[np.float64]) -> Masks:
        counts = self._counts(shares)
        return {
            name: places < count
            for (name, places), count in zip(self.places.items(), counts, strict=True)
        }

    def value(self, shares: NDArray[np.float64]) -> float:
        """Return what a search makes small: what is not saved, and accuracy that is missing."""
        counts = self._counts(shares)
        saved = sum(
            self.savings[name] * count for name, count in zip(self.places, counts, strict=True)
        )
        if counts not in self._known:
            accuracy = float(self.measure(self.masks(shares)))
            if not np.isfinite(accuracy):
                raise ScoreError(f"expected a finite accuracy, got {accuracy}")
            self._known[counts] = accuracy
            self.evaluations += 1
        accuracy = self._known[counts]
        if self.evaluations == 1:
            self.floor, self.accuracy = accuracy - self.lost, accuracy
        if accuracy >= self.floor and saved > self.saved:
            self.shares, self.accuracy, self.saved = shares.copy(), accuracy, saved
        missing = max(0.0, self.floor - accuracy)
        # Twice what is allowed to be lost outweighs all that can be saved.
        return 1 - saved / self.total + missing / max(self.lost, 1e-9)

    def _counts(self, shares: NDArray[np.float64]) -> tuple[int, ...]:
        return tuple(
            round(float(share) * places.numel())
            for share, places in zip(shares, self.places.values(), strict=True)
        )


def _halve(trial: _Trial, budget: int) -> None:
    """Find the limit of harm for all layers below which accuracy stays, by bisection."""
    every = torch.cat([harm.flatten() for harm in trial.harms.values()]).sort().values
    low, high = 0, len(every)
    for step in range(budget):
        middle = high if step == 0 else (low + high + 1) // 2
        if middle == low:
            break
        limit = every[middle - 1]
        shares = np.array([float((harm <= limit).float().mean()) for harm in trial.harms.values()])
        before = trial.saved
        trial.value(shares)
        if trial.saved > before:
            low = middle
            if low == high:
                break
        else:
            high = middle - 1


def _search(trial: _Trial, settings: SelectionSettings) -> None:
    from scotoma.optimize.bounds import Bounds
    from scotoma.optimize.search import Search

    search = Search(
        settings.method,
        Bounds.cube(len(trial.harms), 0.0, 1.0),
        budget=settings.budget - 1,
        seed=settings.seed,
        start=np.zeros(len(trial.harms)),
    )
    while not search.is_over:
        values = []
        for point in search.ask():
            values.append(trial.value(point))
        search.tell(np.array(values))


def _check(harms: Mapping[str, Tensor], savings: Mapping[str, float], lost: float) -> None:
    if not harms or set(harms) != set(savings):
        raise SettingsError(
            f"expected savings for each of the layers {sorted(harms)}, got {sorted(savings)}"
        )
    for name, harm in harms.items():
        if not bool(torch.isfinite(harm).all()) or not savings[name] > 0:
            raise SettingsError(f"expected finite harms and savings above 0 for {name!r}")
    if not 0 <= lost < np.inf:
        raise SettingsError(f"expected an accuracy to lose of 0 or more, got {lost}")
