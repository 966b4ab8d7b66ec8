"""``python -m benchmarks.fractal_pictures``: the drawings of docs/fractal.md, as SVG.

The searches are run here; the convergence curves are read from the committed rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import ROOT, Book, Row
from scotoma.optimize.bounds import Bounds, Points, Values
from scotoma.optimize.fractal import SHRINK
from scotoma.optimize.search import Search

__all__ = ["draw_convergence", "draw_search", "main"]

IMAGES = ROOT / "docs" / "images"
_SIDE = 300
_LEVELS = 14
_LEAST = 1e-8
_COLOURS = {
    "fda-lines": "#c0392b",
    "fda": "#e59866",
    "cma-es": "#2471a3",
    "de": "#1e8449",
    "pso": "#7d3c98",
    "random": "#909497",
}
_FUNCTIONS = ("F1", "F2", "F3", "F4", "F5", "F6")


def _landscape(points: Points) -> Values:
    """Many valleys in a bowl: Rastrigin's function, shifted and stretched."""
    z = (points - np.array([0.62, 0.28])) * 8
    return np.asarray((z * z - 4 * np.cos(2 * np.pi * z) + 4).sum(1))


def draw_search(name: str, budget: int) -> str:
    """Return a drawing of the points that a search asks for in two dimensions, in order."""
    search = Search(name, Bounds.cube(2, 0.0, 1.0), budget=budget)
    asked = []
    while not search.is_over:
        points = search.ask()
        asked.append(points)
        search.tell(_landscape(points))
    places = np.concatenate(asked)
    parts = [_height_map()]
    if name == "fda":
        parts += [_spheres(places[0], 0.5)]
    last = max(1, len(places) - 1)
    for number, (x, y) in enumerate(places.tolist()):
        shade = round(230 - 230 * number / last)
        parts.append(
            f'<circle cx="{_SIDE * x:.1f}" cy="{_SIDE * (1 - y):.1f}" r="2.6" '
            f'fill="rgb(255,{shade},40)" stroke="#000" stroke-width=".5"/>'
        )
    x, y = search.best.point.tolist()
    parts.append(
        f'<circle cx="{_SIDE * x:.1f}" cy="{_SIDE * (1 - y):.1f}" r="6" fill="none" '
        'stroke="#fff" stroke-width="2"/>'
    )
    return _svg(_SIDE, _SIDE, parts)


def _height_map() -> str:
    """Return the landscape as shaded squares."""
    count = 60
    middle = (np.arange(count) + 0.5) / count
    x, y = np.meshgrid(middle, middle)
    heights = _landscape(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(count, count)
    ranks = np.argsort(np.argsort(heights.ravel())).reshape(count, count) / count**2
    greys = 70 + (ranks * _LEVELS).astype(int) * 12
    size = _SIDE / count
    squares = []
    for row, shades in enumerate(greys.tolist()):
        first = 0
        for last in range(1, count + 1):
            if last < count and shades[last] == shades[first]:
                continue
            squares.append(
                f'<rect x="{first * size:g}" y="{_SIDE - (row + 1) * size:g}" '
                f'width="{(last - first) * size + 0.3:g}" height="{size + 0.3:g}" '
                f'fill="#{3 * f"{shades[first]:02x}"}"/>'
            )
            first = last
    return "".join(squares)


def _spheres(centre: NDArray[np.float64], radius: float, levels: int = 2) -> str:
    """Return the outlines of a sphere and its descendants."""
    x, y = _SIDE * centre[0], _SIDE * (1 - centre[1])
    drawn = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_SIDE * radius:.1f}" fill="none" '
        'stroke="#1a5276" stroke-width="1"/>'
    )
    if not levels:
        return drawn
    child = radius / SHRINK
    for axis in range(2):
        for side in (-1, 1):
            moved = centre.copy()
            moved[axis] += side * (radius - child)
            drawn += _spheres(moved, child, levels - 1)
    return drawn


def draw_convergence(rows: Sequence[Row], dimensions: int) -> str:
    """Return median best errors against evaluations, one panel for each function."""
    width, height, columns = 240, 170, 3
    parts = []
    for place, function in enumerate(_FUNCTIONS):
        chosen = [
            row
            for row in rows
            if row["config"]["part"] == "table"
            and (row["config"]["function"], row["config"]["dimensions"]) == (function, dimensions)
        ]
        x, y = place % columns * width, place // columns * height
        parts.append(f'<g transform="translate({x},{y})">{_panel(function, chosen)}</g>')
    legend = height * math.ceil(len(_FUNCTIONS) / columns) + 16
    for place, (name, colour) in enumerate(_COLOURS.items()):
        parts.append(f'<text x="{20 + 110 * place}" y="{legend}" fill="{colour}">{name}</text>')
    return _svg(width * columns, legend + 12, parts)


def _panel(function: str, rows: Sequence[Row]) -> str:
    left, top, width, height = 40, 20, 185, 120
    parts = [
        f'<text x="{left}" y="14">{function}</text>',
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>',
    ]
    if not rows:
        return "".join(parts)
    curves = {row["config"]["optimizer"]: row["values"] for row in rows}
    highest = math.ceil(math.log10(max(max(values["curve"]) for values in curves.values())))
    lowest = round(math.log10(_LEAST))
    longest = math.log10(max(values["evaluations"][-1] for values in curves.values()))
    for power in range(lowest, highest + 1, 4):
        y = top + height * (highest - power) / (highest - lowest)
        parts.append(f'<text x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    for power in range(0, math.floor(longest) + 1, 2):
        x = left + width * power / longest
        parts.append(
            f'<text x="{x:.1f}" y="{top + height + 14}" text-anchor="middle">1e{power}</text>'
        )
    for name, values in curves.items():
        line = " ".join(
            f"{left + width * math.log10(count) / longest:.1f},"
            f"{top + height * (highest - math.log10(max(error, _LEAST))) / (highest - lowest):.1f}"
            for count, error in zip(values["evaluations"], values["curve"], strict=True)
        )
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{_COLOURS[name]}" stroke-width="1.6"/>'
        )
    return "".join(parts)


def _svg(width: int, height: int, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def main(folder: Path = IMAGES) -> None:
    """Write the drawings."""
    for name in ("fda", "fda-lines"):
        (folder / f"fractal-{name}.svg").write_text(draw_search(name, 160), "utf-8")
    rows = Book("optimizers").rows
    for dimensions in (100, 1000):
        drawing = draw_convergence(rows, dimensions)
        (folder / f"fractal-convergence-{dimensions}.svg").write_text(drawing, "utf-8")


if __name__ == "__main__":
    main()
