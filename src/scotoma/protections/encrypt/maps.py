"""A keyed cipher as data: which linear map each block gets, and which blocks change places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, SupportsIndex

import torch
from torch import Tensor

from scotoma.core.errors import SecretError, SettingsError
from scotoma.ops.diffusion import Diffusion

__all__ = ["BlockMaps", "Layout"]

_TOLERANCE = 1e-5  # float32 pictures cannot tell closer


@dataclass(frozen=True)
class Layout:
    """What a cipher is derived for: the form of a picture in blocks.

    Args:
        channels: Colour channels.
        rows: Blocks down.
        columns: Blocks across.
    """

    channels: int
    rows: int
    columns: int

    @property
    def positions(self) -> int:
        """Blocks of a picture."""
        return self.rows * self.columns


@dataclass(frozen=True, eq=False, repr=False)
class BlockMaps:
    """An invertible map for every block position, perhaps a new place for it, and a spreading.

    A block ``b`` of the plain picture moves from position ``order[n]`` to ``n = (i, j)`` and
    becomes ``b' = forward[i % P_h, j % P_w] @ b + noise[i % P_h, j % P_w] @ z`` with ``z`` a
    fresh standard normal vector. Readers take ``b = inverse[i % P_h, j % P_w] @ b'``. Where there
    is a ``diffusion``, all values of all blocks are spread last, and readers gather them first.

    Args:
        block: Side ``M``, in pixels.
        forward: ``(P_h, P_w, C'*M*M, C*M*M)`` float64, ``C' >= C``.
        inverse: ``(P_h, P_w, C*M*M, C'*M*M)`` float64; a left inverse of ``forward`` that
            takes ``noise`` to zero.
        order: ``(N,)`` int64, a permutation: release position ``n`` holds the block of plain
            position ``order[n]``. None leaves blocks in place.
        noise: ``(P_h, P_w, C'*M*M, K)`` float64 for ``K`` fresh noise dimensions, or None.
        level: Mean square that every release is to have: a picture's noise gets whatever it has
            not itself (but a quarter at least), so that it does not tell its contrast. None
            takes the noise as it is drawn.
        diffusion: What is done to all values of a picture at the end, or None.

    Raises:
        SettingsError: Shapes or types that do not fit, or an inverse that is none.

    Security:
        All of it is secret. ``repr`` shows shapes only; copying and pickling refuse.
    """

    block: int
    forward: Tensor
    inverse: Tensor
    order: Tensor | None = None
    noise: Tensor | None = None
    level: float | None = None
    diffusion: Diffusion | None = None

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_inverse()
        if self.order is not None:
            expected = torch.arange(self.order.numel())
            if self.order.ndim != 1 or not torch.equal(self.order.sort().values, expected):
                raise SettingsError("expected order as a permutation of block positions (N,)")
        if self.level is not None and (self.noise is None or not self.level > 0):
            raise SettingsError(
                f"expected a level above 0 of maps that have noise, got {self.level}"
            )

    @property
    def period(self) -> tuple[int, int]:
        """Blocks after which the maps repeat, down and across."""
        return self.forward.shape[0], self.forward.shape[1]

    @property
    def channels_out(self) -> int:
        """Channels of the release."""
        return self.forward.shape[2] // self.block**2

    def __repr__(self) -> str:
        noise = 0 if self.noise is None else self.noise.shape[3]
        return (
            f"BlockMaps(block={self.block}, forward={tuple(self.forward.shape)}, "
            f"noise={noise}, moves={self.order is not None}, "
            f"spreads={self.diffusion is not None})"
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise SecretError(
            "expected a cipher's maps to stay where they are, got an attempt to copy or pickle "
            "them; derive them again from the key"
        )

    def _check_shapes(self) -> None:
        square = self.block**2
        maps = {"forward": self.forward, "inverse": self.inverse}
        if self.noise is not None:
            maps["noise"] = self.noise
        for name, tensor in maps.items():
            if tensor.dtype != torch.float64 or tensor.ndim != 4:
                raise SettingsError(
                    f"expected {name} maps (P_h, P_w, rows, columns) in float64, "
                    f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
                )
        down, across, size_out, size_in = self.forward.shape
        if tuple(self.inverse.shape) != (down, across, size_in, size_out):
            raise SettingsError(
                f"expected inverse maps of shape {(down, across, size_in, size_out)}, "
                f"got {tuple(self.inverse.shape)}"
            )
        if self.noise is not None and tuple(self.noise.shape[:3]) != (down, across, size_out):
            raise SettingsError(
                f"expected noise maps of shape {(down, across, size_out)} and K, "
                f"got {tuple(self.noise.shape)}"
            )
        if size_in % square or size_out % square or size_out < size_in:
            raise SettingsError(
                f"expected maps from C to C' >= C planes of {self.block}×{self.block} blocks, "
                f"got {size_in} to {size_out} entries"
            )

    def _check_inverse(self) -> None:
        # One probe through every map costs little beside deriving them, and finds any mistake.
        probe = torch.linspace(-1, 1, self.forward.shape[3], dtype=torch.float64)[:, None]
        error = (_through(self.inverse, _through(self.forward, probe)) - probe).abs().amax()
        if self.noise is not None:
            grain = torch.linspace(-1, 1, self.noise.shape[3], dtype=torch.float64)[:, None]
            left = _through(self.inverse, _through(self.noise, grain))
            error = torch.maximum(error, left.abs().amax())
        if not bool(error <= _TOLERANCE):
            raise SettingsError(
                f"expected inverse maps that undo forward and noise within {_TOLERANCE}, "
                f"got an error of {float(error):.1e}"
            )


def _through(maps: Tensor, vectors: Tensor) -> Tensor:
    """Return ``(P_h*P_w, rows, 1)``: vectors, or one for all, through each map; copies no map."""
    flat = maps.flatten(0, 1)
    return torch.bmm(flat, vectors.expand(len(flat), -1, 1))
