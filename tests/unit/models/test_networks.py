"""Networks are found by name, with weights or without, detectors too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scotoma.core.errors import ModelError, UnknownNameError, UnsupportedModelError
from scotoma.models.networks import find_network
from scotoma.models.yolov5 import YOLOv5


def test_an_architecture_alone_needs_no_weights() -> None:
    for spec, side in (
        ("timm:test_resnet", 160),
        ("torchvision:squeezenet1_1", 224),
        ("yolov5:n", 640),
        ("embedded", 64),
    ):
        network, size = find_network(spec)
        assert size == (3, side, side)
        assert not network.training
    assert isinstance(find_network("yolov5:n")[0], YOLOv5)


def test_a_transformers_folder_with_weights_and_without(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        architectures=["ViTForImageClassification"],
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    drawn, size = find_network(f"transformers:{tmp_path}")
    assert size == (3, 32, 32)
    saved = transformers.ViTForImageClassification(config)
    saved.save_pretrained(tmp_path)
    read, _ = find_network(f"transformers:{tmp_path}")
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(read(images).logits, saved.eval()(images).logits)
    assert not torch.equal(drawn(images).logits, read(images).logits)


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("timm:resnet81", UnknownNameError, "did you mean 'resnet"),
        ("torchvision:resnet81", UnknownNameError, "did you mean 'resnet"),
        ("yolov5:missing.safetensors", ModelError, "expected a file of weights"),
        ("transformers:nowhere", ModelError, "config.json"),
        ("resnet18", UnknownNameError, "timm:resnet18"),
    ],
)
def test_what_is_not_there_is_said(spec: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        find_network(spec)


def test_a_model_that_answers_from_outside_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, save

    node = helper.make_node("GlobalAveragePool", ["images"], ["pooled"])
    flat = helper.make_node("Flatten", ["pooled"], ["logits"])
    graph = helper.make_graph(
        [node, flat],
        "means",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 3])],
    )
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "model.onnx",
    )
    (tmp_path / "model.json").write_text(json.dumps({"input_size": [3, 8, 8]}))
    with pytest.raises(UnsupportedModelError, match="exported from"):
        find_network(f"onnx:{tmp_path / 'model.onnx'}")
