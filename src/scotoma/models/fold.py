"""BatchNorm folded into the convolutions before it, for networks asked many times.

At evaluation BatchNorm is one multiplication and one addition per channel, which the weights
and bias of a convolution right before it can do at no cost.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["fold_batch_norm"]

_TOLERANCE = 1e-4


def fold_batch_norm(network: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of ``network`` whose BatchNorms are part of the convolutions before them.

    Which convolution feeds which BatchNorm, and nothing else, is read from the graph that
    autograd records of one run, so that any control flow inside the network is allowed.

    Args:
        network: In evaluation mode; not changed.
        example: ``(B, 3, H, W)`` inputs of the size that the network reads.

    Returns:
        The folded copy; ``network`` itself where there is nothing to fold, or where the
        copy's logits on random inputs differ by more than 1e-4 of their largest.

    Raises:
        ModelError: The network is in training mode.
    """
    if network.training:
        raise ModelError("expected a network in evaluation mode, got training; call .eval() first")
    pairs = _find_pairs(network, example)
    if not pairs:
        return network
    folded = copy.deepcopy(network)
    for convolution, norm in pairs:
        _fold(folded, convolution, norm)
    return folded if _is_same(network, folded, example) else network


def _find_pairs(network: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Names of (convolution, BatchNorm) where the latter alone reads what the former makes."""
    import torch

    made_by: dict[Any, str] = {}
    candidates: list[tuple[Any, str, str]] = []
    calls: Counter[str] = Counter()
    handles = []

    def after_convolution(name: str) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            calls[name] += 1
            made_by[output.grad_fn] = name

        return note

    def before_norm(name: str) -> Any:
        def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[name] += 1
            if inputs[0].grad_fn in made_by:
                candidates.append((inputs[0].grad_fn, made_by[inputs[0].grad_fn], name))

        return note

    for name, module in network.named_modules():
        if _is_plain_convolution(module):
            handles.append(module.register_forward_hook(after_convolution(name)))
        elif _is_plain_norm(module):
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        with torch.enable_grad():
            output = network(example[:1].detach().clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    readers = _count_readers(output.grad_fn)
    return [
        (convolution, norm)
        for node, convolution, norm in candidates
        if readers[node] == 1 and calls[convolution] == 1 and calls[norm] == 1
    ]


def _count_readers(last: Any) -> Counter[Any]:
    """How many operations read the result of each operation that ``last`` rests on."""
    readers: Counter[Any] = Counter()
    seen, waiting = {last}, [last]
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is not None:
                readers[node] += 1
                if node not in seen:
                    seen.add(node)
                    waiting.append(node)
    return readers


def _is_plain_convolution(module: nn.Module) -> bool:
    """Whether the weights are used as they are: subclasses may standardize them first."""
    from timm.layers.conv2d_same import Conv2dSame
    from torch import nn

    return type(module) in (nn.Conv2d, Conv2dSame)


def _is_plain_norm(module: nn.Module) -> bool:
    from timm.layers.norm_act import BatchNormAct2d
    from torch import nn

    known = type(module) in (nn.BatchNorm2d, BatchNormAct2d)
    return known and module.running_mean is not None and module.running_var is not None


def _fold(network: nn.Module, convolution_name: str, norm_name: str) -> None:
    """Fold one pair in place; timm's BatchNormAct2d leaves its activation behind."""
    import torch
    from torch import nn

    convolution: Any = network.get_submodule(convolution_name)
    norm: Any = network.get_submodule(norm_name)
    # In float64, so that the only rounding is that of the new weights.
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    weight = convolution.weight
    folded = (weight.double() * scale[:, None, None, None]).to(weight.dtype)
    with torch.no_grad():
        weight.copy_(folded)  # keeps the memory layout
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
    rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
    parent, _, child = norm_name.rpartition(".")
    replacement = nn.Sequential(*rest) if rest else nn.Identity()
    setattr(network.get_submodule(parent), child, replacement.eval())


def _is_same(network: nn.Module, folded: nn.Module, example: Tensor) -> bool:
    import torch

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((2, *example.shape[1:]), generator=generator).to(example.device)
    with torch.no_grad():
        expected, got = network(inputs), folded(inputs)
    return bool((expected - got).abs().max() <= _TOLERANCE * expected.abs().max())
