"""From evidence about pairs to an arrangement: components grown, filled up, and improved.

::

    evidence (2, N, N) ── join most certain pairs ──► components that fit the frame
                       ── grow the largest, piece by certain piece ──► arrangement
                       ── exchange exactly, shift, tear down and grow again ──► better ones
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from scotoma.attacks.jigsaw.growth import SIDES, Growth, Numbers, Places
from scotoma.core.errors import SettingsError

__all__ = ["assemble", "greedy", "likelihood"]

Mask = NDArray[np.bool_]

_MOST_EDGES = 8  # for each piece and direction
_PASSES = 6
_NOISE = 0.5
_MOST_CUT = 0.3


def likelihood(order: Tensor, pairs: Tensor, places: Tensor | None = None) -> float:
    """Return the sum of the evidence over all neighbours in an arrangement.

    Args:
        order: ``(rows, columns)`` int64: the piece at each place.
        pairs: ``(2, N, N)``: evidence for ``j`` right of ``i``, and below it.
        places: ``(rows, columns, N)``: evidence for a piece at a place; None for none.
    """
    unary = None if places is None else places.double().numpy()
    return _likelihood(order.numpy(), pairs.double().numpy(), unary)


def greedy(pairs: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the arrangement row by row, each piece the most likely next to those before it.

    The first piece is the one whose best left and upper neighbours are the least likely.

    Args:
        pairs: ``(2, N, N)``, as of :func:`likelihood`.
        grid: Rows and columns.

    Returns:
        ``(rows, columns)`` int64.
    """
    across, down = pairs.double().numpy()
    rows, columns = grid
    order = np.full(grid, -1)
    free = np.ones(rows * columns, bool)
    for row in range(rows):
        for column in range(columns):
            score = np.zeros(rows * columns)
            if row == column == 0:
                score -= across.max(0) + down.max(0)
            if column:
                score += across[order[row, column - 1]]
            if row:
                score += down[order[row - 1, column]]
            order[row, column] = np.where(free, score, -np.inf).argmax()
            free[order[row, column]] = False
    return torch.from_numpy(order)


def assemble(
    pairs: Tensor,
    grid: tuple[int, int],
    *,
    generator: Generator,
    rounds: int = 40,
    places: Tensor | None = None,
) -> Tensor:
    """Return the most likely arrangement found.

    Args:
        pairs: ``(2, N, N)``: evidence for ``j`` right of ``i``, and below it.
        grid: Rows and columns; their product is ``N``.
        generator: Of the choice of what is torn down, on the CPU.
        rounds: How often in a row part is torn down and grown again in vain before it ends.
        places: ``(rows, columns, N)``: evidence for a piece at a place; None for none.

    Returns:
        ``(rows, columns)`` int64: the piece at each place.

    Raises:
        SettingsError: Evidence for another number of pieces.

    Source:
        Components: Gallagher, Jigsaw puzzles with pieces of unknown orientation, CVPR 2012.
        Growing: Sholomon, David, Netanyahu, A genetic algorithm-based solver for very large
        jigsaw puzzles, CVPR 2013. Exact exchange of pieces that do not touch: this project.
    """
    count = grid[0] * grid[1]
    if pairs.shape != (2, count, count):
        raise SettingsError(
            f"expected evidence of shape {(2, count, count)} for {grid[0]}×{grid[1]} pieces, "
            f"got {tuple(pairs.shape)}"
        )
    unary = None if places is None else places.double().numpy()
    puzzle = _Puzzle(pairs.double().numpy(), grid, unary)
    best = puzzle.improve(puzzle.grow(puzzle.join()))
    score = puzzle.score(best)
    vain = 0
    while vain < rounds:
        vain += 1
        kept = puzzle.tear(best, generator)
        if kept.all():
            break
        seed = np.where(kept, best, -1)
        noise = torch.rand(pairs.shape, generator=generator, dtype=torch.float64).numpy()
        trial = puzzle.improve(puzzle.grow(seed, noise=_NOISE * noise))
        if (reached := puzzle.score(trial)) > score + 1e-9:
            best, score, vain = trial, reached, 0
    return torch.from_numpy(best)


