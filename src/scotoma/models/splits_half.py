"""The two sides of a cut, as modules."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from scotoma.models.splits_graph import Captured, Cut, is_size, mutated

__all__ = ["Half", "make_head", "make_tail"]


class Half(nn.Module):
    """One side of a cut: some of a network's operations, with its own parameters.

    Args:
        body: Takes and returns flat tensors.
        structure: Of what this returns; None for one tensor or a tuple of them.
        batch: The one batch size that ``body`` takes; None where it takes any.
    """

    def __init__(self, body: fx.GraphModule, structure: TreeSpec | None, batch: int | None) -> None:
        super().__init__()
        self.body = body
        self.structure = structure
        self.batch = batch
        self.eval()

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Any:
        """Return the value at the cut for a head, what the network returns for a tail."""
        parts = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        flat = list(self._run(parts))
        if self.structure is not None:
            return tree_unflatten(flat, self.structure)
        return flat[0] if len(flat) == 1 else tuple(flat)

    def train(self, mode: bool = True) -> Self:
        """Do nothing: what was captured is the network in evaluation mode."""
        del mode
        return super().train(False)

    def _run(self, parts: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """Ask the body as many pictures at a time as it takes; the last ones are filled up."""
        size = self.batch
        if size is None:  # asking for the length would fix the batch where this is exported
            return tuple(self.body(*parts))
        count = len(parts[0])
        if count == size:
            return tuple(self.body(*parts))
        answers = []
        for start in range(0, count, size):
            chunks = [part[start : start + size] for part in parts]
            there = len(chunks[0])
            filled = [torch.cat([c, c[-1:].expand(size - there, *c.shape[1:])]) for c in chunks]
            answers.append([_rows(answer, there) for answer in self.body(*filled)])
        return tuple(
            torch.cat(together) if isinstance(together[0], Tensor) else together[0]
            for together in zip(*answers, strict=True)
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and cast, and have tensors that the graph makes be made on the new device."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = fn(torch.zeros(0)).device
        changed = False
        for node in self.body.graph.nodes:
            if isinstance(node.kwargs.get("device"), torch.device):
                changed |= node.kwargs["device"] != device
                node.kwargs = {**node.kwargs, "device": device}
        if changed:
            self.body.recompile()
        return self


def _rows(answer: Any, count: int) -> Any:
    return answer[:count] if isinstance(answer, Tensor) else answer


def make_head(captured: Captured, cut: Cut) -> Half:
    """Return what computes the values at a cut from pictures."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    values = (cut.node, *cut.crossing)
    needed = _needed(captured, values, frozenset())
    for node in captured.nodes:
        if node in needed or node.op == "placeholder":
            copies[node] = graph.node_copy(node, lambda other: copies[other])
    graph.output(tuple(copies[value] for value in values))
    return Half(fx.GraphModule(captured.module, graph), None, captured.batch)


def make_tail(captured: Captured, cut: Cut, last: Collection[fx.Node]) -> Half:
    """Return what computes the network's answer from the values at a cut.

    Args:
        captured: The network.
        cut: Where it is cut.
        last: Values that the network has channels-last in memory. What arrives is laid out so
            too, for kernels round otherwise by layout, and what went over a wire has lost its own.
    """
    graph = fx.Graph()
    values = (cut.node, *cut.crossing)
    copies: dict[fx.Node, fx.Node] = {}
    for value in values:
        copies[value] = graph.placeholder(value.name)
        copies[value].meta = dict(value.meta)
    output = captured.nodes[-1]
    given = frozenset(values)
    needed = _needed(captured, tuple(output.all_input_nodes), given)
    written = {other for node in needed for other in mutated(node)}
    latent = copies[cut.node]
    for value in values:
        if value in last:
            copies[value] = graph.call_function(
                torch.ops.aten.contiguous.default,
                (copies[value],),
                {"memory_format": torch.channels_last},
            )
        if value in written:  # or what the caller passes would be changed
            copies[value] = graph.call_function(torch.ops.aten.clone.default, (copies[value],))
    for node in captured.nodes:
        if node not in needed or node in given:
            continue
        if is_size(node, captured):
            copies[node] = graph.call_function(torch.ops.aten.sym_size.int, (latent, 0))
        else:
            copies[node] = graph.node_copy(node, lambda other: copies[other])
    flat, _ = tree_flatten(output.args[0])
    graph.output(tuple(copies[n] if isinstance(n, fx.Node) else n for n in flat))
    return Half(fx.GraphModule(captured.module, graph), captured.structure, captured.batch)


def _needed(
    captured: Captured, values: tuple[fx.Node, ...], given: frozenset[fx.Node]
) -> set[fx.Node]:
    """Return the operations that values are computed by, from ``given`` ones on."""
    needed = set(values) - given
    for node in reversed(captured.nodes):
        if node in needed and not (given and is_size(node, captured)):
            needed.update(set(node.all_input_nodes) - given)
    return needed
