"""A network as one graph of operations, and the values in it that it can be cut at.

``torch.export`` records the operations that the network makes of one picture, down to its
functional code, and of each operation in which module it was called. A value is where a module
ended; a cut there is clean if nothing else that was computed from the picture is used later.
"""

from __future__ import annotations

import inspect
import operator
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import TreeSpec

from scotoma.core.errors import UnsupportedModelError
from scotoma.models.exported import ExportedNetwork

__all__ = ["Captured", "Cut", "capture", "find_cuts", "is_size", "mutated"]

# Returns its input where it does nothing, which its schema does not say.
_PASSES_THROUGH = frozenset(
    {torch.ops.aten.dropout.default, torch.ops.aten.feature_dropout.default}
)


@dataclass(frozen=True, eq=False)
class Captured:
    """A network's operations in the order in which it makes them.

    Args:
        module: Graph with the network's own parameters; nothing in it is called twice.
        structure: Of what the network returns.
        batch: The one batch size it was captured at; None where any will do.
    """

    module: fx.GraphModule
    structure: TreeSpec
    batch: int | None

    @property
    def nodes(self) -> list[fx.Node]:
        """All operations, in order."""
        return list(self.module.graph.nodes)

    @property
    def entry(self) -> fx.Node:
        """The pictures."""
        found: fx.Node = next(n for n in self.module.graph.nodes if n.op == "placeholder")
        return found


@dataclass(frozen=True, eq=False)
class Cut:
    """A value at which a module ends.

    Args:
        node: The operation that returns it.
        names: Paths of the modules that end there, outermost first.
        crossing: Further values that were computed from the picture and are used later.
    """

    node: fx.Node
    names: tuple[str, ...]
    crossing: tuple[fx.Node, ...]


def capture(network: nn.Module, input_size: tuple[int, int, int]) -> Captured:
    """Return the network's operations on pictures of one size, in any number where it can.

    Args:
        network: In evaluation mode; reads ``(B, C, H, W)``.
        input_size: ``(C, H, W)``.

    Raises:
        UnsupportedModelError: ``torch.export`` cannot follow it; the message says why.
    """
    if isinstance(network, ExportedNetwork):
        known = _from_program(network)
        if known is not None:
            return known
    like = next(iter(network.parameters()), torch.zeros(0))
    example = torch.zeros(2, *input_size, dtype=like.dtype, device=like.device)
    batch: int | None = None
    try:
        program = _export(network, example, ({0: Dim.AUTO},))
        if isinstance(_expression(_input_value(program).shape[0]), int):
            batch = 1  # it was specialized on the way
    except Exception:  # torch.export's errors have no common base
        batch = 1
    if batch is not None:
        try:
            program = _export(network, example[:1], None)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise UnsupportedModelError(
                f"expected a network that torch.export can follow at {input_size}, got: {reason}; "
                "such a network cannot be split here"
            ) from error
    module = _unlift(program)
    if any(_mutates_view(node) for node in module.graph.nodes):
        program = program.run_decompositions({})
        module = _unlift(program)
    _name_mutated(module.graph)
    return Captured(module, program.call_spec.out_spec, batch)


def _from_program(network: ExportedNetwork) -> Captured | None:
    """Return what an exported program says already; none where it writes through views."""
    module: Any = network.program
    if any(_mutates_view(node) for node in module.graph.nodes):
        return None
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    _name_mutated(graph)
    structure = module.graph._codegen.pytree_info.out_spec
    return Captured(fx.GraphModule(module, graph), structure, network.batch_size)


def find_cuts(captured: Captured) -> list[Cut]:
    """Return every value at which a module ends, in the order in which they are computed."""
    nodes = captured.nodes
    data = _from_picture(captured)
    ordered = [node for node in nodes if node in data]
    order = {node: place for place, node in enumerate(ordered)}
    output = nodes[-1]
    last_use = {
        node: max(order.get(user, len(ordered)) for user in node.users if _counts(user, data))
        for node in ordered
    }
    found = []
    live: list[fx.Node] = []
    for place, node in enumerate(ordered):
        live = [other for other in live if last_use[other] > place]
        after = ordered[place + 1] if place + 1 < len(ordered) else output
        names = tuple(_ended(node, after, data))
        if names and after is not output and _is_batch(node, captured):
            found.append(Cut(node, names, tuple(live)))
        live.append(node)
    times = Counter(name for cut in found for name in cut.names)
    named = (
        Cut(cut.node, tuple(n for n in cut.names if times[n] == 1), cut.crossing) for cut in found
    )
    return [cut for cut in named if cut.names]


