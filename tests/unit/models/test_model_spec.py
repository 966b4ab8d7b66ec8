from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from scotoma.core.errors import ModelError, SettingsError, UnknownNameError
from scotoma.models import loaders, saved
from scotoma.models.classifier import Classifier
from scotoma.models.config import imagenet_names
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.spec import list_models, load_classifier

SETTINGS = {
    "input_size": [3, 64, 64],
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
    "interpolation": "bilinear",
    "crop_pct": 0.9,
}


def check(classifier: Classifier, reference: nn.Module, count: int) -> None:
    """The classifier is frozen and answers as the reference does."""
    network = classifier.network
    assert isinstance(network, nn.Module)
    assert classifier.differentiable
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, *classifier.preprocessing.input_size, generator=generator)
    with torch.no_grad():
        expected = reference.eval()(inputs)
    logits = classifier.logits(inputs)
    assert logits.shape == (2, count)
    assert torch.allclose(logits, expected, atol=1e-4 * float(expected.abs().max()))
    assert classifier.classes is None or len(classifier.classes) == count


def tiny(name: str = "test_resnet", **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model(name, **arguments)
    return made


def test_timm_file_of_the_published_architecture(tmp_path: Path) -> None:
    reference = tiny()
    save_file(reference.state_dict(), tmp_path / "test_resnet.safetensors")
    spec = f"timm:test_resnet@{tmp_path}/test_resnet.safetensors"
    classifier = load_classifier(spec)
    assert (classifier.spec, classifier.name) == (spec, "test_resnet")
    assert classifier.preprocessing == Preprocessing.from_timm(reference)
    assert classifier.classes == imagenet_names()
    check(classifier, reference, 1000)


def test_timm_file_of_other_classes(tmp_path: Path) -> None:
    reference = tiny(num_classes=7)
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "pets.pth")
    classifier = load_classifier(f"timm:test_resnet@{tmp_path}/pets.pth")
    assert (classifier.name, classifier.classes) == ("test_resnet@pets", None)
    check(classifier, reference, 7)


def test_timm_file_with_a_json_beside_it(tmp_path: Path) -> None:
    reference = tiny(num_classes=2)
    torch.save(reference.state_dict(), tmp_path / "pets.pth")
    (tmp_path / "pets.json").write_text(json.dumps({**SETTINGS, "classes": ["cat", "dog"]}))
    classifier = load_classifier(f"timm:test_resnet@{tmp_path}/pets.pth")
    assert classifier.preprocessing == Preprocessing.from_config(SETTINGS)
    assert classifier.classes == ("cat", "dog")
    check(classifier, reference, 2)


def test_timm_file_with_names_as_their_authors_published_them(tmp_path: Path) -> None:
    reference = tiny("test_vit")
    state = dict(reference.state_dict())
    # ViTs were first published with a linear patch embedding; timm's filter reshapes it.
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    torch.save(state, tmp_path / "old.pth")
    check(load_classifier(f"timm:test_vit@{tmp_path}/old.pth"), reference, 1000)


