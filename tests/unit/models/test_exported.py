from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scotoma.core.errors import ModelError
from scotoma.models.program_check import check_program
from scotoma.models.spec import load_classifier

CONFIG = {"input_size": [3, 16, 16], "crop_pct": 1.0, "classes": ["a", "b", "c", "d", "e"]}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout())
        self.head = nn.Linear(4 * 14 * 14, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        # A view, which fails on channels-last features.
        return self.head(features.view(features.shape[0], -1))


def write(folder: Path, *, batch: int | None = None, training: bool = False) -> nn.Module:
    network = Network().train(training)
    dynamic = None if batch else ({0: torch.export.Dim("batch", min=1, max=64)},)
    example = (torch.zeros(batch or 2, 3, 16, 16),)
    program = torch.export.export(network, example, dynamic_shapes=dynamic)
    torch.export.save(program, folder / "net.pt2")
    (folder / "net.json").write_text(json.dumps(CONFIG))
    return network.eval()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write(folder)
    return folder / "net.pt2"


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_any_batch_with_gradients(tmp_path: Path, batch: int | None) -> None:
    reference = write(tmp_path, batch=batch)
    classifier = load_classifier(f"exported:{tmp_path}/net.pt2")
    assert (classifier.name, classifier.classes) == ("net", ("a", "b", "c", "d", "e"))
    assert isinstance(classifier.network, nn.Module)
    assert not classifier.network.eval().training
    assert not any(parameter.requires_grad for parameter in classifier.network.parameters())
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(classifier.logits(images), reference(images), atol=1e-5)
    gradients = []
    for network in (classifier.network, reference):
        leaf = images.clone().requires_grad_()
        gradients.append(torch.autograd.grad(network(leaf).logsumexp(1).sum(), leaf)[0])
    assert torch.allclose(*gradients, atol=1e-6)


def test_refuses_training_mode(tmp_path: Path) -> None:
    write(tmp_path, training=True)
    with pytest.raises(ModelError, match=r"call \.eval\(\)"):
        load_classifier(f"exported:{tmp_path}/net.pt2")


def test_refuses_an_input_size_that_the_program_does_not_take(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(plain.read_bytes())
    (tmp_path / "config.json").write_text('{"input_size": [3, 16, 20]}')
    with pytest.raises(ModelError, match=r"\(3, 16, 16\) in the JSON .* got \(3, 16, 20\)"):
        load_classifier(f"exported:{tmp_path}/net.pt2")


def test_refuses_without_a_json(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(plain.read_bytes())
    with pytest.raises(ModelError, match=r"net\.json or config\.json"):
        load_classifier(f"exported:{tmp_path}/net.pt2")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + bytes(18)])
def test_refuses_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pt2").write_bytes(content)
    (tmp_path / "net.json").write_text("{}")
    with pytest.raises(ModelError, match=r"torch\.export\.save"):
        load_classifier(f"exported:{tmp_path}/net.pt2")


class RunsCode:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.target,)


def pickled(trace: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"x": RunsCode(trace)}, buffer)
    return buffer.getvalue()


Edit = Callable[[str, bytes, Path], bytes]


def pickled_inputs(name: str, content: bytes, trace: Path) -> bytes:
    return pickled(trace) if name.endswith("sample_inputs/model.pt") else content


def pickled_weight(name: str, content: bytes, trace: Path) -> bytes:
    if name.endswith("weights_config.json"):
        return content.replace(b'"use_pickle": false', b'"use_pickle": true')
    return pickled(trace) if "/weights/weight_" in name else content


def pickled_object(name: str, content: bytes, trace: Path) -> bytes:
    if not name.endswith("constants_config.json"):
        return content
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False}
    return json.dumps({"config": {"x": {**entry, "tensor_meta": None}}}).encode()


def evaluated_size(name: str, content: bytes, trace: Path) -> bytes:
    evil = f"__import__('pathlib').Path('{trace}').touch()"
    program = name.endswith("models/model.json")
    return replace_values(content, "expr_str", evil) if program else content


def foreign_operator(name: str, content: bytes, trace: Path) -> bytes:
    program = name.endswith("models/model.json")
    return (
        content.replace(b"torch.ops.aten.relu.default", b"torch.os.system") if program else content
    )


def replace_values(content: bytes, key: str, value: str) -> bytes:
    def walk(item: Any) -> Any:
        if isinstance(item, dict):
            return {k: value if k == key else walk(v) for k, v in item.items()}
        return [walk(v) for v in item] if isinstance(item, list) else item

    return json.dumps(walk(json.loads(content))).encode()


def rewrite(source: Path, target: Path, edit: Edit, trace: Path) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, edit(name, old.read(name), trace))
        if edit is pickled_object:
            new.writestr("net/data/constants/opaque_obj_0", pickle.dumps(RunsCode(trace)))


@pytest.mark.parametrize(
    "edit",
    [pickled_inputs, pickled_weight, pickled_object, evaluated_size, foreign_operator],
)
def test_a_program_that_runs_code_when_loaded_is_refused(
    tmp_path: Path, plain: Path, edit: Edit
) -> None:
    trace, path = tmp_path / "ran", tmp_path / "net.pt2"
    rewrite(plain, path, edit, trace)
    (tmp_path / "net.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ModelError, match="could run code; it was not loaded"):
        load_classifier(f"exported:{path}")
    assert not trace.exists()


def test_members_of_one_name_are_refused(tmp_path: Path, plain: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(plain.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        name = archive.namelist()[0]
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, b"")
    with pytest.raises(ModelError, match="two members of one name"):
        check_program(path)


def test_rewriting_alone_is_not_what_is_refused(tmp_path: Path, plain: Path) -> None:
    path = tmp_path / "net.pt2"
    rewrite(plain, path, lambda name, content, trace: content, tmp_path)
    (tmp_path / "net.json").write_text(json.dumps(CONFIG))
    assert load_classifier(f"exported:{path}").name == "net"