def is_size(node: fx.Node, captured: Captured) -> bool:
    """Whether a node only asks how many pictures there are."""
    if node.target is not torch.ops.aten.sym_size.int:
        return False
    return _is_count(node.meta["val"], captured)


def mutated(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the values that an operation writes to."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return
    for place, argument in enumerate(schema.arguments):
        given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from (item for item in _flat(given) if isinstance(item, fx.Node))


def _export(network: nn.Module, example: Tensor, shapes: Any) -> ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)


def _input_value(program: ExportedProgram) -> Tensor:
    names = set(program.graph_signature.user_inputs)
    value: Tensor = next(n for n in program.graph.nodes if n.name in names).meta["val"]
    return value


def _unlift(program: ExportedProgram) -> fx.GraphModule:
    takes_guards = "check_guards" in inspect.signature(program.module).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.module(**({"check_guards": False} if takes_guards else {}))


def _flat(given: Any) -> Sequence[Any]:
    return given if isinstance(given, list | tuple) else (given,)


def _is_fresh(node: fx.Node) -> bool:
    """Whether a value has memory of its own, so that writing to it changes no other value."""
    if node.op == "placeholder":
        return True
    if node.op != "call_function" or node.target in _PASSES_THROUGH:
        return False
    if node.target is operator.getitem:
        return _is_fresh(node.args[0])  # type: ignore[arg-type]
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return False
    written = list(mutated(node))
    if written:
        return all(_is_fresh(other) for other in written)
    return all(returned.alias_info is None for returned in schema.returns)


def _mutates_view(node: fx.Node) -> bool:
    return not all(_is_fresh(other) for other in mutated(node))


def _name_mutated(graph: fx.Graph) -> None:
    """After a value was written to, let what reads it read the operation that wrote."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        for written in set(mutated(node)):
            for user in list(written.users):
                if order[user] > order[node]:
                    user.replace_input_with(written, node)


def _from_picture(captured: Captured) -> set[fx.Node]:
    """Return what is computed from the picture's numbers and decides the answer."""
    nodes = captured.nodes
    needed = {nodes[-1]}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    data: set[fx.Node] = set()
    for node in nodes[:-1]:
        reads = any(other in data for other in node.all_input_nodes)
        if node in needed and (node is captured.entry or (reads and not is_size(node, captured))):
            data.add(node)
    return data


def _counts(user: fx.Node, data: set[fx.Node]) -> bool:
    return user in data or user.op == "output"


def _ended(node: fx.Node, after: fx.Node, data: set[fx.Node]) -> Iterator[str]:
    """Yield the paths of the modules whose answer a value is, outermost first."""
    users = [_modules(user) for user in node.users if _counts(user, data)]
    later = _modules(after)
    for key, path in _modules(node).items():
        if path and key not in later and any(key not in user for user in users):
            yield path


def _modules(node: fx.Node) -> dict[str, str]:
    stack = node.meta.get("nn_module_stack") or {}
    return {key: path.partition("@")[0] for key, (path, _) in stack.items()}


def _is_batch(node: fx.Node, captured: Captured) -> bool:
    """Whether a value is one floating-point tensor with a row for each picture."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
        return False
    return _is_count(value.shape[0], captured)


def _is_count(size: int | torch.SymInt, captured: Captured) -> bool:
    """Whether a size is the number of pictures."""
    return bool(_expression(size) == _expression(captured.entry.meta["val"].shape[0]))


def _expression(size: int | torch.SymInt) -> Any:
    """Return a whole number where a size is known, else its formula."""
    if isinstance(size, int):
        return size
    formula = size.node.expr
    return int(formula) if formula.is_number else formula