def write_folder(folder: Path, **changes: Any) -> nn.Module:
    reference = tiny(num_classes=2, act_layer="silu")
    config = {
        "architecture": "test_resnet",
        "num_classes": 2,
        "model_args": {"act_layer": "silu"},
        "label_names": ["n1", "n2"],
        "label_descriptions": {"n1": "cat, feline", "n2": "dog, hound"},
        "pretrained_cfg": {**SETTINGS, "num_classes": 2},
    }
    folder.mkdir()
    save_file(reference.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return reference


@pytest.mark.parametrize("form", ["timm:local-dir:{}", "timm:test_resnet@{}/model.safetensors"])
def test_timm_folder(tmp_path: Path, form: str) -> None:
    reference = write_folder(tmp_path / "pets")
    classifier = load_classifier(form.format(tmp_path / "pets"))
    assert classifier.name.endswith("pets")
    assert classifier.preprocessing == Preprocessing.from_config(SETTINGS)
    assert classifier.classes == ("cat", "dog")
    check(classifier, reference, 2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"architecture": "test_resnett"}, UnknownNameError, "did you mean 'test_resnet'"),
        ({"architecture": None}, ModelError, "'architecture'"),
        ({"model_args": {"no_such": 1}}, ModelError, "model_args"),
        ({"model_args": {}, "num_classes": 5}, ModelError, "another shape"),
        ({"pretrained_cfg": {**SETTINGS, "crop_pct": -1}}, ModelError, "crop_pct"),
        ({"label_names": ["cat"]}, ModelError, "expected 2 class names"),
    ],
)
def test_timm_folder_with_a_wrong_config(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    write_folder(tmp_path / "pets", **changes)
    with pytest.raises(error, match=message):
        load_classifier(f"timm:local-dir:{tmp_path}/pets")


def test_timm_folder_without_its_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_classifier(f"timm:local-dir:{tmp_path}/none")
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_classifier(f"timm:local-dir:{tmp_path}")
    write_folder(tmp_path / "pets")
    (tmp_path / "pets" / "model.safetensors").rename(tmp_path / "pets" / "other.safetensors")
    assert load_classifier(f"timm:local-dir:{tmp_path}/pets").classes == ("cat", "dog")
    (tmp_path / "pets" / "more.pth").touch()
    with pytest.raises(ModelError, match=r"found 2: more\.pth, other\.safetensors"):
        load_classifier(f"timm:local-dir:{tmp_path}/pets")


def test_weights_of_another_architecture_than_the_folder_says(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets")
    with pytest.raises(ModelError, match="describes test_resnet"):
        load_classifier(f"timm:test_vit@{tmp_path}/pets/model.safetensors")


def test_a_network_that_only_makes_features_is_no_classifier(tmp_path: Path) -> None:
    save_file(tiny(num_classes=0).state_dict(), tmp_path / "f.safetensors")
    (tmp_path / "f.json").write_text('{"num_classes": 0}')
    with pytest.raises(ModelError, match="only makes features"):
        load_classifier(f"timm:test_resnet@{tmp_path}/f.safetensors")


@pytest.mark.parametrize("spec", ["timm:test_resnet", "hf:timm/test_resnet.r160_in1k"])
def test_without_a_network_the_message_says_what_to_do(
    spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    constants = pytest.importorskip("huggingface_hub", reason="comes with timm").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"timm:test_resnet@FILE|timm:local-dir:FOLDER"):
        load_classifier(spec)


def test_torchvision_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.squeezenet1_1(num_classes=5)
    save_file(reference.state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text('{"num_classes": 5, "labels": ["a", "b", "c", "d", "e"]}')
    classifier = load_classifier(f"torchvision:squeezenet1_1@{tmp_path}/net.safetensors")
    assert classifier.name == "squeezenet1_1@net"
    assert classifier.preprocessing == loaders.TORCHVISION
    assert classifier.class_name(4) == "e"
    check(classifier, reference, 5)


def test_torchvisions_standard_preprocessing_is_torchvisions() -> None:
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    picture = Image.effect_noise((300, 260), 64).convert("RGB")
    assert torch.equal(loaders.TORCHVISION.transform(picture), weights.transforms()(picture))


def write_saved(path: Path) -> nn.Module:
    arguments = {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4, "num_classes": 3}
    torch.manual_seed(0)
    network = saved.build("convmixer", arguments)
    described = saved.SavedModel(
        "convmixer", arguments, Preprocessing((3, 16, 16), crop_pct=1.0), ("a", "b", "c")
    )
    saved.save(path, network.state_dict(), described)
    return network


def test_our_own_file(tmp_path: Path) -> None:
    reference = write_saved(tmp_path / "ours.safetensors")
    classifier = load_classifier(f"scotoma:{tmp_path}/ours.safetensors")
    assert (classifier.name, classifier.classes) == ("ours", ("a", "b", "c"))
    check(classifier, reference, 3)


def test_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "EMBEDDED", {"": tmp_path / "e.safetensors"})
    with pytest.raises(ModelError, match="came without it"):
        load_classifier("embedded")
    reference = write_saved(tmp_path / "e.safetensors")
    classifier = load_classifier("embedded")
    assert classifier.name == "embedded"
    check(classifier, reference, 3)


@pytest.mark.parametrize("name", ["pevit", "vit"])
def test_embedded_transformers(name: str) -> None:
    path = loaders.EMBEDDED[name]
    assert path.stat().st_size <= 4_000_000
    classifier = load_classifier(f"embedded:{name}")
    assert (classifier.name, classifier.input_shape) == (f"embedded:{name}", (3, 32, 32))
    assert len(classifier.classes) == 10
    assert getattr(classifier.network, "reads", None) == ({"shuffle"} if name == "pevit" else set())


@pytest.mark.parametrize("spec", ["embedded:", "embedded:vits"])
def test_embedded_models_that_there_are_not(spec: str) -> None:
    with pytest.raises(SettingsError, match="expected embedded, embedded:pevit, embedded:vit, got"):
        load_classifier(spec)


def test_convolutions_are_channels_last(tmp_path: Path) -> None:
    write_saved(tmp_path / "ours.safetensors")
    network = load_classifier(f"scotoma:{tmp_path}/ours.safetensors").network
    assert isinstance(network, nn.Module)
    kernels = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("embeded", UnknownNameError, "did you mean 'embedded'"),
        ("tim:resnet18", UnknownNameError, "did you mean 'timm:resnet18'"),
        ("resnet18", UnknownNameError, "did you mean 'timm:resnet18'"),
        ("nets/a.onnx", UnknownNameError, "did you mean 'onnx:nets/a.onnx'"),
        (
            "?",
            UnknownNameError,
            r"known: compressed:FILE, .*embedded, embedded:pevit, embedded:vit, exp",
        ),
        ("timm:resnet1", UnknownNameError, "did you mean 'resnet1"),
        ("timm:resnet18.bogus_in1k", UnknownNameError, r"did you mean 'resnet18\."),
        ("timm:@file.pth", SettingsError, "expected timm:NAME@FILE"),
        ("timm:", SettingsError, "expected timm:NAME or timm:NAME@FILE"),
        ("timm:resnet18@missing.pth", ModelError, "found none"),
        ("torchvision:resnet19@w.pth", UnknownNameError, "did you mean 'resnet18'"),
        ("torchvision:fasterrcnn_resnet50_fpn@w.pth", UnknownNameError, "torchvision model"),
        ("torchvision:resnet18", SettingsError, "torchvision:NAME@FILE"),
        ("scotoma:missing.safetensors", ModelError, "scotoma train classifier"),
        ("embedded:x", SettingsError, "scotoma:x"),
        ("hf:resnet18", SettingsError, "OWNER/NAME"),
        ("exported:missing.pt2", ModelError, "no such file"),
        ("onnx:missing.onnx", ModelError, "no such file"),
    ],
)
def test_refuses(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load_classifier(spec)
    assert len(str(caught.value)) < 500


def test_refuses_devices_that_are_not_there(tmp_path: Path) -> None:
    write_saved(tmp_path / "ours.safetensors")
    for device in ("gpu", "cuda:99"):
        with pytest.raises(SettingsError, match=f"got '{device}'"):
            load_classifier(f"scotoma:{tmp_path}/ours.safetensors", device=device)


def test_every_form_is_listed() -> None:
    forms = [form for form, _ in list_models()]
    assert forms == sorted(forms, key=lambda form: form.partition(":")[0])
    assert {form.partition(":")[0] for form in forms} == {
        "compressed",
        "embedded",
        "exported",
        "hf",
        "http",
        "https",
        "onnx",
        "python",
        "scotoma",
        "timm",
        "torchvision",
    }
    assert all(meaning for _, meaning in list_models())


def test_listing_does_not_import_torch() -> None:
    code = (
        "import sys; from scotoma.models.spec import list_models; list_models(); "
        "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# How many of the 20 pictures each network names rightly, counted outside this package with
# timm's create_transform and the loading recipes beside the networks.
SHARED = {
    "timm:local-dir:{}/mobilenetv2_100": 18,
    "torchvision:squeezenet1_1@{}/squeezenet1_1.safetensors": 14,
    "exported:{}/mobilenetv1_075/model.pt2": 14,
    "exported:{}/mobilenetv1_050/model.pt2": 12,
}


def reference_network(spec: str, models: Path) -> nn.Module:
    if spec.startswith("timm"):
        folder = models / "mobilenetv2_100"
        made: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    elif spec.startswith("torchvision"):
        made = torchvision.models.squeezenet1_1()
        made.load_state_dict(load_file(models / "squeezenet1_1.safetensors"))
    else:
        path = Path(spec.partition(":")[2].format(models))
        program: nn.Module = torch.export.load(path).module()
        return program
    return made.eval()


@pytest.mark.shared
@pytest.mark.parametrize("spec", SHARED)
def test_decisions_on_real_pictures(shared: Path, spec: str) -> None:
    models, pictures = shared / "models", shared / "data" / "imagenet"
    rows = (pictures / "samples.csv").read_text("utf-8").splitlines()[1::10]
    classifier = load_classifier(spec.format(models))
    inputs, labels = [], []
    for row in rows:
        file, label, _ = row.split(",", 2)
        with Image.open(pictures / "samples" / file) as picture:
            inputs.append(classifier.read(picture))
        labels.append(int(label))
    batch = torch.stack(inputs)
    with torch.no_grad():
        expected = reference_network(spec, models)(batch)
    logits = classifier.logits(batch)
    assert len(labels) == 20
    assert torch.equal(logits.argmax(1), expected.argmax(1))
    assert torch.allclose(logits, expected, atol=1e-4 * float(expected.abs().max()))
    right = int((logits.argmax(1) == torch.tensor(labels)).sum())
    assert abs(right - SHARED[spec]) <= 1  # kernels of another machine may tip a close call
