"""Write a network as ONNX, so that a server needs neither torch nor Scotoma to run it."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PROPERTY", "export_onnx", "is_exported"]

PROPERTY = "scotoma"
"""Name of the entry in the file's metadata that says how the model is fed, as JSON."""

INPUT, OUTPUT = "release", "logits"


def export_onnx(
    path: Path,
    network: nn.Module,
    shape: tuple[int, int, int],
    description: Mapping[str, Any],
    *,
    names: tuple[str, str] = (INPUT, OUTPUT),
    reads_bytes: bool = False,
) -> None:
    """Write ``network`` to ``path``; the batch size stays free.

    Args:
        path: The file, ending in ``.onnx``.
        network: ``(B, C, H, W)`` to one tensor of ``B`` rows; not changed.
        shape: ``(C, H, W)``.
        description: Plain data for the file's metadata: preprocessing, classes, what it reads.
        names: Of input and output.
        reads_bytes: The input is uint8, not float32.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ModelError: torch cannot write this network as ONNX.
    """
    import torch

    onnx = _require_onnx()
    plain = copy.deepcopy(network).cpu().eval()
    with _quiet():
        try:
            # Two pictures: of one, the exporter concludes that the batch is always one.
            program = torch.onnx.export(
                plain,
                (torch.zeros(2, *shape, dtype=torch.uint8 if reads_bytes else torch.float32),),
                input_names=names[:1],
                output_names=names[1:],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # the exporter's errors have no base of their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ModelError(
                f"expected torch to write the network as ONNX, got: {reason}; leave --onnx out and "
                "serve the safetensors file"
            ) from error
    if program is None:
        raise ModelError("expected torch to return an ONNX program, got none; update torch")
    model = program.model_proto
    _forget_origin(model)
    onnx.helper.set_model_props(model, {PROPERTY: json.dumps(dict(description), sort_keys=True)})
    try:
        onnx.save(model, str(path))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"expected an ONNX model of at most 2 GiB to write to {path}, got: {error}; leave "
            "--onnx out and serve the safetensors file"
        ) from error


def _forget_origin(model: Any) -> None:
    """Remove what the exporter notes for its developers: stack traces, with this machine's paths.

    A file for somebody else's server should not name its owner's folders.
    """
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
            _clear(part)
        for value in graph.value_info:
            _clear(value)
        for node in graph.node:
            for attribute in node.attribute:
                graphs += [attribute.g] * attribute.HasField("g") + list(attribute.graphs)
    for function in model.functions:
        for part in (function, *function.node, *function.value_info):
            _clear(part)


def _clear(part: Any) -> None:
    for field in ("metadata_props", "doc_string"):
        if field in part.DESCRIPTOR.fields_by_name:  # older versions of the format have fewer
            part.ClearField(field)


def is_exported(path: Path) -> bool:
    """Return whether an ONNX file was written by :func:`export_onnx`."""
    onnx = _require_onnx()
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # protobuf's errors have no base of their own; whatever it is, not ours
        return False
    return any(entry.key == PROPERTY for entry in model.metadata_props)


def _require_onnx() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise MissingExtraError("writing ONNX", error.name or "onnx", "onnx") from error
    return onnx


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and advice to its own developers out of a command's output."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
