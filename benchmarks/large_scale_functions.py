"""The seven functions of the CEC 2008 competition on large-scale optimization, seeded.

Source:
    Tang et al., Benchmark Functions for the CEC'2008 Special Session and Competition on Large
    Scale Global Optimization, 2007. F7 is after MacNish, Benchmarking Evolutionary Algorithms:
    The Huygens Suite, 2005.

Differences from the paper:
    Shifts are drawn from a seed (uniform in the middle four fifths of the box) instead of read
    from the competition's files, and nothing is added to the values: the least of F1 to F6 is
    0. F7's random dips come from NumPy's generator instead of Java's; its unit function wraps
    around with period 1, which the report's formula leaves out. Its least value is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scotoma.optimize.bounds import Bounds, Points, Values

__all__ = ["FUNCTIONS", "LargeScaleFunction", "open_function"]

Array = NDArray[np.float64]
_SHIFTED = 0.8
_LEVELS = 3


@dataclass(frozen=True, eq=False)
class LargeScaleFunction:
    """One shifted function on its box.

    Args:
        name: ``F1`` to ``F7``.
        title: The function's usual name.
        bounds: Box that is searched.
        shift: ``(D,)`` where the least value is, or None where that is unknown.
        evaluate: From ``(n, D)`` points to ``(n,)`` values.
    """

    name: str
    title: str
    bounds: Bounds
    shift: Array | None
    evaluate: Callable[[Points], Values]


def _sphere(z: Array) -> Values:
    return _squares(z)


def _squares(z: Array) -> Values:
    return np.asarray(np.einsum("ij,ij->i", z, z))


def _schwefel(z: Array) -> Values:
    return np.asarray(np.abs(z).max(1))


def _rosenbrock(z: Array) -> Values:
    z = z + 1
    bend = z[:, :-1] ** 2 - z[:, 1:]
    ahead = z[:, :-1] - 1
    return 100 * _squares(bend) + _squares(ahead)


def _rastrigin(z: Array) -> Values:
    return np.asarray((z * z - 10 * np.cos(2 * np.pi * z) + 10).sum(1))


def _griewank(z: Array) -> Values:
    waves = np.cos(z / np.sqrt(np.arange(1, z.shape[1] + 1))).prod(1)
    return np.asarray(_squares(z) / 4000 - waves + 1)


def _ackley(z: Array) -> Values:
    far = np.sqrt(_squares(z) / z.shape[1])
    waves = np.cos(2 * np.pi * z).mean(1)
    return np.asarray(20 + np.e - 20 * np.exp(-0.2 * far) - np.exp(waves))


def _make_fractal(generator: np.random.Generator) -> Callable[[Array], Values]:
    """Return F7 over dips that are drawn once."""
    dips = []
    for level in range(1, _LEVELS + 1):
        for _ in range(2 ** (level - 1)):
            for _ in range(int(generator.integers(3))):
                centre, spread = generator.random(2)
                dips.append((float(centre), float(1 / (2 ** (level - 1) * (2 - spread)))))

    def evaluate(x: Array) -> Values:
        y = np.roll(x, -1, axis=1)
        at = x + 4 * (y * (y - 1)) ** 2
        total = np.zeros(len(x))
        for centre, size in dips:
            away = at - centre
            away -= np.round(away)
            u = away * away
            total += size * (((-6144 * u + 3088) * u - 392) * u + 1).sum(1)
        return total

    return evaluate


_SHIFTED_FUNCTIONS: dict[str, tuple[str, float, Callable[[Array], Values]]] = {
    "F1": ("Sphere", 100, _sphere),
    "F2": ("Schwefel 2.21", 100, _schwefel),
    "F3": ("Rosenbrock", 100, _rosenbrock),
    "F4": ("Rastrigin", 5, _rastrigin),
    "F5": ("Griewank", 600, _griewank),
    "F6": ("Ackley", 32, _ackley),
}

FUNCTIONS = (*_SHIFTED_FUNCTIONS, "F7")
"""Their names in order."""


def open_function(
    name: str, dimensions: int, *, seed: int, rotated: bool = False
) -> LargeScaleFunction:
    """Return one function.

    Args:
        name: From :data:`FUNCTIONS`.
        dimensions: From 2.
        seed: Of the shift, of F7's dips and of the rotation.
        rotated: Turn space around the least value (F7: around the middle), so that no axis of
            the box is one of the function's; not part of the competition.
    """
    generator = np.random.default_rng([seed, FUNCTIONS.index(name), dimensions])
    if name == "F7":
        title, side, formula = "FastFractal DoubleDip", 1.0, _make_fractal(generator)
        shift = np.zeros(dimensions)
    else:
        title, side, formula = _SHIFTED_FUNCTIONS[name]
        shift = generator.uniform(-_SHIFTED * side, _SHIFTED * side, dimensions)
    evaluate = _placed(formula, shift, generator if rotated else None)
    bounds = Bounds.cube(dimensions, -side, side)
    return LargeScaleFunction(name, title, bounds, None if name == "F7" else shift, evaluate)


def _placed(
    formula: Callable[[Array], Values], shift: Array, generator: np.random.Generator | None
) -> Callable[[Points], Values]:
    if generator is None:
        return lambda points: formula(points - shift)
    turn, _ = np.linalg.qr(generator.standard_normal((len(shift), len(shift))))
    return lambda points: formula((points - shift) @ turn)
