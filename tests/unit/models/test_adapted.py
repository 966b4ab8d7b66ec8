"""Adapted models in files: the same logits after a round trip, and no surprise from a bad file."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.encryption import KEY
from support.tiny_models import make_picture
from torch import Tensor, nn

from scotoma.core.errors import ImageError, ModelError, ReleaseError, UnknownNameError
from scotoma.core.protocols import Release
from scotoma.models.adapted import AdaptedModel, is_adapted, load_adapted, save_adapted
from scotoma.models.assembly import assemble, freeze
from scotoma.models.block_stem import adapt_stems
from scotoma.models.blueprint import Blueprint
from scotoma.models.classifier import Classifier
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.release_form import ReleaseForm
from scotoma.models.spec import load_classifier
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

SIDE = 32
READING = Preprocessing((3, SIDE, SIDE), interpolation="bilinear", crop_pct=1.0)
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "overlapping": ("resnet10t", {"num_classes": 7}),
    "patches": (
        "vit_tiny_patch16_224",
        {"img_size": SIDE, "patch_size": 8, "depth": 2, "num_classes": 5, "class_token": True},
    ),
    "two branches": ("repvgg_a0", {"num_classes": 4}),
}


def make(kind: str) -> Classifier:
    name, arguments = NETWORKS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = timm.create_model(name, pretrained=False, **arguments)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.running_var, 0.1, 0.3)  # or signals die out on the way
    return assemble(
        kind,
        kind,
        freeze(network, "cpu"),
        READING,
        {},
        differentiable=True,
        device="cpu",
        blueprint=Blueprint.of_timm(network, arguments),
    )


def images() -> Tensor:
    from PIL import Image

    return torch.stack(
        [READING.transform(Image.fromarray(make_picture(n, SIDE, SIDE))) for n in range(3)]
    )


def write(path: Path, kind: str, settings: EncryptSettings) -> tuple[Classifier, Release]:
    """Write an adapted model; return the plain one, and releases that the file's model reads."""
    plain = make(kind)
    protection = open_protection(settings, READING)
    release = protection.protect(images(), KEY)
    assert plain.blueprint is not None
    assert isinstance(plain.network, nn.Module)
    model = AdaptedModel(plain.blueprint, READING, plain.classes, ReleaseForm.of(release))
    save_adapted(path, protection.adapt(plain.network, KEY), model)
    return plain, release


CASES = [
    ("overlapping", EncryptSettings("orthogonal", block=8)),
    ("overlapping", EncryptSettings("orthogonal-per-block", block=8, period=(2, 1))),
    ("patches", EncryptSettings("orthogonal", block=8)),
    ("patches", EncryptSettings("permute", block=4)),
    ("patches", EncryptSettings("block-shuffle", block=8, inner="orthogonal")),
    ("two branches", EncryptSettings("orthogonal", block=4)),
]


@pytest.mark.parametrize(
    ("kind", "settings"), CASES, ids=lambda value: getattr(value, "scheme", value)
)
def test_a_file_says_all_there_is_to_read_releases(
    kind: str, settings: EncryptSettings, tmp_path: Path
) -> None:
    path = tmp_path / "adapted.safetensors"
    plain, release = write(path, kind, settings)
    assert is_adapted(path)
    adapted = load_classifier(f"scotoma:{path}")
    before, after = plain.logits(images()), adapted.logits(adapted.open_release(release))
    assert float((after - before).abs().max()) <= 1e-5 * float(before.abs().max())
    assert adapted.class_name(0) == plain.class_name(0)
    assert adapted.reads is not None
    assert adapted.reads.key_id == KEY.key_id
    # Plain pictures and it have nothing to say to each other.
    wrong = adapted.logits(images())
    assert float((wrong - before).abs().max()) > 1e-2 * float(before.abs().max())


def test_more_channels_than_a_picture_has_are_read_too(tmp_path: Path) -> None:
    """A cipher with an extra plane of noise, which no scheme has yet."""
    plain = make("patches")
    assert isinstance(plain.network, nn.Module)
    assert plain.blueprint is not None
    generator = torch.Generator().manual_seed(0)
    forward = torch.randn(4 * 64, 3 * 64, generator=generator, dtype=torch.float64)
    inverse = torch.linalg.pinv(forward)
    blocks = torch.nn.functional.pixel_unshuffle(images(), 8)
    data = torch.einsum("oi,bihw->bohw", forward.float(), blocks)
    release = Release(
        torch.nn.functional.pixel_shuffle(data, 8),
        {"scheme": "x", "key_id": None, "dataset": None, "settings": {}, **READING.to_config()},
    )
    network = adapt_stems(plain.network, READING.input_size, 8, inverse[None, None])
    path = tmp_path / "adapted.safetensors"
    model = AdaptedModel(plain.blueprint, READING, None, ReleaseForm.of(release))
    save_adapted(path, network, model)
    adapted = load_adapted("x", path, "cpu")
    assert adapted.input_shape == (4, SIDE, SIDE)
    after, before = adapted.logits(adapted.open_release(release)), plain.logits(images())
    assert float((after - before).abs().max()) <= 1e-4 * float(before.abs().max())


