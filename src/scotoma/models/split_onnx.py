"""A split network's two halves as ONNX: a camera needs onnxruntime, and neither torch nor Scotoma.

::

    camera.onnx   images (B, 3, H, W) float32, normalized ──► latents (B, c, h, w) uint8
    server.onnx   latents (B, c, h, w) uint8 ──► what the tail answers

Each file's metadata say how pictures are prepared and how latents are coded, as JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotoma.core.errors import CodingError, FileError, MissingExtraError, ModelError
from scotoma.models.onnx_export import PROPERTY, export_onnx
from scotoma.ops.latent_coding import LatentModel

if TYPE_CHECKING:
    from torch import Tensor

    from scotoma.models.split_model import SplitModel

__all__ = ["CAMERA", "SERVER", "OnnxHalf", "export_halves"]

CAMERA, SERVER = "camera.onnx", "server.onnx"
"""Names of the two files."""

_IMAGES, _LATENTS, _ANSWER = "images", "latents", "answer"


def export_halves(model: SplitModel, folder: Path, *, split_digest: str) -> tuple[Path, Path]:
    """Write both halves into ``folder`` and return their paths.

    Args:
        model: Whose tail answers with one tensor.
        folder: Made if it is missing.
        split_digest: The name under which streams know the split.

    Raises:
        FileError: The folder cannot be made.
        MissingExtraError: onnx or onnxscript is not installed.
        ModelError: torch cannot write one of the halves as ONNX.
    """
    from torch import nn

    class _Camera(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Tensor:
            return self.model.encode(images)

    class _Server(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, latents: Tensor) -> Any:
            return self.model.answer(latents)

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder}: {error}") from error
    description = _describe(model, split_digest)
    camera, server = folder / CAMERA, folder / SERVER
    size = model.description.preprocessing.input_size
    export_onnx(camera, _Camera(), size, description, names=(_IMAGES, _LATENTS))
    shape = model.latent_shape
    names = (_LATENTS, _ANSWER)
    export_onnx(server, _Server(), shape, description, names=names, reads_bytes=True)
    return camera, server


class OnnxHalf:
    """One half of a split network in onnxruntime; neither torch nor timm is imported.

    Args:
        path: ``camera.onnx`` or ``server.onnx``.

    Attributes:
        description: What the file says: ``split``, ``preprocessing``, ``classes``, ``latents``.
        coder: How its latents are predicted when they are coded; None for no special way.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ModelError: No ONNX file, or not a half of a split network.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("running ONNX models", "onnxruntime", "onnx") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ModelError(f"expected an ONNX model at {path}, got: {error}") from error
        text = self._session.get_modelmeta().custom_metadata_map.get(PROPERTY)
        try:
            self.description: dict[str, Any] = json.loads(text)
            self.latent_shape = tuple(int(side) for side in self.description["latents"])
            self.coder = _read_coder(self.description["coder"])
        except (TypeError, ValueError, KeyError, CodingError) as error:
            raise ModelError(
                f"expected half of a split network at {path}, got another model; write one with: "
                "scotoma export"
            ) from error
        self._input = self._session.get_inputs()[0].name

    def run(self, values: NDArray[np.generic]) -> NDArray[Any]:
        """Return latents of normalized pictures, or the answer to latents.

        Args:
            values: ``(B, 3, H, W)`` float32 for the camera, ``(B, c, h, w)`` uint8 for the
                server.

        Raises:
            ModelError: onnxruntime refuses them.
        """
        try:
            (answer,) = self._session.run(None, {self._input: values})
        except Exception as error:  # onnxruntime's errors have no base of their own
            reason = str(error).splitlines()[0][:200]
            raise ModelError(
                f"expected {self._input} of the size in the file's description, got "
                f"{values.shape} of {values.dtype}: {reason}"
            ) from error
        found: NDArray[Any] = answer
        return found


def _describe(model: SplitModel, split_digest: str) -> dict[str, Any]:
    said = model.description
    return {
        "split": split_digest,
        "name": said.name,
        "at": said.at,
        "preprocessing": said.preprocessing.to_config(),
        "classes": None if said.classes is None else list(said.classes),
        "latents": list(model.latent_shape),
        "coder": None if model.coder is None else _write_coder(model.coder),
    }


def _write_coder(coder: LatentModel) -> dict[str, Any]:
    return {
        name: {
            "shape": list(array.shape),
            "data": base64.b64encode(array.astype("<i2").tobytes()).decode("ascii"),
        }
        for name, array in coder.to_arrays().items()
    }


def _read_coder(found: Mapping[str, Any] | None) -> LatentModel | None:
    if found is None:
        return None
    return LatentModel.from_arrays(
        {
            name: np.frombuffer(base64.b64decode(part["data"]), "<i2").reshape(part["shape"])
            for name, part in found.items()
        }
    )
