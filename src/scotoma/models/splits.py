"""Cut a network in two: a head that runs where the picture is, and a tail that runs elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from scotoma.core.errors import UnknownNameError, UnsupportedModelError
from scotoma.models.splits_graph import Captured, Cut, capture, find_cuts
from scotoma.models.splits_half import Half, make_head, make_tail

__all__ = ["Split", "SplitPoint", "Splitter", "list_splits", "split"]

_NEAREST = 3


@dataclass(frozen=True)
class SplitPoint:
    """A value at which a network can be cut.

    Args:
        name: Path of the module that returns it, as ``layer2`` or ``blocks.3``; of several, the
            outermost.
        shape: Of one picture's value: ``(C, H, W)``, or ``(N, D)`` for tokens.
        share: Of the network's multiply-adds that are done before the cut, in [0, 1].
        crossing: Names of further values that later parts use; empty where the cut is clean.
        aliases: Other modules that return the same value.
    """

    name: str
    shape: tuple[int, ...]
    share: float
    crossing: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def values(self) -> int:
        """Numbers that are sent for one picture."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Their size as float32."""
        return 4 * self.values

    def to_config(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "name": self.name,
            "aliases": list(self.aliases),
            "shape": list(self.shape),
            "values": self.values,
            "bytes": self.bytes,
            "share": self.share,
            "crossing": list(self.crossing),
        }


@dataclass(frozen=True, eq=False)
class Split:
    """A network in two parts, which share its parameters.

    Args:
        head: ``(B, C, H, W)`` pictures to the value at the cut.
        tail: That to what the network returns.
        point: Where it was cut.
    """

    head: Half
    tail: Half
    point: SplitPoint


class Splitter:
    """A network that was captured once, to be cut at any of its points.

    Args:
        network: Reads ``(B, C, H, W)``; in evaluation mode. It is not changed.
        input_size: ``(C, H, W)``.

    Attributes:
        points: All points, in the order of the network's computation.
        batch: The one number of pictures that the network could be followed with; None where any
            will do. The parts take any number either way, and then ask one by one.

    Raises:
        UnsupportedModelError: ``torch.export`` cannot follow the network.
    """

    def __init__(self, network: nn.Module, input_size: tuple[int, int, int]) -> None:
        self._captured = capture(network, input_size)
        self._cuts = find_cuts(self._captured)
        work, last = _try(self._captured, 1)
        # Kernels may choose the layout by the number of pictures.
        self._last = last & _try(self._captured, 2)[1]
        self.points: tuple[SplitPoint, ...] = tuple(_points(self._captured, self._cuts, work))
        self.batch = self._captured.batch

    def cut(self, at: str, *, carry: bool = False) -> Split:
        """Cut behind the module ``at``; see :func:`split`."""
        place = next((place for place, cut in enumerate(self._cuts) if at in cut.names), None)
        if place is None:
            names = (name for cut in self._cuts for name in cut.names)
            raise UnknownNameError("split point", at, names)
        cut, point = self._cuts[place], self.points[place]
        if point.crossing and not carry:
            others = " and ".join(map(repr, point.crossing))
            raise UnsupportedModelError(
                f"expected a cut that one value crosses, but behind {at!r} {others} would have to "
                f"cross too; cut at {self._nearest(place)}, or carry them along with carry=True"
            )
        tail = make_tail(self._captured, cut, self._last)
        return Split(make_head(self._captured, cut), tail, point)

    def _nearest(self, place: int) -> str:
        """Return the names of the clean points nearest to one."""
        clean = [other for other, point in enumerate(self.points) if not point.crossing]
        chosen = sorted(sorted(clean, key=lambda other: abs(other - place))[:_NEAREST])
        return ", ".join(repr(self.points[other].name) for other in chosen) or "none, there is none"


def list_splits(
    network: nn.Module, input_size: tuple[int, int, int], *, clean: bool = True
) -> list[SplitPoint]:
    """Return the points at which a network can be cut, in the order of its computation.

    Args:
        network: Reads ``(B, C, H, W)``; in evaluation mode.
        input_size: ``(C, H, W)``.
        clean: Leave out the points that further values cross.

    Raises:
        UnsupportedModelError: ``torch.export`` cannot follow the network.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        >>> [(point.name, point.shape) for point in list_splits(network.eval(), (3, 8, 8))]
        [('0', (8, 6, 6)), ('1', (8, 6, 6)), ('2', (288,))]
    """
    points = Splitter(network, input_size).points
    return [point for point in points if not (clean and point.crossing)]


def split(
    network: nn.Module, at: str, input_size: tuple[int, int, int], *, carry: bool = False
) -> Split:
    """Cut a network behind the module ``at``.

    Args:
        network: Reads ``(B, C, H, W)``; in evaluation mode. It is not changed.
        at: Path of a module, as in :func:`list_splits`.
        input_size: ``(C, H, W)``.
        carry: Let further values cross: the head then returns a tuple of the value and these, and
            the tail takes it.

    Returns:
        Two modules of the network's own operations and parameters: ``tail(head(images))`` equals
        ``network(images)`` exactly.

    Raises:
        UnknownNameError: No module of that name ends in a value; suggests the nearest.
        UnsupportedModelError: Further values cross there, and the message lists the nearest
            points where none does; or ``torch.export`` cannot follow the network.
    """
    return Splitter(network, input_size).cut(at, carry=carry)


def _points(
    captured: Captured, cuts: Iterable[Cut], done: Mapping[fx.Node, int]
) -> list[SplitPoint]:
    names = {cut.node: cut.names[0] for cut in cuts}
    total = done[captured.nodes[-1]] or 1
    return [
        SplitPoint(
            name=cut.names[0],
            shape=tuple(int(side) for side in cut.node.meta["val"].shape[1:]),
            share=done[cut.node] / total,
            crossing=tuple(_name(node, names) for node in cut.crossing),
            aliases=cut.names[1:],
        )
        for cut in cuts
    ]


def _name(node: fx.Node, names: dict[fx.Node, str]) -> str:
    """Return the name of a value: the module that returns it, or where it is computed."""
    if node in names:
        return names[node]
    if node.op == "placeholder":
        return "the picture"
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return f"{node.name} in {(stack[-1][0] if stack else '') or 'the network itself'}"


def _try(captured: Captured, count: int) -> tuple[dict[fx.Node, int], set[fx.Node]]:
    """Ask the network about ``count`` grey pictures.

    Returns:
        The floating-point operations done once each node is computed, and the nodes whose values
        lie channels-last in memory.
    """
    done: dict[fx.Node, int] = {}
    last: set[fx.Node] = set()
    counter = FlopCounterMode(display=False)

    class _Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            done[n] = counter.get_total_flops()
            if isinstance(result, Tensor) and _is_channels_last(result):
                last.add(n)
            return result

    value = captured.entry.meta["val"]
    shape = (captured.batch or count, *(int(side) for side in value.shape[1:]))
    images = torch.zeros(shape, dtype=value.dtype, device=value.device)
    with torch.no_grad(), counter:
        _Watching(captured.module).run(images)
    return done, last


def _is_channels_last(value: Tensor) -> bool:
    if value.ndim != 4 or value.is_contiguous():  # of which some are both
        return False
    return value.is_contiguous(memory_format=torch.channels_last)
