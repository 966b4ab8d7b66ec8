"""A network's weights as a compressed file holds them: plain, or at a price for every bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from scotoma.compress.compensation import price_layer
from scotoma.compress.fractional import FractionalFits, fractional_tensor
from scotoma.compress.importance import find_importance, smooth_importance
from scotoma.compress.moments import find_moments, is_layer
from scotoma.compress.pruning import prune_smallest
from scotoma.compress.quantization import price_tensor, round_tensor
from scotoma.models.compressed import stored_names
from scotoma.models.compressed_tensors import CompressedTensor, GridTensor

if TYPE_CHECKING:
    from scotoma.compress.pictures import Pictures

__all__ = ["Pricing", "put_tensors", "round_network"]

_GRADIENT_BATCH = 8
_SMOOTH = 0.3
_EVEN = 0.2  # share of the mean in the importance of outputs
_VECTOR_BITS = 12
_SILENT = 0.01  # of a layer's mean: what a channel that was never active counts as reading


def round_network(network: nn.Module, *, bits: int, prune: float = 0.0) -> dict[str, GridTensor]:
    """Return every weight as an integer of so many bits, a step for each output channel.

    Vectors (biases) get 12 bits, or more where weights do.

    Args:
        network: Folded or not.
        bits: 2 to 16.
        prune: Share of the weights that become zero first.
    """
    state = network.state_dict()
    weights = {name: state[name].detach().cpu() for name in stored_names(network)}
    pruned = prune_smallest(weights, prune)
    return {
        name: round_tensor(weight, bits=bits, by_row=True, search=bits < 8)
        if weight.ndim >= 2
        else round_tensor(weight, bits=max(bits, _VECTOR_BITS))
        for name, weight in pruned.items()
    }


def put_tensors(network: nn.Module, tensors: Mapping[str, CompressedTensor]) -> None:
    """Give a network the weights that a file would hold, in place."""
    network.load_state_dict({n: tensor.values() for n, tensor in tensors.items()}, strict=False)


class Pricing:
    """What a network's weights are worth, found once; then its tensors at any price.

    Args:
        network: In evaluation mode, folded; not changed.
        pictures: On which it is found.
        seed: Of drawn labels and positions.
    """

    def __init__(self, network: nn.Module, pictures: Pictures, *, seed: int) -> None:
        self._network = network
        self._fitted: FractionalFits | None = None
        generator = Generator().manual_seed(seed)
        small = (images for images, _ in pictures.batches(_GRADIENT_BATCH))
        importance = find_importance(network, small, generator=generator)
        self._importance = smooth_importance(importance, share=_SMOOTH)
        large = (images for images, _ in pictures.batches())
        self._moments = find_moments(network, large, generator=generator)

    def at(self, price: float, *, fractional: float = 0.0) -> dict[str, CompressedTensor]:
        """Return all tensors that a file holds, at one price for a bit.

        Args:
            price: In nats of divergence a picture.
            fractional: Share of the kernels of 3×3 and more that are fractional filters, those
                that lose least by it.
        """
        masks = self._fits().choose(fractional) if fractional else {}
        found: dict[str, CompressedTensor] = {}
        for name, module in self._network.named_modules():
            if is_layer(module) and name in self._moments:
                found |= self._layer(name, module, price, masks)
        state = self._network.state_dict()
        names = stored_names(self._network)
        for name in names:
            if name not in found:
                found[name] = self._other(name, state[name], price)
        return {name: found[name] for name in names}

    def _layer(
        self, name: str, module: nn.Module, price: float, masks: Mapping[str, Tensor]
    ) -> dict[str, CompressedTensor]:
        prefix = f"{name}." if name else ""
        weight = module.get_parameter("weight").detach().cpu()
        bias = getattr(module, "bias", None)
        given = (
            weight,
            None if bias is None else bias.detach().cpu(),
            self._moments[name],
            self._worth(name, prefix),
            price,
        )
        priced = price_layer(*given)
        parts: dict[str, CompressedTensor] = {f"{prefix}weight": priced.weight}
        mask = masks.get(f"{prefix}weight")
        if mask is not None and bool(mask.any()):
            # Amplitudes are as fine as the layer's weights turned out to be.
            exponent = int(priced.weight.exponents)
            shapes = self._fits().shapes[f"{prefix}weight"]
            tensor = fractional_tensor(weight, shapes, mask, exponent)
            every = mask[..., None, None].expand(weight.shape)
            priced = price_layer(*given, fixed=(every, tensor.values()))
            parts[f"{prefix}weight"] = replace(tensor, plain=priced.weight)
        if priced.bias is not None:
            parts[f"{prefix}bias"] = priced.bias
        return parts

    def _fits(self) -> FractionalFits:
        if self._fitted is None:
            weights = {
                f"{name}.weight" if name else "weight": module.get_parameter("weight")
                for name, module in self._network.named_modules()
                if is_layer(module)
            }
            weights = {name: weight.detach().cpu() for name, weight in weights.items()}
            importance = {name: value.cpu() for name, value in self._importance.items()}
            self._fitted = FractionalFits(weights, importance)
        return self._fitted

    def _worth(self, name: str, prefix: str) -> Tensor:
        """Return what a squared error of 1 of each output costs.

        The measured importance of a row's weights, over how strong what they read is.
        """
        rows = self._importance[f"{prefix}weight"].cpu().flatten(1).mean(1)
        moment = self._moments[name]
        read = torch.diagonal(moment, dim1=1, dim2=2)[:, :-1].mean(1)
        read = read.clamp(min=_SILENT * float(read.mean()) + 1e-12)
        worth = rows / read.repeat_interleave(len(rows) // len(moment))
        return (1 - _EVEN) * worth + _EVEN * worth.mean()

    def _other(self, name: str, value: Tensor, price: float) -> GridTensor:
        """Return a tensor that belongs to no layer: embeddings, norms, running statistics."""
        importance = self._importance.get(name)
        if value.ndim < 2 or importance is None:
            # Few numbers on which much hangs: a variance rounded to zero would end the network.
            return round_tensor(value, bits=16)
        return price_tensor(value, importance, price)
