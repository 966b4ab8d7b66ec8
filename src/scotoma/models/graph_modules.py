"""Modules for the convolutions of exported programs, so that they can be replaced.

A program of ``torch.export`` is one module with a graph of operations: its first convolution is a
node, not a module. Here such nodes become modules that hold the same parameters and call the same
operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["with_convolution_modules"]

_CONVOLUTIONS = frozenset(
    {
        torch.ops.aten.conv2d.default,
        torch.ops.aten.conv2d.padding,
        torch.ops.aten.convolution.default,
    }
)
_WEIGHT, _BIAS, _REST = 1, 2, 3  # places of the arguments after the input


class GraphConvolution(nn.Module):
    """One convolution of a graph.

    Args:
        operation: What the node called.
        weight: ``(D, C/groups, kh, kw)``.
        bias: ``(D,)`` or none.
        rest: The arguments after these.
    """

    def __init__(
        self, operation: Any, weight: nn.Parameter, bias: nn.Parameter | None, rest: tuple[Any, ...]
    ) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self._operation = operation
        self._rest = rest

    def forward(self, features: Tensor) -> Tensor:
        """Return what the node returned."""
        result: Tensor = self._operation(features, self.weight, self.bias, *self._rest)
        return result


def with_convolution_modules(network: nn.Module) -> nn.Module:
    """Give the convolutions that read a program's input a module each.

    Args:
        network: Changed in place, if it is or contains a ``torch.fx.GraphModule``; parameters
            stay the same objects.

    Returns:
        The network.
    """
    for graph in [part for part in network.modules() if isinstance(part, fx.GraphModule)]:
        found = [node for node in graph.graph.nodes if _reads_input(node)]
        sources = [w for node in found for w in node.args[_WEIGHT:_REST] if w is not None]
        for number, node in enumerate(found):
            _give_module(graph, node, f"input_convolution_{number}")
        if found:
            graph.graph.eliminate_dead_code()
            graph.graph.lint()
            graph.recompile()
            _forget_unused(graph, {str(source.target) for source in sources})
    return network


def _reads_input(node: fx.Node) -> bool:
    """Whether the node is a convolution with nothing before it that has weights of its own."""
    if node.op != "call_function" or node.target not in _CONVOLUTIONS or node.kwargs:
        return False
    weights = node.args[_WEIGHT:_REST]
    if not all(w is None or (isinstance(w, fx.Node) and w.op == "get_attr") for w in weights):
        return False
    before = node.args[0]
    while isinstance(before, fx.Node) and before.op == "call_function":
        sources = before.all_input_nodes
        if before.target in _CONVOLUTIONS or len(sources) != 1:
            return False
        before = sources[0]
    return isinstance(before, fx.Node) and before.op == "placeholder"


def _give_module(graph: fx.GraphModule, node: fx.Node, name: str) -> None:
    weight, bias = (_parameter(graph, node, place) for place in (_WEIGHT, _BIAS))
    if weight is None:
        return
    module = GraphConvolution(node.target, weight, bias, tuple(node.args[_REST:]))
    module.training = graph.training
    graph.add_submodule(name, module)
    with graph.graph.inserting_before(node):
        call = graph.graph.call_module(name, (node.args[0],))
    node.replace_all_uses_with(call)
    graph.graph.erase_node(node)


def _forget_unused(graph: fx.GraphModule, targets: set[str]) -> None:
    """Remove those parameters that no node uses any more.

    Once the module is rewritten for a key, a plain copy of its weights would give the key away.
    """
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for target in targets - used:
        owner, _, name = target.rpartition(".")
        delattr(graph.get_submodule(owner), name)


def _parameter(graph: fx.GraphModule, node: fx.Node, place: int) -> nn.Parameter | None:
    source = node.args[place] if len(node.args) > place else None
    if not isinstance(source, fx.Node):
        return None
    held: Any = graph
    for part in str(source.target).split("."):
        held = getattr(held, part)
    return held if isinstance(held, nn.Parameter) else nn.Parameter(held, requires_grad=False)
