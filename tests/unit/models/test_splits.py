"""A cut network answers as the whole one does, to the last bit, and says where it can be cut."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from scotoma.core.errors import UnknownNameError, UnsupportedModelError
from scotoma.models.spec import load_classifier
from scotoma.models.splits import Split, Splitter, list_splits, split

SIZE = (3, 32, 32)


class _Residual(nn.Module):
    """Two convolutions, the second in place, around which the picture's features go."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(4, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        return self.last(self.act(self.inner(features)) + features).mean((2, 3))


class _WritesAView(nn.Module):
    """Writes through a view of a value that it uses afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        canvas = torch.zeros(images.shape[0], 4, 32, 32)
        canvas[:, :, 1:31, 1:31] = self.first(images)
        return self.second(canvas).flatten(1)


class _FixedBatch(nn.Module):
    """Asks for the number of pictures in a way that ends up as a constant in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        pooled = self.first(images).mean((2, 3)) + torch.zeros(len(images), 4)
        return self.second(pooled), {"pooled": pooled}


class _MakesTensors(nn.Module):
    """Makes tensors as it goes, where the picture is, and holds one that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 2, 3)
        self.register_buffer("held", torch.rand(4, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        made = torch.arange(4, device=images.device) + torch.tensor([1, 2, 4, 8]).to(images.device)
        return self.second(features * made.view(4, 1, 1) * self.held)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what torch.export traces of itself out of pytest's log, which would take minutes."""
    monkeypatch.setattr(logging.getLogger("torch"), "disabled", True)
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0))


