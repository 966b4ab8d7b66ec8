"""Give each patch its position back after the blocks of a picture have changed places.

A vision transformer is blind to the order of its patches but for what it adds to them: one
learned vector per position. If the vectors change places as the blocks did, each patch meets
its own again, and the answer is the plain network's. That holds for no other way of knowing
positions (relative biases, windows, rotations, convolutions, mixing along tokens), so whether
it holds is tried out before the network is handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from scotoma.core.errors import ModelError, UnsupportedModelError
from scotoma.models.stems import copy_sharing, find_stems

__all__ = ["permute_positions"]

Move = Callable[[Tensor], Tensor]
_MOST_EXTRA_TOKENS = 32
_SIGNS = {
    "rel_pos": "relative position biases",
    "relative_position": "relative position biases",
    "attention_bias": "relative position biases",
    "rope": "rotary positions",
    "mlp_tokens": "mixing along tokens",
}


def permute_positions(
    network: nn.Module, input_size: tuple[int, int, int], block: int, order: Tensor
) -> nn.Module:
    """Return the network that answers to shuffled blocks as ``network`` does to blocks in place.

    Args:
        network: Reads ``(B, C, H, W)`` by one patch embedding and knows positions by one learned
            parameter that is added to the patches, or not at all. Not changed.
        input_size: ``(C, H, W)``, multiples of ``block``.
        block: Block side, a multiple of the patch.
        order: ``(N,)`` int64, a permutation: place ``n`` of the release, row by row, holds the
            block of place ``order[n]``.

    Returns:
        A network with the rows of its position embedding in the new order; class and register
        tokens keep theirs. All other parameters are shared.

    Raises:
        UnsupportedModelError: It knows positions in another way: tried out on a random picture.
        ModelError: ``order`` is no permutation of the blocks.

    Security:
        Whoever has both networks finds the order by comparing rows of the position embedding.
    """
    tokens = _token_order(network, input_size, block, order)
    trial = _Trial(network, input_size, block, order)
    for name, move in _moves(network, tokens):
        if trial.agrees(name, move):
            return _with_moved(network, name, move)
    raise UnsupportedModelError(
        "expected a network whose only knowledge of positions is one learned vector added to "
        f"each of its {len(tokens)} patches, got one that answers otherwise to shuffled blocks "
        f"whatever is reordered{_suspicion(network)}; use a scheme that keeps blocks in place"
    )


class _Trial:
    """Compares the plain network with candidates, in float64 where the network runs in that."""

    def __init__(
        self, network: nn.Module, input_size: tuple[int, int, int], block: int, order: Tensor
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        picture, other = torch.randn(2, 1, *input_size, generator=generator)
        try:
            self.network, self.tolerance = _in_double(network), 1e-7
            self.plain = _answers(self.network, picture)
        except (RuntimeError, TypeError):  # it mixes types on its own
            self.network, self.tolerance = copy_sharing(network).eval(), 1e-4
            self.plain = _answers(self.network, picture)
        blocks = F.pixel_unshuffle(picture, block)
        self.shuffled = F.pixel_shuffle(blocks.flatten(2)[:, :, order].view(blocks.shape), block)
        if self._is_plain(_answers(self.network, other)):
            raise UnsupportedModelError(
                "expected a network whose answers depend on the picture, got the same answer to "
                "two random pictures; load its trained weights first"
            )

    def agrees(self, name: str | None, move: Move) -> bool:
        """Whether the network with that parameter moved answers as the plain one."""
        return self._is_plain(_answers(_with_moved(self.network, name, move), self.shuffled))

    def _is_plain(self, answers: Tensor) -> bool:
        if answers.shape != self.plain.shape:
            return False
        scale = (self.plain - self.plain.mean()).abs().max()
        return bool((answers - self.plain).abs().max() <= self.tolerance * scale)


def _token_order(
    network: nn.Module, input_size: tuple[int, int, int], block: int, order: Tensor
) -> Tensor:
    """Return which patch of the plain picture is at each place of the shuffled one."""
    _, height, width = input_size
    stems = find_stems(network, input_size)
    patch = stems[0].stride[0]
    if len(stems) != 1 or not stems[0].is_patch or stems[0].kernel != (patch, patch):
        raise UnsupportedModelError(
            "expected a network that reads the picture by one embedding of square patches, got "
            f"{', '.join(f'{s.kernel} by {s.stride} in {s.module!r}' for s in stems)}; "
            "shuffled blocks fit no kernel that reaches over their borders"
        )
    if block % patch or height % block or width % block:
        raise UnsupportedModelError(
            f"expected blocks of a multiple of the patch, {patch}, that divides {height} x "
            f"{width}, got {block}"
        )
    rows, columns = height // block, width // block
    if sorted(order.tolist()) != list(range(rows * columns)):
        raise ModelError(
            f"expected an order of {rows * columns} blocks, each once, got {tuple(order.shape)}"
        )
    split = block // patch
    places = torch.arange(rows * split * columns * split)
    cells = places.view(rows, split, columns, split).permute(0, 2, 1, 3)
    moved = cells.reshape(rows * columns, split, split)[order.cpu()]
    return moved.view(rows, columns, split, split).permute(0, 2, 1, 3).flatten()


def _moves(network: nn.Module, tokens: Tensor) -> Iterator[tuple[str | None, Move]]:
    """Yield what could be reordered: nothing at all, or one parameter along its positions."""
    yield None, lambda values: values
    count = len(tokens)
    for name, parameter in network.named_parameters():
        if "pos" not in name.lower():
            continue
        for axis, size in enumerate(parameter.shape):
            extra = size - count
            if 0 <= extra <= _MOST_EXTRA_TOKENS:
                yield name, _along(axis, 1, torch.cat([torch.arange(extra), extra + tokens]))
            if axis and extra and parameter.shape[axis - 1] * size == count:
                yield name, _along(axis - 1, 2, tokens)


def _along(axis: int, count: int, index: Tensor) -> Move:
    """Return what reorders ``count`` axes from ``axis`` on, taken as one."""

    def move(values: Tensor) -> Tensor:
        flat = values.flatten(axis, axis + count - 1)
        return flat.index_select(axis, index.to(values.device)).view(values.shape)

    return move


def _with_moved(network: nn.Module, name: str | None, move: Move) -> nn.Module:
    """Return a copy that shares all parameters but the one that is moved."""
    if name is None:
        return copy_sharing(network)
    old = network.get_parameter(name)
    new = nn.Parameter(move(old.detach()), requires_grad=old.requires_grad)
    return copy_sharing(network, [(old, new)])


def _in_double(network: nn.Module) -> nn.Module:
    exact = [
        (old, nn.Parameter(old.detach().cpu().double(), requires_grad=False))
        for old in network.parameters()
        if old.is_floating_point()
    ]
    return copy_sharing(network, exact).cpu().double().eval()


def _answers(network: nn.Module, picture: Tensor) -> Tensor:
    like = next(iter(network.parameters()))
    with torch.no_grad():
        made = network(picture.to(like.device, like.dtype))
    tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
    if not tensors:
        raise UnsupportedModelError(f"expected a network that returns tensors, got {type(made)}")
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def _suspicion(network: nn.Module) -> str:
    names = [name.lower() for name, _ in network.named_parameters()]
    names += [name.lower() for name, _ in network.named_modules()]
    names += [name.lower() for name, _ in network.named_buffers()]
    found = {reason for sign, reason in _SIGNS.items() if any(sign in name for name in names)}
    if sum(isinstance(module, nn.Conv2d) for module in network.modules()) > 1:
        found.add("convolutions after the patch embedding")
    return f" (it has {', '.join(sorted(found))})" if found else ""
