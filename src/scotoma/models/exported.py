"""Programs that ``torch.export`` wrote."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from scotoma.core.errors import ModelError, SettingsError
from scotoma.models.assembly import assemble, file_label, freeze
from scotoma.models.batching import in_batches
from scotoma.models.classifier import Classifier
from scotoma.models.config import require_config
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.program_check import check_program

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

__all__ = ["ExportedNetwork", "load_exported"]

# Operators that behave otherwise at training, and which argument says so.
_MODE_ARGUMENT = {"aten.batch_norm.default": 5, "aten.dropout.default": 2}


class ExportedNetwork(nn.Module):
    """An exported program as a network that takes any batch.

    Args:
        program: Takes one ``(B, 3, H, W)`` tensor; exported in evaluation mode.
        path: Where it came from, for messages.

    Raises:
        ModelError: It takes something else, or was exported in training mode.
    """

    def __init__(self, program: ExportedProgram, path: Path) -> None:
        super().__init__()
        shape = _input_shape(program, path)
        _check_evaluation(program, path)
        self.input_size = shape[1:]
        self.batch_size: int | None = shape[0] if isinstance(shape[0], int) else None
        # Guards are text that torch would execute; shapes are checked by the caller anyway.
        takes_guards = "check_guards" in inspect.signature(program.module).parameters
        self.program = program.module(**({"check_guards": False} if takes_guards else {}))
        for module in self.modules():
            module.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, K)`` logits of ``(B, 3, H, W)`` inputs."""
        return in_batches(self.program, images, self.batch_size)

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the mode of a program was decided when it was exported."""
        del mode
        return self


def load_exported(spec: str, target: str, device: str) -> Classifier:
    """Return a ``.pt2`` program, with preprocessing from the JSON beside it.

    Raises:
        ModelError: Missing, damaged, unsafe, or not a classifier as the JSON describes.
    """
    path = Path(target).expanduser()
    check_program(path)
    config = require_config(path)
    preprocessing = Preprocessing.from_config(config)
    network = ExportedNetwork(_load(path, device), path)
    fixed = tuple(
        (found, wanted)
        for found, wanted in zip(network.input_size, preprocessing.input_size, strict=True)
        if isinstance(found, int) and found != wanted
    )
    if fixed:
        raise ModelError(
            f"expected input_size {network.input_size} in the JSON beside {path}, as the program "
            f"was exported, got {preprocessing.input_size}"
        )
    return assemble(
        spec,
        file_label(path),
        _settled(freeze(network, device), preprocessing, device),
        preprocessing,
        config,
        differentiable=True,
        device=device,
    )


def _settled(network: nn.Module, preprocessing: Preprocessing, device: str) -> nn.Module:
    """Undo channels-last where the program has views that need the layout it was exported with."""
    import torch

    try:
        with torch.no_grad():
            network(torch.zeros(1, *preprocessing.input_size, device=device))
    except RuntimeError:
        network.to(memory_format=torch.contiguous_format)
    return network


def _load(path: Path, device: str) -> ExportedProgram:
    import torch

    try:
        program = torch.export.load(path)
    except Exception as error:  # torch.export fails in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(
            f"expected a program of torch.export.save at {path}, got: {reason}; "
            f"export it again with torch {torch.__version__.partition('+')[0]}"
        ) from error
    if torch.device("cpu") == _device(device):
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)


def _device(device: str) -> Any:
    import torch

    try:
        return torch.device(device)
    except RuntimeError as error:
        raise SettingsError(f"expected a device such as cpu or cuda:0, got {device!r}") from error


def _input_shape(program: ExportedProgram, path: Path) -> tuple[Any, ...]:
    """Shape of the only input; sizes that may vary are symbols."""
    names = set(program.graph_signature.user_inputs)
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    shapes = [tuple(getattr(node.meta.get("val"), "shape", ())) for node in nodes]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ModelError(f"expected one input (B, 3, H, W) in {path}, got inputs {shapes}")
    return shapes[0]


def _check_evaluation(program: ExportedProgram, path: Path) -> None:
    for node in program.graph.nodes:
        position = _MODE_ARGUMENT.get(str(node.target))
        if position is not None and len(node.args) > position and node.args[position] is True:
            raise ModelError(
                f"expected a program exported in evaluation mode in {path}, got {node.target} in "
                "training mode; call .eval() on the model before torch.export"
            )
