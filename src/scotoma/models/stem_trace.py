"""Watch one picture on its way into a network: which operations read it, and as what.

Nothing is guessed from class names. One example runs forward while every operation passes by.
A *provenance* goes along with each tensor that holds nothing but pixels: the number of the
pixel in each of its places, 0 where the network put a zero. Views, copies, zero padding and
patch cutting move pixels, and the same operation moves the provenance. The first operation
that computes with pixels is what we look for; if that is a convolution or a matrix product,
it is noted down with the weights it really used, else the network is refused with its name.

What comes after does not matter, so it runs on tensors without memory (``device="meta"``) where
the network allows that: watching costs the stem, not the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

from scotoma.core.errors import UnsupportedModelError
from scotoma.models.provenance import MOVES, Provenance, storage_of

__all__ = ["Reading", "watch_picture"]

_ATEN = torch.ops.aten
_LOOKS = frozenset(
    {
        _ATEN.empty_like,
        _ATEN.zeros_like,
        _ATEN.ones_like,
        _ATEN.full_like,
        _ATEN.new_empty,
        _ATEN.new_zeros,
        _ATEN.new_ones,
        _ATEN.new_full,
        _ATEN.is_same_size,
    }
)
"""Operations that read a tensor's shape only."""
_PADS_BY_PIXELS = frozenset({_ATEN.reflection_pad2d, _ATEN.replication_pad2d})


@dataclass(eq=False)
class Reading:
    """One operation that computed with pixels.

    Args:
        module: Dotted path of the innermost module that was running.
        operation: ``convolution`` or ``linear``.
        weight: As the operation got it: ``(D, C/groups, kh, kw)`` or ``(D, K)``.
        bias: ``(D,)`` or none.
        stride: Of the convolution.
        padding: Of the convolution, before (and after) each axis.
        dilation: Of the convolution.
        groups: Of the convolution.
        source: Provenance of what the operation read.
        entered: Provenance of what the module got, if it got pixels and nothing else.
        output: What the operation returned.
        is_whole: The module returned just that.
    """

    module: str
    operation: str
    weight: Tensor
    bias: Tensor | None
    source: Tensor
    entered: Tensor | None
    output: Tensor
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    is_whole: bool = False


def watch_picture(network: nn.Module, input_size: tuple[int, int, int]) -> list[Reading]:
    """Run one picture forward and return the operations that read it.

    Args:
        network: Runs in evaluation mode; hooks are put on it, and it may keep tensors of the run,
            so give a copy.
        input_size: ``(C, H, W)`` of the picture.

    Returns:
        The readings, in their order.

    Raises:
        UnsupportedModelError: The network does not run on such a picture, or the first operation
            on the pixels is of another kind.
    """
    watch = _Watch(network, input_size, is_sparing=True)
    try:
        return watch.run()
    except UnsupportedModelError:
        raise
    except Exception:  # any model may stumble over tensors without memory
        return _watch_in_full(network, input_size)


def _watch_in_full(network: nn.Module, input_size: tuple[int, int, int]) -> list[Reading]:
    try:
        return _Watch(network, input_size, is_sparing=False).run()
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"expected a network that runs on one picture {input_size}, got "
            f"{type(error).__name__}: {error}; give the input size that it was made for"
        ) from error