@dataclass(frozen=True)
class _Puzzle:
    pairs: Numbers
    grid: tuple[int, int]
    places: Numbers | None

    def score(self, order: Places) -> float:
        return _likelihood(order, self.pairs, self.places)

    def join(self) -> Places:
        """Join pieces along the most certain pairs; return the largest component, -1 elsewhere."""
        rows, columns = self.grid
        at = dict.fromkeys(range(rows * columns), (0, 0))
        home = {piece: piece for piece in at}
        members = {piece: [piece] for piece in at}
        for first, second, (down, across) in self._edges():
            mine, other = home[first], home[second]
            if mine == other:
                continue
            y, x = at[first][0] + down - at[second][0], at[first][1] + across - at[second][1]
            moved = {(at[piece][0] + y, at[piece][1] + x): piece for piece in members[other]}
            here = {at[piece] for piece in members[mine]}
            if not here.isdisjoint(moved) or not _fits([*here, *moved], self.grid):
                continue
            for place, piece in moved.items():
                at[piece], home[piece] = place, mine
            members[mine] += members.pop(other)
        largest = max(members.values(), key=len)
        top, left = (min(at[piece][axis] for piece in largest) for axis in (0, 1))
        order = np.full(self.grid, -1)
        for piece in largest:
            order[at[piece][0] - top, at[piece][1] - left] = piece
        return order

    def grow(self, seed: Places, *, noise: Numbers | None = None) -> Places:
        """Fill the frame around what lies, the most certain piece first; the frame may shift."""
        return Growth(self.pairs if noise is None else self.pairs - noise, seed).finish()

    def improve(self, order: Places) -> Places:
        """Shift, and exchange pieces that do not touch in the best way, until nothing is won."""
        score = self.score(order)
        colour = np.add.outer(np.arange(self.grid[0]), np.arange(self.grid[1])) % 2
        for _ in range(_PASSES):
            order = self._shift(order)
            for parity in (0, 1):
                order = self._exchange(order, colour == parity)
            if (reached := self.score(order)) <= score + 1e-9:
                break
            score = reached
        return order

    def tear(self, order: Places, generator: Generator) -> Mask:
        """Return which places stay: a connected part whose borders are each other's best.

        How many joints are cut is drawn, and which part stays, larger ones more often: what is
        wrong may well hold together, and be the largest.
        """
        across, down = self.pairs
        best = [(side.argmax(1), side.argmax(0)) for side in (across, down)]
        cut, place = torch.rand(2, generator=generator).tolist()
        joints = []
        for axis, (next_, previous) in ((1, best[0]), (0, best[1])):
            one, two = _neighbours(order, axis)
            sure = (next_[one] == two) & (previous[two] == one)
            chance = torch.rand(sure.shape, generator=generator).numpy()
            joints.append(sure & (chance > _MOST_CUT * cut))
        return _part_at(int(place * order.size), joints[0], joints[1])

    def _edges(self) -> list[tuple[int, int, tuple[int, int]]]:
        """Return the best pairs of each piece in all directions, the most certain first."""
        found = []
        most = min(_MOST_EDGES, self.pairs.shape[1] - 1)
        for axis, step in ((0, (0, 1)), (1, (1, 0))):
            side = self.pairs[axis]
            near = np.zeros(side.shape, bool)
            np.put_along_axis(near, np.argpartition(-side, most, 1)[:, :most], True, 1)
            np.put_along_axis(near, np.argpartition(-side, most, 0)[:most], True, 0)
            for one, two in zip(*near.nonzero(), strict=True):
                found.append((float(side[one, two]), int(one), int(two), step))
        found.sort(key=lambda edge: (-edge[0], edge[1:]))
        return [(one, two, step) for _, one, two, step in found]

    def _shift(self, order: Places) -> Places:
        """Return the arrangement rolled by whichever rows and columns fit best."""
        rolled = [
            np.roll(order, (down, across), (0, 1))
            for down in range(self.grid[0])
            for across in range(self.grid[1])
        ]
        return max(rolled, key=self.score)

    def _exchange(self, order: Places, chosen: Mask) -> Places:
        """Return the best arrangement in which only the pieces on ``chosen`` change places.

        No two of these touch, so that what a piece is worth at a place does not depend on
        where the others go: an assignment problem, solved exactly.
        """
        gain = np.zeros((*order.shape, self.pairs.shape[1]))
        for down, across, axis, back in SIDES:
            near = _looked_up(order, down, across)
            side = self.pairs[axis] if back else self.pairs[axis].T
            gain += np.where((near >= 0)[..., None], side[near], 0)
        if self.places is not None:
            gain += self.places
        pieces = order[chosen]
        _, best = linear_sum_assignment(gain[chosen][:, pieces], maximize=True)
        changed = order.copy()
        changed[chosen] = pieces[best]
        return changed


def _likelihood(order: Places, pairs: Numbers, places: Numbers | None) -> float:
    total = float(pairs[0][order[:, :-1], order[:, 1:]].sum())
    total += float(pairs[1][order[:-1], order[1:]].sum())
    if places is not None:
        total += float(np.take_along_axis(places, order[..., None], 2).sum())
    return total


def _neighbours(order: Places, axis: int) -> tuple[Places, Places]:
    return (order[:, :-1], order[:, 1:]) if axis else (order[:-1], order[1:])


def _looked_up(order: Places, down: int, across: int) -> Places:
    """Return what lies a step further at each place, -1 beyond the frame."""
    padded = np.pad(order, 1, constant_values=-1)
    return padded[1 + down : 1 + down + order.shape[0], 1 + across : 1 + across + order.shape[1]]


def _fits(places: list[tuple[int, int]], grid: tuple[int, int]) -> bool:
    spans = [[place[axis] for place in places] for axis in (0, 1)]
    return all(max(span) - min(span) < side for span, side in zip(spans, grid, strict=True))


def _part_at(place: int, across: Mask, down: Mask) -> Mask:
    """Return the part of a grid that joints hold together with a place."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns = across.shape[0], down.shape[1]
    number = np.arange(rows * columns).reshape(rows, columns)
    one = np.concatenate([number[:, :-1][across], number[:-1][down]])
    two = np.concatenate([number[:, 1:][across], number[1:][down]])
    graph = coo_matrix((np.ones(len(one)), (one, two)), shape=(number.size, number.size))
    _, labels = connected_components(graph, directed=False)
    part: Mask = labels == labels[place]
    return part.reshape(rows, columns)
