from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from scotoma.core.errors import ModelError, UnknownNameError
from scotoma.models import saved
from scotoma.models.preprocessing import Preprocessing

ARGUMENTS = {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4, "num_classes": 3}
MODEL = saved.SavedModel(
    "convmixer", ARGUMENTS, Preprocessing((3, 16, 16), crop_pct=1.0), ("a", "b", "c")
)


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return saved.build("convmixer", ARGUMENTS).state_dict()


def write_header(path: Path, **changes: Any) -> None:
    header = {
        "format": 1,
        "architecture": "convmixer",
        "arguments": ARGUMENTS,
        "preprocessing": MODEL.preprocessing.to_config(),
        "classes": ["a", "b", "c"],
    }
    header = {k: v for k, v in {**header, **changes}.items() if v is not ...}
    save_file(weights(), path, metadata={"scotoma": json.dumps(header)})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    saved.save(path, weights(), MODEL)
    network, model = saved.load(path)
    assert model == MODEL
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, weights()[name]) for name, value in network.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_same_model_same_bytes(tmp_path: Path) -> None:
    saved.save(tmp_path / "a", weights(), MODEL)
    saved.save(tmp_path / "b", dict(reversed(weights().items())), MODEL)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    half = {n: v.half() if v.is_floating_point() else v for n, v in weights().items()}
    saved.save(tmp_path / "m.safetensors", half, MODEL)
    network, _ = saved.load(tmp_path / "m.safetensors")
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "expected model format 1 .* got 2; update scotoma"),
        ({"format": ...}, "damaged"),
        ({"classes": 3}, "damaged"),
        ({"preprocessing": [1]}, "damaged|expected preprocessing"),
        ({"preprocessing": {"crop_pct": -1}}, "crop_pct"),
        ({"arguments": {"dim": 8}}, "arguments do not fit"),
        ({"arguments": {**ARGUMENTS, "dim": -8}}, "arguments do not fit"),
        ({"arguments": {**ARGUMENTS, "depth": 2}}, "missing"),
        ({"arguments": 5}, "arguments do not fit"),
    ],
)
def test_refuses_headers(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_header(tmp_path / "m.safetensors", **changes)
    with pytest.raises(ModelError, match=message):
        saved.load(tmp_path / "m.safetensors")


def test_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(ModelError, match="written by scotoma"):
        saved.load(path)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="written by scotoma"):
        saved.load(path)
    save_file(weights(), path)
    with pytest.raises(ModelError, match="timm:mobilenetv2_100@FILE"):
        saved.load(path)
    save_file(weights(), path, metadata={"scotoma": "{"})
    with pytest.raises(ModelError, match="damaged"):
        saved.load(path)
    write_header(path, architecture="convmixxer")
    with pytest.raises(UnknownNameError, match="did you mean 'convmixer'"):
        saved.load(path)