@dataclass
class _Frame:
    """A module that is running."""

    name: str
    entered: Tensor | None
    readings: list[Reading] = field(default_factory=list)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of one forward pass."""

    def __init__(
        self, network: nn.Module, input_size: tuple[int, int, int], *, is_sparing: bool
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._network = network
        self._is_sparing = is_sparing
        self._image = _example(network, input_size)
        self._provenance = Provenance(self._image)
        self._frames: list[_Frame] = [_Frame("", None)]
        self._calls: dict[str, int] = {}
        self._readings: list[Reading] = []

    def run(self) -> list[Reading]:
        """Return what read the picture."""
        with torch.no_grad(), _hooks(self._network, self._enter, self._leave), self:
            self._network(self._image)
        for reading in self._readings:
            if self._calls[reading.module] > 1:
                raise UnsupportedModelError(
                    f"{_named(reading.module)} runs more than once; "
                    "only a module that reads the picture and nothing else can be adapted"
                )
        return self._readings

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = (args, dict(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        pixels = [tensor for tensor in tensors if self._provenance.knows(tensor)]
        packet = func.overloadpacket
        if not pixels or packet in _LOOKS:
            return self._go_on(func, given, tensors)
        if packet is _ATEN.convolution:
            return self._convolve(func, given, tensors)
        if packet in (_ATEN.addmm, _ATEN.mm, _ATEN.linear):
            return self._project(func, given, tensors)
        if func._schema.is_mutable:
            how = "changes" if self._provenance.knows(given[0][0]) else "copies parts of"
            raise self._refusal(f"{how} the picture in place by {func}")
        output = func(*given[0], **given[1])
        made = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        if made and all(map(self._provenance.knows, made)):
            return output  # views: their storage has its provenance already
        self._move(func, given, output, others=len(tensors) - len(pixels))
        return output

    # What passes by

    def _go_on(self, func: Any, given: tuple[Any, Any], tensors: Sequence[Tensor]) -> Any:
        if any(tensor.is_meta for tensor in tensors):
            given = tree_map(_weightless, given)
        return func(*given[0], **given[1])

    def _move(self, func: Any, given: tuple[Any, Any], output: Any, *, others: int) -> None:
        packet = func.overloadpacket
        if packet not in (MOVES | _PADS_BY_PIXELS) or not isinstance(output, Tensor):
            why = "resizes" if "upsample" in str(func) else "computes with"
            raise self._refusal(
                f"{why} the picture by {func}; only a convolution or a matrix product over "
                "patches can take up a block map"
            )
        if output.dtype != self._image.dtype:
            raise self._refusal(f"turns the picture into {output.dtype}")
        if others and packet is not _ATEN.index:
            raise self._refusal(f"joins the picture with other data by {func}")
        value = given[0][2] if packet is _ATEN.constant_pad_nd and len(given[0]) > 2 else 0
        if value != 0:
            raise self._refusal(f"pads the picture with {value}; only zeros stay zeros encrypted")
        if packet in _PADS_BY_PIXELS:
            raise self._refusal(
                f"pads the picture by {func}; beyond the edge only zeros can be read encrypted"
            )
        self._provenance.move(func, given, output)

    def _convolve(self, func: Any, given: tuple[Any, Any], tensors: Sequence[Tensor]) -> Any:
        image, weight, bias, stride, padding, dilation, transposed, _, groups = given[0]
        if transposed or weight.ndim != 4 or not self._provenance.knows(image):
            raise self._refusal(f"reads the picture by {func}; only plain 2-D convolutions can be")
        reading = self._read("convolution", image, weight, bias)
        reading.stride, reading.padding = _pair(stride), _pair(padding)
        reading.dilation, reading.groups = _pair(dilation), groups
        return self._answer(reading, func, given, tensors)

    def _project(self, func: Any, given: tuple[Any, Any], tensors: Sequence[Tensor]) -> Any:
        args = given[0]
        if func.overloadpacket is _ATEN.linear:
            source, weight, bias = args[0], args[1], args[2] if len(args) > 2 else None
        elif func.overloadpacket is _ATEN.mm:
            source, weight, bias = args[0], args[1].t(), None
        else:
            source, weight, bias = args[1], args[2].t(), args[0]
        if not self._provenance.knows(source) or self._provenance.knows(weight):
            raise self._refusal(f"computes with the picture by {func}")
        return self._answer(self._read("linear", source, weight, bias), func, given, tensors)

    def _read(self, operation: str, source: Tensor, weight: Tensor, bias: Tensor | None) -> Reading:
        frame = self._frames[-1]
        if weight.is_meta:
            raise self._refusal("reads the picture with weights that depend on the picture")
        return Reading(
            module=frame.name,
            operation=operation,
            weight=weight.detach(),
            bias=None if bias is None else bias.detach(),
            source=self._provenance.of(source),
            entered=frame.entered,
            output=source,
        )

    def _answer(
        self, reading: Reading, func: Any, given: tuple[Any, Any], tensors: Sequence[Tensor]
    ) -> Any:
        if self._is_sparing:
            given = tree_map(_weightless, given)
        reading.output = self._go_on(func, given, tensors)
        self._frames[-1].readings.append(reading)
        self._readings.append(reading)
        return reading.output

    # Which module is running

    def _enter(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        alone = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        has_pixels = alone and self._provenance.knows(args[0])
        self._calls[name] = self._calls.get(name, 0) + 1
        self._frames.append(_Frame(name, self._provenance.of(args[0]) if has_pixels else None))

    def _leave(self, output: Any) -> None:
        for reading in self._frames.pop().readings:
            reading.is_whole = (
                isinstance(output, Tensor)
                and storage_of(output) == storage_of(reading.output)
                and output.numel() == reading.output.numel()
            )

    def _refusal(self, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{_named(self._frames[-1].name)} {what}")


@contextmanager
def _hooks(network: nn.Module, enter: Any, leave: Any) -> Iterator[None]:
    """Call ``enter(name, args, kwargs)`` and ``leave(output)`` around each module's forward."""
    handles: list[RemovableHandle] = []

    def before(name: str) -> Any:
        return lambda _, args, kwargs: enter(name, args, kwargs)

    def after(_module: nn.Module, _args: Any, output: Any) -> None:
        leave(output)

    try:
        for name, module in network.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                handles.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
                handles.append(module.register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _example(network: nn.Module, input_size: tuple[int, int, int]) -> Tensor:
    """Return one random picture of the network's own type, where its weights are."""
    kept = [parameter for parameter in network.parameters() if parameter.is_floating_point()]
    like = kept[0] if kept else torch.zeros(0)
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, *input_size, generator=generator)
    return picture.to(device=like.device, dtype=like.dtype)


def _weightless(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def _pair(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(values) if len(values) == 2 else tuple(values) * 2


def _named(module: str) -> str:
    return f"module {module!r}" if module else "the network itself"
