"""Any timm model in seconds: random weights from a pool, nothing left at zero.

timm draws a truncated normal for every weight, which takes minutes for a billion of them. Here
the draws are skipped while the model is built, and every parameter is then filled out of one
pool of random numbers, scaled by its fan-in. What timm sets to zero or nearly so (heads, the
last normalization of a block, layer scales) gets a value too: zeros would make exactness easy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["build_model", "calibrate", "fill_randomly", "random_pictures", "weight_bytes"]

_POOL = 1_000_003  # a prime, so that rows of a matrix do not repeat
_SMALL = 65_536
_LEAST = 0.2
_ATEN = torch.ops.aten
_DRAWS = frozenset({_ATEN.uniform_, _ATEN.normal_, _ATEN.erfinv_, _ATEN.clamp_})


class _NoDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves large tensors as they are instead of drawing them."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.overloadpacket in _DRAWS and args[0].numel() > _SMALL:
            return args[0]
        return func(*args, **(kwargs or {}))


def build_model(name: str) -> nn.Module:
    """Return a timm model in evaluation mode whose large weights are not set yet."""
    import timm

    with _NoDraws():  # type: ignore[no-untyped-call]
        model: nn.Module = timm.create_model(name, pretrained=False)
    return model.eval()


def weight_bytes(model: nn.Module) -> int:
    """Return the size of parameters and buffers."""
    return sum(
        tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers())
    )


def fill_randomly(model: nn.Module, *, seed: int) -> None:
    """Give every parameter and running statistic a random value, in place."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.empty(_POOL).uniform_(-1, 1, generator=generator).repeat(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = max(parameter[0].numel(), 1)
                _pour(parameter, pool, math.sqrt(3 / fan_in), generator)
            else:
                _vary(parameter, pool, generator, is_offset=name.endswith(("bias", "beta")))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                _pour(buffer, pool, 0.1, generator)
            elif name.endswith("running_var"):
                _pour(buffer, pool, 0.4, generator)
                buffer.add_(1)


def random_pictures(count: int, size: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Return ``(count, C, H, W)`` of noise on all scales alike, as photographs have it.

    White noise looks the same everywhere from far away: deep layers would see rounding.
    """
    channels, height, width = size
    pictures = torch.zeros(count, *size)
    side = 1
    while side <= min(height, width):
        coarse = torch.randn(count, channels, side, side, generator=generator)
        pictures += F.interpolate(coarse, (height, width), mode="bilinear")
        side *= 2
    return pictures / pictures.std()


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Set running statistics to those of a few pictures, as training would have.

    Otherwise signals die or explode along a deep network, and its answers hardly depend on the
    picture: that would make exactness easy too. Variances are drawn half-way to their mean over
    channels: training leaves no channels that a normalization amplifies a thousandfold.
    """
    kept = [
        module
        for module in model.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    ]
    if not kept:
        return
    momenta = [module.momentum for module in kept]
    for module in kept:
        module.train()
        module.momentum = 1.0  # type: ignore[assignment]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for module, momentum in zip(kept, momenta, strict=True):
            module.eval()
            module.momentum = momentum
            variance = module.running_var
            if isinstance(variance, Tensor):
                variance.add_(variance.mean()).div_(2)


def _vary(parameter: Tensor, pool: Tensor, generator: torch.Generator, *, is_offset: bool) -> None:
    """Keep the size that timm gives a scale or offset, but for zeros, and make it uneven."""
    before = parameter.detach().clone()
    _pour(parameter, pool, 0.1 if is_offset else 0.4, generator)
    if is_offset:
        parameter.add_(before)
    else:
        parameter.add_(1).mul_(torch.where(before.abs() > _LEAST, before, _LEAST))


def _pour(tensor: Tensor, pool: Tensor, scale: float, generator: torch.Generator) -> None:
    """Fill a tensor from a random place of the pool on, around and around."""
    begin = int(torch.randint(_POOL, (1,), generator=generator))
    flat = tensor.detach().reshape(-1)
    for start in range(0, len(flat), _POOL):
        part = flat[start : start + _POOL]
        part.copy_(pool[begin : begin + len(part)]).mul_(scale)
    if flat.data_ptr() != tensor.data_ptr():
        tensor.copy_(flat.view(tensor.shape))