def test_nothing_of_the_key_is_in_the_file(tmp_path: Path) -> None:
    from scotoma.core.keys import export_secret

    path = tmp_path / "adapted.safetensors"
    settings = EncryptSettings("orthogonal", block=8)
    write(path, "overlapping", settings)
    data = path.read_bytes()
    assert export_secret(KEY) not in data
    assert export_secret(KEY).hex().encode() not in data
    size = READING.input_size
    maps = open_protection(settings, READING).derive_maps(KEY, size)
    for matrix in (maps.forward, maps.inverse):
        for form in (
            matrix,
            matrix.float(),
            matrix.mT.contiguous(),
            matrix.float().mT.contiguous(),
        ):
            assert form.contiguous().numpy().tobytes()[:64] not in data


def test_the_file_is_its_owners_alone_while_it_is_written_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    modes = []

    def save(tensors: dict[str, Tensor], part: Path, **more: Any) -> None:
        modes.append(stat.S_IMODE(part.stat().st_mode))
        save_file(tensors, part, **more)

    monkeypatch.setattr(safetensors.torch, "save_file", save)
    path = tmp_path / "adapted.safetensors"
    write(path, "patches", EncryptSettings("permute", block=8))
    assert [*modes, stat.S_IMODE(path.stat().st_mode)] == [0o600, 0o600]


# -- models and releases that do not belong together ------------------------------------------


def _said(release: Release, **changes: Any) -> Release:
    return Release(release.data, {**release.metadata, **changes})


def test_every_mismatch_is_named(tmp_path: Path) -> None:
    path = tmp_path / "adapted.safetensors"
    _, release = write(path, "overlapping", EncryptSettings("orthogonal", block=8, dataset="a"))
    adapted = load_classifier(f"scotoma:{path}")
    adapted.open_release(release)
    for changes, fragments in (
        ({"scheme": "permute"}, ("scheme orthogonal", "permute")),
        ({"key_id": "0" * 16}, (KEY.key_id, "0" * 16)),
        ({"key_id": None}, (KEY.key_id, "key none")),
        ({"dataset": "b"}, ("dataset label a", "b")),
        ({"settings": {"block": 4}}, ("settings {'block': 8}", "{'block': 4}")),
        ({"mean": [0.5, 0.5, 0.5]}, ("mean [0.485", "[0.5")),
        ({"std": None}, ("std", "None")),
        ({"input_size": [3, 32, 40]}, ("input_size",)),
        ({"interpolation": "bicubic"}, ("bilinear", "bicubic")),
        ({"crop_pct": 0.875}, ("crop_pct 1.0", "0.875")),
    ):
        with pytest.raises(ReleaseError) as caught:
            adapted.open_release(_said(release, **changes))
        for fragment in fragments:
            assert fragment in str(caught.value)
    with pytest.raises(ReleaseError, match="shape"):
        adapted.open_release(Release(release.data[..., :24], release.metadata))
    with pytest.raises(ReleaseError, match="scheme"):
        adapted.open_release(Release(release.data, {}))
    from PIL import Image

    with pytest.raises(ModelError, match="got a picture"):
        adapted.read(Image.new("RGB", (40, 40)))
    with pytest.raises(ReleaseError, match="adapt it first"):
        make("overlapping").open_release(release)
    with pytest.raises(ImageError):
        adapted.logits(release.data[..., :24])


def test_a_model_trained_for_a_keyless_scheme_reads_its_releases() -> None:
    class Reader(nn.Module):
        reads = frozenset({"shuffle"})

        def __init__(self) -> None:
            super().__init__()
            self.patch_embed = nn.Module()
            self.patch_embed.patch_size = (8, 8)

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    reader = Classifier("r", "r", Reader(), READING, None, True)
    generator = torch.Generator().manual_seed(0)

    def release(settings: EncryptSettings) -> Release:
        return open_protection(settings, READING).protect(images(), generator=generator)

    opened = reader.open_release(release(EncryptSettings("shuffle", block=8)))
    assert torch.allclose(reader.logits(opened), reader.logits(images()), atol=1e-6)
    with pytest.raises(ReleaseError, match="--block 8"):
        reader.open_release(release(EncryptSettings("shuffle", block=16)))
    with pytest.raises(ReleaseError, match="reads shuffle; train"):
        reader.open_release(release(EncryptSettings("mix", block=8)))


# -- bad files --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapted") / "good.safetensors"
    write(path, "overlapping", EncryptSettings("orthogonal-per-block", block=8, period=(1, 2)))
    return path