def _random(network: nn.Module) -> nn.Module:
    """Give each parameter and statistic its own values, so that no part answers as another."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator) * 0.1
            value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return network.eval().requires_grad_(False)


def _assert_exact(network: nn.Module, parts: Split, images: Tensor) -> None:
    sent = parts.head(images)
    kept = sent.clone()
    assert tuple(sent.shape[1:]) == parts.point.shape
    assert torch.equal(parts.tail(sent), network(images))
    assert torch.equal(sent, kept), "the tail wrote to what it was given"
    assert torch.equal(parts.tail(sent.contiguous()), network(images)), "layout is lost on a wire"


@pytest.mark.parametrize(
    "architecture", ["resnet18", "test_vit", "test_convnext", "test_efficientnet"]
)
def test_every_point_answers_as_the_network(architecture: str) -> None:
    network = _random(timm.create_model(architecture))
    size = (3, 64, 64) if architecture == "resnet18" else network.pretrained_cfg["input_size"]
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    splitter = Splitter(network, size)
    clean = [point.name for point in splitter.points if not point.crossing]
    assert len(clean) >= 5
    for name in clean:
        _assert_exact(network, splitter.cut(name), images)


@pytest.mark.parametrize("spec", ["embedded", "embedded:vit", "embedded:pevit"])
def test_what_ships_is_cut_exactly(spec: str) -> None:
    classifier = load_classifier(spec)
    images = torch.randn(3, *classifier.input_shape, generator=torch.Generator().manual_seed(0))
    splitter = Splitter(classifier.network, classifier.input_shape)
    _assert_exact(classifier.network, splitter.cut("blocks.1"), images)
    _assert_exact(classifier.network, splitter.cut("blocks.4"), images)


@pytest.mark.parametrize("batch", [Dim.AUTO, Dim.STATIC])
def test_an_exported_program_is_cut_by_its_modules_names(tmp_path: Path, batch: object) -> None:
    network = _random(timm.create_model("test_resnet"))
    example = torch.zeros(2, *SIZE)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "model.pt2")
    config = {"input_size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "model.json").write_text(json.dumps(config))
    classifier = load_classifier(f"exported:{tmp_path / 'model.pt2'}")
    names = [point.name for point in list_splits(classifier.network, SIZE)]
    assert names == [point.name for point in list_splits(network, SIZE)]
    images = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0))
    _assert_exact(classifier.network, split(classifier.network, "layer2", SIZE), images)


def test_the_tail_reads_only_what_was_sent(images: Tensor) -> None:
    network = _random(timm.create_model("test_resnet"))
    parts = split(network, "layer2", SIZE)
    assert not torch.equal(parts.tail(parts.head(images) * 2), network(images))
    assert not torch.equal(parts.tail(parts.head(images.flip(0))), network(images))
    heads, tails = (dict(part.named_parameters()) for part in (parts.head, parts.tail))
    assert not any("layer3" in name or "fc" in name for name in heads)
    assert not any("layer1" in name or "conv1" in name.split(".")[1] for name in tails)
    assert {id(p) for p in [*heads.values(), *tails.values()]} == {
        id(p) for p in network.parameters()
    }


def test_gradients_flow_through_the_tail_as_through_the_network(images: Tensor) -> None:
    network = _random(_Residual())
    head, tail = (lambda s: (s.head, s.tail))(split(network, "first", SIZE))
    sent = head(images).requires_grad_()
    tail(sent).sum().backward()
    features = network.first(images).requires_grad_()
    network.last(F.relu(network.inner(features)) + features).mean((2, 3)).sum().backward()
    assert torch.equal(sent.grad, features.grad)


def test_what_crosses_is_named_refused_and_carried(images: Tensor) -> None:
    network = _random(_Residual())
    points = {point.name: point for point in list_splits(network, SIZE, clean=False)}
    assert {name: point.crossing for name, point in points.items()} == {
        "first": (),
        "inner": ("first",),
        "act": ("first",),
        "last": (),
    }
    with pytest.raises(UnsupportedModelError, match=r"'first' would have to.*'first', 'last'"):
        split(network, "inner", SIZE)
    parts = split(network, "inner", SIZE, carry=True)
    sent = parts.head(images)
    assert isinstance(sent, tuple)
    assert torch.equal(parts.tail(sent), network(images))


def test_a_typo_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'first'"):
        split(_Residual().eval(), "frist", SIZE)


def test_values_written_through_views_are_followed(images: Tensor) -> None:
    network = _random(_WritesAView())
    assert [point.name for point in list_splits(network, SIZE)] == ["first", "second"]
    _assert_exact(network, split(network, "first", SIZE), images)


def test_a_network_of_one_batch_size_and_nested_answers(images: Tensor) -> None:
    network = _random(_FixedBatch())
    parts = split(network, "first", SIZE)
    logits, others = parts.tail(parts.head(images))
    for place, image in enumerate(images):
        whole, expected = network(image[None])
        assert torch.equal(logits[place : place + 1], whole)
        assert torch.equal(others["pooled"][place : place + 1], expected["pooled"])


def test_points_say_what_is_sent_and_how_much_is_computed() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.Flatten(),
        nn.Linear(8 * 32 * 32, 10),
    )
    points = {point.name: point for point in list_splits(network.eval(), SIZE)}
    first, second, last = (n * 32 * 32 for n in (8 * 27, 8 * 8, 8 * 10))
    total = first + second + last
    assert points["0"].shape == (8, 32, 32)
    assert (points["0"].values, points["0"].bytes) == (8192, 32768)
    assert points["1"].share == pytest.approx(first / total)
    assert points["3"].share == pytest.approx((first + second) / total)
    assert "4" not in points


def test_the_network_is_left_as_it_was(images: Tensor) -> None:
    network = _random(timm.create_model("test_resnet"))
    before = copy.deepcopy(network.state_dict())
    answers = network(images)
    split(network, "layer1", SIZE).tail(split(network, "layer1", SIZE).head(images))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(network(images), answers)


def test_halves_move_with_all_that_they_make_and_hold(images: Tensor) -> None:
    network = _random(_MakesTensors())
    parts = split(network, "first", SIZE)
    _assert_exact(network, parts, images)
    answer = parts.tail.to("meta")(parts.head.to("meta")(images.to("meta")))
    assert answer.device.type == "meta"


def test_halves_can_be_copied_and_cast(images: Tensor) -> None:
    network = _random(timm.create_model("test_vit"))
    size = network.pretrained_cfg["input_size"]
    pictures = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    parts = copy.deepcopy(split(network, "blocks.1", size))
    exact = parts.tail.double()(parts.head.double()(pictures.double()))
    assert torch.allclose(exact.float(), network(pictures), atol=1e-4)
