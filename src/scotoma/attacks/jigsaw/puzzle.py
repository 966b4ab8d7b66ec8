"""A release as a puzzle: its pieces, its frame, and pictures laid out of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scotoma.attacks.views import block_side, unnormalize
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Release
from scotoma.ops.blocks import count_blocks, move_blocks, to_blocks

__all__ = ["Puzzle", "open_puzzle"]


@dataclass(frozen=True, eq=False)
class Puzzle:
    """Pictures cut into pieces that lie elsewhere, each whole and upright.

    Args:
        pieces: ``(B, N, 3, M, M)`` float64 in [0, 1], as they lie in the release.
        grid: Rows and columns of the frame.
        common: Whether all pictures have the same order of pieces.
        release: What they were cut out of.
    """

    pieces: Tensor
    grid: tuple[int, int]
    common: bool
    release: Release

    def lay(self, orders: Tensor) -> Tensor:
        """Return the pictures in which each place has the piece that an order says.

        Args:
            orders: ``(B, rows, columns)`` int64.

        Returns:
            ``(B, 3, H, W)`` float32 in [0, 1], cut to the plain size.
        """
        data = self.release.data.float()
        moved = move_blocks(data, orders.flatten(1), block_side(self.release))
        return unnormalize(moved, self.release)

    def solve(
        self, judge: Callable[[Tensor], Tensor], assemble: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the orders found, one for each picture or the same for all.

        Args:
            judge: From the pieces ``(N, 3, M, M)`` of a picture to evidence about pairs.
            assemble: From evidence to an order ``(rows, columns)``. Where one order is sought
                it gets the sum over pictures, for their evidence is independent.

        Returns:
            ``(B, rows, columns)`` int64.
        """
        if not self.common:
            return torch.stack([assemble(judge(pieces)) for pieces in self.pieces])
        total = judge(self.pieces[0])
        for pieces in self.pieces[1:]:
            total = total + judge(pieces)
        return assemble(total).expand(len(self.pieces), -1, -1)


def open_puzzle(release: Release) -> Puzzle:
    """Return the puzzle that a release is.

    Raises:
        NotApplicableError: Its blocks did not move, or something was done to them as well.
    """
    scheme = release.metadata.get("scheme")
    inner = release.metadata.get("settings", {}).get("inner", "none")
    if scheme not in ("shuffle", "block-shuffle") or (
        scheme == "block-shuffle" and inner != "none"
    ):
        raise NotApplicableError(
            "expected a release whose blocks changed places and nothing else ('shuffle', or "
            f"'block-shuffle' with inner 'none'), got {scheme!r} with inner {inner!r}"
        )
    block, data = block_side(release), release.data
    whole = Release(data, {**release.metadata, "input_size": [3, *data.shape[-2:]]})
    plain = unnormalize(data.float(), whole).double()
    blocks = to_blocks(plain, block).flatten(2).mT
    pieces = blocks.reshape(len(data), -1, data.shape[1], block, block)
    grid = count_blocks(data.shape[2], data.shape[3], block)
    return Puzzle(pieces, grid, scheme == "block-shuffle", release)
