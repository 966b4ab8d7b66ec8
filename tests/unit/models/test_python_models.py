from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scotoma.core.errors import ModelError, SettingsError, UnknownNameError
from scotoma.models.spec import load_classifier

CONFIG = {"input_size": [3, 6, 8], "crop_pct": 1.0, "classes": ["red", "green", "blue"]}
CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images):
        return images.mean((2, 3)) * self.scale


def make():
    return Net()


def scores(images):
    return images.mean((2, 3)).numpy()


def shares(images):
    return images.mean((2, 3)).softmax(1).tolist()


def broken(images):
    raise KeyError("no such layer")


def odd():
    return 3


network = Net()
number = 7
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "own.json").write_text(json.dumps(CONFIG))
    (tmp_path / "own.py").write_text(CODE)
    return tmp_path / "own.py"


@pytest.mark.parametrize("name", ["Net", "make", "network"])
def test_a_module_has_gradients_however_it_is_named(code: Path, name: str) -> None:
    model = load_classifier(f"python:{code}:{name}")
    assert model.differentiable
    assert model.classes == ("red", "green", "blue")
    images = torch.rand(2, 3, 6, 8, requires_grad=True)
    model.network(images).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    assert torch.allclose(model.logits(images.detach()), images.detach().mean((2, 3)))


def test_a_module_takes_weights(code: Path) -> None:
    weights = code.with_name("trained.safetensors")
    save_file({"scale": torch.tensor([1.0, 5.0, 2.0])}, weights)
    model = load_classifier(f"python:{code}:make@{weights}")
    assert model.logits(torch.ones(1, 3, 6, 8)).tolist() == [[1.0, 5.0, 2.0]]


def test_a_function_is_a_black_box(code: Path) -> None:
    model = load_classifier(f"python:{code}:scores")
    assert not model.differentiable
    images = torch.rand(2, 3, 6, 8)
    assert torch.allclose(model.logits(images), images.mean((2, 3)))


def test_probabilities_are_named_in_the_json(code: Path) -> None:
    code.with_suffix(".json").write_text(json.dumps({**CONFIG, "answers": "probabilities"}))
    images = torch.rand(2, 3, 6, 8)
    found = load_classifier(f"python:{code}:shares").logits(images)
    assert torch.allclose(found.softmax(1), images.mean((2, 3)).softmax(1), atol=1e-6)


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("{code}", SettingsError, "FILE.py:NAME"),
        ("{code}:", SettingsError, "FILE.py:NAME"),
        ("missing.py:make", ModelError, "no such file"),
        ("{code}:mke", UnknownNameError, "did you mean 'make'"),
        ("{code}:number", ModelError, "got a int"),
        ("{code}:odd", ModelError, "make a network, got a int"),
        ("{code}:broken", ModelError, "KeyError"),
        ("{code}:scores@w.safetensors", SettingsError, "weights only with a torch"),
    ],
)
def test_bad_names(code: Path, target: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load_classifier("python:" + target.format(code=code))


def test_a_file_that_fails_says_how(code: Path) -> None:
    code.write_text("1 / 0")
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        load_classifier(f"python:{code}:make")


def test_no_description(code: Path) -> None:
    code.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match="input_size"):
        load_classifier(f"python:{code}:make")