def _damage(good: Path, path: Path, change: Any) -> Path:
    with safe_open(good, framework="pt") as file:
        header = json.loads(file.metadata()["scotoma"])
    weights = load_file(good)
    header = change(header, weights) or header
    save_file(weights, path, metadata={"scotoma": json.dumps(header)})
    return path


def _stem(header: dict[str, Any]) -> dict[str, Any]:
    (stem,) = header["stems"].values()
    found: dict[str, Any] = stem
    return found


BAD = {
    "later format": (lambda h, w: h.update(format=3), "update scotoma"),
    "no blueprint": (lambda h, w: h.pop("blueprint") and None, "damaged"),
    "family": (lambda h, w: h["blueprint"].update(family="os"), "family"),
    "architecture": (lambda h, w: h["blueprint"].update(architecture="resnet10x"), "resnet"),
    "code in arguments": (
        lambda h, w: h["blueprint"]["arguments"]["model_args"].update(checkpoint_path="/x"),
        "checkpoint_path",
    ),
    "endless network": (
        lambda h, w: h["blueprint"]["arguments"]["model_args"].update(layers=[10**7, 1, 1, 1]),
        "at most",
    ),
    "wide network": (
        lambda h, w: h["blueprint"]["arguments"]["model_args"].update(num_classes=10**6),
        "at most",
    ),
    "no form": (lambda h, w: h.pop("reads") and None, "damaged"),
    "form": (lambda h, w: h.update(reads={"scheme": 1}), "adapt the model again"),
    "shape": (lambda h, w: h["reads"].update(shape=[3, -1, 5]), "shape"),
    "huge shape": (lambda h, w: h["reads"].update(shape=[3, 2**31, 2**31]), "at most"),
    "scheme of numbers": (lambda h, w: h["reads"].update(scheme=5), "as text"),
    "settings of a list": (lambda h, w: h["reads"].update(settings=[1]), "by name"),
    "no share": (lambda h, w: _stem(h).update(share=[0, 0]), "adapt the model again"),
    "minus a share": (lambda h, w: _stem(h).update(share=[-2, -2]), "adapt the model again"),
    "huge share": (lambda h, w: _stem(h).update(share=[2**40, 2**40]), "adapt the model again"),
    "huge output": (lambda h, w: _stem(h).update(output=[2**40, 2**40]), "adapt the model again"),
    "huge margin": (lambda h, w: _stem(h).update(margin=[2**40] * 4), "adapt the model again"),
    "a cell of all": (lambda h, w: _stem(h).update(cell=-1), "adapt the model again"),
    "another size": (lambda h, w: h["reads"].update(shape=[3, 40, 32]), "adapt"),
    "no stems": (lambda h, w: h.update(stems={}), "tensors"),
    "stem elsewhere": (
        lambda h, w: (
            h.update(stems={"gone": _stem(h)}),
            w.update({n.replace("conv1.0", "gone"): w.pop(n) for n in list(w) if "conv1.0." in n}),
            None,
        )[-1],
        "gone",
    ),
    "huge block": (lambda h, w: _stem(h).update(block=2**20), "adapt the model again"),
    "huge stem": (lambda h, w: _stem(h).update(features=2**40), "adapt the model again"),
    "huge period": (lambda h, w: _stem(h).update(period=[2**20, 2**20]), "adapt the model again"),
    "stem of words": (lambda h, w: _stem(h).update(block="8"), "stem"),
    "unknown field": (lambda h, w: _stem(h).update(shell="rm"), "stem"),
    "lost tensor": (lambda h, w: w.pop("fc.bias") is None and None, "fc.bias"),
    "damaged numbers": (
        lambda h, w: w.update({"fc.bias": torch.full_like(w["fc.bias"], float("nan"))}),
        "finite",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_ends_in_an_error_that_names_it(kind: str, good: Path, tmp_path: Path) -> None:
    change, fragment = BAD[kind]
    path = _damage(good, tmp_path / "bad.safetensors", change)
    with pytest.raises((ModelError, UnknownNameError), match=fragment):
        load_classifier(f"scotoma:{path}")


def test_a_cut_file_is_damaged(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(ModelError):
        load_classifier(f"scotoma:{path}")


# -- blueprints -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_blueprint_builds_the_same_shapes(kind: str) -> None:
    plain = make(kind)
    assert plain.blueprint is not None
    assert isinstance(plain.network, nn.Module)
    config = json.loads(json.dumps(plain.blueprint.to_config()))
    built = Blueprint.from_config(config).build()
    expected = {name: value.shape for name, value in plain.network.state_dict().items()}
    assert {name: value.shape for name, value in built.state_dict().items()} == expected


def test_the_embedded_model_knows_its_blueprint() -> None:
    classifier = load_classifier("embedded")
    assert classifier.blueprint is not None
    assert isinstance(classifier.network, nn.Module)
    built = classifier.blueprint.build()
    assert built.state_dict().keys() == classifier.network.state_dict().keys()
