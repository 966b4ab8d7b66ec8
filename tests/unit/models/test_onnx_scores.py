from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scotoma.core.errors import MissingExtraError, ModelError
from scotoma.models.spec import load_classifier

onnx = pytest.importorskip("onnx", reason="needs the onnx extra")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")

CONFIG = {"input_size": [3, 8, 10], "crop_pct": 1.0, "labels": ["red", "green"]}
WEIGHT = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)


def write(
    folder: Path, *, batch: int | str = "batch", half: bool = False, config: Any = CONFIG
) -> None:
    """Means of the channels, then a linear layer."""
    kind = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    weight = WEIGHT.astype(np.float16) if half else WEIGHT
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
            onnx.helper.make_node("Flatten", ["pooled"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        ],
        "net",
        [onnx.helper.make_tensor_value_info("images", kind, [batch, 3, 8, 10])],
        [onnx.helper.make_tensor_value_info("logits", kind, [batch, 2])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "net.onnx")
    (folder / "net.json").write_text(json.dumps(config))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_scores(tmp_path: Path, batch: int | str, half: bool) -> None:
    write(tmp_path, batch=batch, half=half)
    classifier = load_classifier(f"onnx:{tmp_path}/net.onnx")
    assert (classifier.name, classifier.classes) == ("net", ("red", "green"))
    assert not classifier.differentiable
    images = torch.rand(6, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    expected = images.mean((2, 3)) @ torch.from_numpy(WEIGHT)
    logits = classifier.logits(images)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=5e-3 if half else 1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**CONFIG, "input_size": [3, 10, 8]}, "check input_size"),
        ({**CONFIG, "labels": ["red"]}, "expected 2 class names"),
        ([], "JSON object"),
    ],
)
def test_refuses_a_json_that_does_not_fit(tmp_path: Path, config: Any, message: str) -> None:
    write(tmp_path, config=config)
    with pytest.raises(ModelError, match=message):
        load_classifier(f"onnx:{tmp_path}/net.onnx")


def test_refuses_other_files(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="expected an ONNX model at"):
        load_classifier(f"onnx:{tmp_path}/net.onnx")


def test_says_which_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"scotoma\[onnx\]"):
        load_classifier(f"onnx:{tmp_path}/net.onnx")


@pytest.mark.shared
def test_a_published_network_answers_and_a_detector_is_refused(
    shared: Path, tmp_path: Path
) -> None:
    for name, size in (("face_embedder", [3, 112, 96]), ("face_detector_rfb320", [3, 240, 320])):
        (tmp_path / f"{name}.onnx").write_bytes((shared / "models" / f"{name}.onnx").read_bytes())
        (tmp_path / f"{name}.json").write_text(json.dumps({"input_size": size}))
    embedder = load_classifier(f"onnx:{tmp_path}/face_embedder.onnx")
    assert embedder.logits(torch.zeros(3, 3, 112, 96)).shape == (3, 128)
    with pytest.raises(ModelError, match=r"got \(1, 4420, 2\)"):
        load_classifier(f"onnx:{tmp_path}/face_detector_rfb320.onnx")
