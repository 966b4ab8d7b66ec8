"""Which models can be adapted to which scheme, told without weights and within a moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from scotoma.core.errors import ModelError, ScotomaError, UnknownNameError, UnsupportedModelError
from scotoma.models.assembly import nearest
from scotoma.models.blueprint import Blueprint
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.spec import list_models, load_classifier
from scotoma.protections.encrypt.schemes import schemes

if TYPE_CHECKING:
    from torch import nn

    from scotoma.models.stems import Stem

__all__ = ["Adaptability", "check_network", "find_adaptable", "list_forms"]

_SIDES_SHOWN = 6
_UNWRITABLE = "no: its weights cannot be rewritten; adapt the model that it was made from"
_BY_FORM = {
    "exported": _UNWRITABLE,
    "onnx": _UNWRITABLE,
}


@dataclass(frozen=True)
class Adaptability:
    """Whether a model can read a scheme's releases.

    Args:
        name: The model, as named.
        adapts: Whether it can.
        blocks: Block sides up to 64 with which it can; empty where any will do or none.
        reason: How, or why not.
    """

    name: str
    adapts: bool
    blocks: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        if not self.adapts:
            return f"no: {self.reason}"
        shown = ", ".join(map(str, self.blocks[:_SIDES_SHOWN]))
        more = ", ..." if len(self.blocks) > _SIDES_SHOWN else ""
        return f"yes, blocks {shown}{more}: {self.reason}" if shown else f"yes: {self.reason}"


def list_forms(scheme: str) -> Iterator[tuple[str, str]]:
    """Yield every form of model SPEC with whether its models adapt to ``scheme``."""
    for form, _ in list_models():
        kind = form.partition(":")[0]
        if kind == "embedded":
            yield form, str(next(find_adaptable([form], scheme)))
        elif kind in _BY_FORM:
            yield form, _BY_FORM[kind]
        elif kind == "timm":
            yield form, "ask by name: scotoma list models 'resnet*' --adaptable"
        else:
            yield form, f"ask by SPEC: scotoma list models {form} --adaptable"


def find_adaptable(patterns: Sequence[str], scheme: str) -> Iterator[Adaptability]:
    """Yield a verdict on each model that ``patterns`` name, one by one.

    Args:
        patterns: SPECs of models, and patterns of timm's names such as ``resnet*``.
        scheme: Name of an encryption scheme.

    Raises:
        UnknownNameError: No such scheme or model; the message suggests the nearest.
        ModelError: A SPEC's model cannot be loaded.
    """
    schemes.get(scheme)
    for pattern in patterns:
        if pattern == "embedded" or ":" in pattern:
            classifier = load_classifier(pattern)
            size = classifier.preprocessing.input_size
            yield check_network(pattern, classifier.network, size, scheme)
        else:
            for name in _names(pattern):
                yield _check_timm(name, scheme)


def check_network(
    name: str, network: object, input_size: tuple[int, int, int], scheme: str
) -> Adaptability:
    """Return whether a network can read a scheme's releases.

    Args:
        name: What it is called.
        network: A module; its weights matter only to schemes that move blocks.
        input_size: ``(C, H, W)`` of the pictures.
        scheme: Name of an encryption scheme.
    """
    from torch import nn

    if not schemes.get(scheme).keyed:
        if scheme in getattr(network, "reads", ()):
            return Adaptability(name, True, (), "trained to read these releases")
        return Adaptability(name, False, (), f"not trained to read {scheme!r} releases")
    if not isinstance(network, nn.Module):
        return Adaptability(name, False, (), _UNWRITABLE.removeprefix("no: "))
    from scotoma.models.stems import find_stems

    try:
        stems = find_stems(network, input_size)
        if scheme == "block-shuffle":
            blocks = _check_positions(network, input_size, stems)
        else:
            blocks = _blocks(stems, per_position=scheme == "orthogonal-per-block")
            blocks = [block for block in blocks if block >= schemes.get(scheme).least_block]
    except ScotomaError as error:
        return Adaptability(name, False, (), str(error))
    if not blocks:
        return Adaptability(name, False, (), f"no block side up to 64 fits {_describe(stems)}")
    return Adaptability(name, True, tuple(blocks), _describe(stems))


def _blocks(stems: Sequence[Stem], *, per_position: bool) -> list[int]:
    from scotoma.models.block_stem import valid_blocks

    blocks = valid_blocks(stems)
    if not per_position:
        return blocks
    if any(stem.operation == "linear" for stem in stems):
        return []
    return [b for b in blocks if all(b % side == 0 for stem in stems for side in stem.stride)]


def _check_positions(
    network: nn.Module, input_size: tuple[int, int, int], stems: Sequence[Stem]
) -> list[int]:
    """Return the patch's side if the network's positions follow shuffled blocks."""
    from scotoma.models.positions import permute_positions

    block = stems[0].stride[0]
    count = (input_size[1] // block) * (input_size[2] // block)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    permute_positions(network, input_size, block, order)
    return [block]


def _describe(stems: Sequence[Stem]) -> str:
    parts = [
        f"{stem.module or 'the network'} reads {stem.kernel[0]}×{stem.kernel[1]} "
        f"by {stem.stride[0]}"
        for stem in stems
    ]
    return "; ".join(parts)


def _names(pattern: str) -> list[str]:
    import timm

    names: list[str] = timm.list_models(pattern)
    if not names:
        raise UnknownNameError("timm model", pattern, nearest(pattern, timm.list_models()))
    return names


def _check_timm(name: str, scheme: str) -> Adaptability:
    """Build an architecture without weights where they do not matter, and look at it."""
    try:
        if scheme == "block-shuffle":
            network = Blueprint("timm", name, {"config": {}, "model_args": {}}).build()
            _unsettle(network)
        else:
            network = _build_empty(name)
        size = Preprocessing.from_timm(network).input_size
    except ModelError as error:
        return Adaptability(name, False, (), str(error))
    found = check_network(name, network, size, scheme)
    if found.adapts or scheme == "block-shuffle":
        return found
    # Numbers that are no weights may have led it astray; a refusal is worth a second look.
    network = Blueprint("timm", name, {"config": {}, "model_args": {}}).build()
    return check_network(name, network, size, scheme)


def _unsettle(network: nn.Module) -> None:
    """Give parameters that begin with one number everywhere others, as training would.

    A bias by relative position that is still zero hides that the network knows positions by it.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def _build_empty(name: str) -> nn.Module:
    """Return an architecture whose tensors have memory but no values: built in milliseconds."""
    import timm

    try:
        with torch.device("meta"):
            network: nn.Module = timm.create_model(name, pretrained=False)
        network = network.to_empty(device="cpu").eval()
    except Exception as error:  # not every architecture can be built so
        if isinstance(error, MemoryError):
            raise UnsupportedModelError(
                f"{name} does not fit into this machine's memory"
            ) from error
        return Blueprint("timm", name, {"config": {}, "model_args": {}}).build()
    with torch.no_grad():
        for buffer in network.buffers():
            buffer.zero_()  # indices must point somewhere
    return network
