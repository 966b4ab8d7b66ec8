"""Blocks that moved and were mapped as well: their order from how alike they are over pictures.

A rotation shared by all blocks, or a permutation, keeps lengths and angles. So the distance
between two blocks is what it was; over many pictures it grows with the distance of their
places. A plane is laid through these distances and the blocks are assigned to the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from scotoma.attacks.views import block_side, brightness_guess, plain_size, release_blocks
from scotoma.core.errors import NotApplicableError, SettingsError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["HiddenOrder", "block_distances", "place_blocks"]

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]
_LEAST = 1e-12
_GRAIN = 0.02  # of a picture's mean distance: equal blocks are no more than this alike
_REACHES = (6.0, 3.0, 1.5, 0.8)  # blocks over which likeness falls to 1/e
_MOST_EXCHANGES = 1000


@dataclass(frozen=True)
class HiddenOrder:
    """Finds one secret order of blocks from how alike blocks are, and draws their lengths.

    The frame cannot be told from its mirror images and turns, nor bright from dark where
    lengths are distances from grey, so there are 8 or 16 guesses; blocks under ``permute``
    have kept their means, and there are 8.

    Source:
        Plane: classical scaling, Torgerson, Multidimensional scaling, Psychometrika 1952.
        Assignment, from far neighbours to near ones: this project.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures' brightness; see :class:`~scotoma.core.protocols.Attack`."""
        order = self.arrange(release)
        blocks = release_blocks(release)
        permuted = _settings(release).get("inner") == "permute"
        worth = blocks.mean(1) if permuted else blocks.square().mean(1).sqrt()
        signs = (1,) if permuted or release.metadata.get("mean") is None else (1, -1)
        flat = worth.flatten(1)
        size, block = plain_size(release), block_side(release)
        guesses = [
            brightness_guess(sign * flat[:, turned.flatten()].view(-1, *turned.shape), size, block)
            for turned in _turns(order)
            for sign in signs
        ]
        return torch.stack(guesses)

    def arrange(self, release: Release) -> Tensor:
        """Return ``(rows, columns)`` int64: the release's block at each place, or a mirror image.

        Raises:
            NotApplicableError: Blocks did not move.
        """
        if release.metadata.get("scheme") != "block-shuffle":
            raise NotApplicableError(
                "expected a release of scheme 'block-shuffle', got "
                f"{release.metadata.get('scheme')!r}"
            )
        blocks = release_blocks(release)
        grid = (blocks.shape[2], blocks.shape[3])
        return place_blocks(block_distances(blocks.flatten(2)), grid)


def block_distances(blocks: Tensor) -> Tensor:
    """Return the mean logarithm of squared distances between blocks, contrast set to one.

    Args:
        blocks: ``(B, D, N)``.

    Returns:
        ``(N, N)`` float64.
    """
    total = torch.zeros(blocks.shape[2], blocks.shape[2], dtype=torch.float64)
    for picture in blocks.double():
        squares = torch.cdist(picture.T, picture.T).square()
        total += (squares / squares.mean().clamp(min=_LEAST) + _GRAIN).log()
    return total / len(blocks)


def place_blocks(distances: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the arrangement in which blocks that are alike are near.

    Args:
        distances: ``(N, N)``.
        grid: Rows and columns.

    Returns:
        ``(rows, columns)`` int64: the block at each place, up to the frame's symmetry.

    Raises:
        SettingsError: Distances of another number of blocks.
    """
    count = grid[0] * grid[1]
    if distances.shape != (count, count):
        raise SettingsError(f"expected distances {(count, count)}, got {tuple(distances.shape)}")
    found = distances.numpy()
    order = _plane(found - found.min(), grid)
    ys, xs = np.divmod(np.arange(count), grid[1])
    apart = np.hypot(np.subtract.outer(ys, ys), np.subtract.outer(xs, xs))
    for reach in _REACHES:
        order = _exchange(np.exp(-apart / reach), _standard(-found), order)
    return torch.from_numpy(order).view(grid)


def _exchange(near: Numbers, alike: Numbers, order: Places) -> Places:
    """Return the order after exchanging the two blocks that win most, until none do.

    The sum of ``near`` times ``alike`` over all pairs of places grows with each exchange. What
    all exchanges would win is one matrix product.
    """
    order, here = order.copy(), alike[order][:, order]
    near = _standard(near)
    np.fill_diagonal(near, 0)
    np.fill_diagonal(here, 0)
    for _ in range(_MOST_EXCHANGES):
        product = near @ here
        own = product.diagonal()
        won = product + product.T - own[:, None] - own + 2 * near * here
        one, two = divmod(int(won.argmax()), len(order))
        if won[one, two] <= _LEAST:
            break
        order[[one, two]] = order[[two, one]]
        here[[one, two]] = here[[two, one]]
        here[:, [one, two]] = here[:, [two, one]]
    return order


def _plane(distances: Numbers, grid: tuple[int, int]) -> Places:
    """Return the block for each place by the two directions in which blocks differ most."""
    count = len(distances)
    centre = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * centre @ distances @ centre)
    points = vectors[:, -2:] * np.sqrt(values[-2:].clip(0))
    ys, xs = np.divmod(np.arange(count), grid[1])
    places = np.stack([ys - ys.mean(), xs - xs.mean()], 1).astype(np.float64)
    scale = np.sqrt(places.var(0).sum() / max(points.var(0).sum(), _LEAST))
    best, worth = np.arange(count), np.inf
    for angle in np.linspace(0, np.pi / 2, 8, endpoint=False):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        gaps = ((places[:, None] - scale * points @ turn) ** 2).sum(2)
        rows, columns = linear_sum_assignment(gaps)
        if (cost := float(gaps[rows, columns].sum())) < worth:
            best, worth = columns, cost
    return best


def _standard(values: Numbers) -> Numbers:
    """Return values less their mean, over their spread."""
    centred: Numbers = values - values.mean()
    return centred / max(float(values.std()), _LEAST)


def _turns(order: Tensor) -> list[Tensor]:
    """Return an arrangement with its mirror images and turns that fit the frame."""
    flips = [order, order.flip(0), order.flip(1), order.flip(0, 1)]
    square = order.shape[0] == order.shape[1]
    return flips + [one.T for one in flips] if square else flips


def _settings(release: Release) -> dict[str, object]:
    return dict(release.metadata.get("settings", {}))
