from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from scotoma.core.errors import ModelError
from scotoma.models.weights import fit_weights, is_fitting, read_weights


class RunsCode:
    """Writes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    source, path = network(), tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(source.state_dict(), path)
    target = network()
    nn.init.zeros_(target[0].weight)
    fit_weights(target, read_weights(path), path, "net")
    assert all(map(torch.equal, source.state_dict().values(), target.state_dict().values()))


@pytest.mark.parametrize("nest", ["state_dict", "model", "state_dict_ema", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_unwraps_checkpoints(tmp_path: Path, nest: str, prefix: str) -> None:
    state = {prefix + name: value for name, value in network().state_dict().items()}
    settings = argparse.Namespace(model="resnet18")
    torch.save({nest: state, "epoch": 3, "args": settings}, tmp_path / "w.pth")
    assert is_fitting(network(), read_weights(tmp_path / "w.pth"))


def test_the_average_goes_before_the_last_step(tmp_path: Path) -> None:
    content = {"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}}
    torch.save(content, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth")["a"] == 1


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    half = {n: v.half() if v.is_floating_point() else v for n, v in network().state_dict().items()}
    save_file(half, tmp_path / "w.safetensors")
    target = network()
    fit_weights(target, read_weights(tmp_path / "w.safetensors"), tmp_path, "net")
    assert target[0].weight.dtype == torch.float32


def test_counters_of_old_checkpoints_may_be_missing() -> None:
    state = {n: v for n, v in network().state_dict().items() if "num_batches" not in n}
    assert is_fitting(network(), state)


@pytest.mark.parametrize("how", ["torch", "plain"])
def test_a_pickle_that_runs_code_is_not_opened(tmp_path: Path, how: str) -> None:
    trace, path = tmp_path / "ran", tmp_path / "w.pth"
    content = {"weight": torch.zeros(1), "extra": RunsCode(trace)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError, match="run code"):
        read_weights(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(RunsCode(trace)))
    assert trace.exists(), "the test's own pickle must be one that runs"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pth", None, "found none"),
        ("w.txt", b"x", "got 'w.txt'"),
        ("w.safetensors", b"not weights", "whole safetensors"),
        ("w.pth", b"", "whole file"),
        ("w.pth", b"PK\x03\x04 broken", "whole file"),
    ],
)
def test_refuses(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}])
def test_refuses_what_is_not_weights(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="expected"):
        read_weights(tmp_path / "w.pth")


def test_says_briefly_what_does_not_fit(tmp_path: Path) -> None:
    state = {f"layer{i}.weight": torch.zeros(1) for i in range(500)}
    state["0.bias"] = torch.zeros(7)
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        fit_weights(target, state, tmp_path / "w.pth", "net")
    message = str(caught.value)
    assert "7 of 9 missing (as '0.weight')" in message
    assert "500 unknown (as 'layer0.weight')" in message
    assert "1 of another shape (as '0.bias': expected (4,), got (7,))" in message
    assert len(message) < 400
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
