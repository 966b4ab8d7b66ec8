"""ONNX models through onnxruntime: scores without gradients, hence black boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import MissingExtraError, ModelError
from scotoma.models.answers import answers_of, as_logits
from scotoma.models.assembly import assemble, file_label
from scotoma.models.batching import in_batches
from scotoma.models.classifier import Classifier
from scotoma.models.config import require_config
from scotoma.models.onnx_export import PROPERTY
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.release_form import ReleaseForm

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OnnxNetwork", "load_onnx"]

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
_ERRORS_ONLY = 3


class OnnxNetwork:
    """An ONNX graph of one picture input, called like a network; always on the CPU.

    The first output counts. A batch size that the graph fixes is met by filling up; a size of
    pictures that it fixes is in ``input_size``, as (C, H, W).

    Args:
        path: The ``.onnx`` file.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ModelError: Not an ONNX model, or not one of a single picture input.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._session = _open(path)
        inputs = self._session.get_inputs()
        shapes = [tuple(item.shape) for item in inputs]
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
            raise ModelError(
                f"expected one float input (B, 3, H, W) in {path}, "
                f"got {shapes} of {[item.type for item in inputs]}"
            )
        self._input = inputs[0].name
        self._output = self._session.get_outputs()[0].name
        self._type = _TYPES[inputs[0].type]
        batch, *size = inputs[0].shape
        self.batch_size: int | None = batch if isinstance(batch, int) else None
        is_fixed = all(isinstance(side, int) for side in size)
        self.input_size: tuple[int, ...] | None = tuple(size) if is_fixed else None

    def __call__(self, images: Tensor) -> Tensor:
        """Return ``(B, K)`` scores of ``(B, 3, H, W)`` inputs, on the inputs' device.

        Raises:
            ModelError: onnxruntime refuses the inputs.
        """
        return in_batches(self._run, images, self.batch_size)

    def described(self) -> dict[str, Any] | None:
        """Return the JSON object in the file's own metadata, or None where there is none."""
        text = self._session.get_modelmeta().custom_metadata_map.get(PROPERTY)
        try:
            found = json.loads(text) if text else None
        except ValueError as error:
            raise ModelError(f"the metadata of {self.path} are damaged: {error}") from error
        return found if isinstance(found, dict) else None

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Return every output of the graph by name; the batch must be what the graph takes.

        Raises:
            ModelError: onnxruntime refuses the inputs.
        """
        names = [item.name for item in self._session.get_outputs()]
        return dict(zip(names, self._answer(names, images), strict=True))

    def _run(self, images: Tensor) -> Tensor:
        return self._answer([self._output], images)[0]

    def _answer(self, names: list[str], images: Tensor) -> list[Tensor]:
        import torch

        array = images.detach().cpu().numpy().astype(self._type, copy=False)
        try:
            answers = self._session.run(names, {self._input: array})
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ModelError(
                f"expected {self.path} to take inputs {tuple(images.shape)}, got: "
                f"{_first_line(error)}; check input_size in the JSON beside it"
            ) from error
        return [torch.as_tensor(answer).to(images.device) for answer in answers]


def load_onnx(spec: str, target: str, device: str) -> Classifier:
    """Return an ONNX model as a black box.

    Preprocessing comes from what ``scotoma adapt`` wrote into it, else from the JSON beside it.
    """
    path = Path(target).expanduser()
    if not path.is_file():
        raise ModelError(f"expected an ONNX model at {path}, found no such file")
    network = OnnxNetwork(path)
    # What the file says of itself goes before a config.json that happens to lie beside it.
    config = network.described() or require_config(path)
    reads = config.get("reads")
    return assemble(
        spec,
        file_label(path),
        _in_logits(network, config),
        Preprocessing.from_config(config),
        config,
        differentiable=False,
        device=device,
        reads=None if reads is None else ReleaseForm.from_config(reads),
        labels_only=answers_of(config) == "labels",
    )


def _in_logits(network: OnnxNetwork, config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Return the network; wrapped where its answers are something else than logits."""
    kind = answers_of(config)
    if kind == "logits":
        return network
    listed = config.get("classes")
    count = len(listed) if isinstance(listed, list | dict) else None
    return lambda images: as_logits(network(images), kind, classes=count)


def _open(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("running ONNX models", "onnxruntime", "onnx") from error
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ModelError(
            f"expected an ONNX model at {path}, got: {_first_line(error)}; fetch or export it again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
