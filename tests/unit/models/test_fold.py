from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from scotoma.core.errors import ModelError
from scotoma.models import saved
from scotoma.models.fold import fold_batch_norm
from scotoma.models.spec import load_classifier

EXAMPLE = torch.zeros(1, 3, 32, 32)


def settled(network: nn.Module) -> nn.Module:
    """BatchNorms with statistics and weights that a fold could get wrong."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                nn.init.uniform_(module.weight, -1, 1, generator=generator)
                nn.init.normal_(module.bias, generator=generator)
    return network.eval().requires_grad_(False)


def count_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def check_same(network: nn.Module, folded: nn.Module, size: int = 32) -> None:
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    answers = []
    for made in (network, folded):
        leaf = images.clone().requires_grad_()
        logits = made(leaf)
        (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), leaf)
        answers.append((logits.detach(), gradient))
    (expected, expected_gradient), (got, gradient) = answers
    assert torch.allclose(got, expected, atol=1e-4 * float(expected.abs().max()))
    # Rounding tips single features over the kink of a ReLU6, which moves a few pixels'
    # gradients; float32 differs from float64 by as much without any folding.
    assert (gradient - expected_gradient).norm() <= 5e-3 * expected_gradient.norm()


@pytest.mark.parametrize(
    ("name", "padding"),
    [
        ("test_resnet", ""),
        ("test_efficientnet", ""),
        ("test_efficientnet", "same"),
        ("mobilenetv2_035", "same"),
    ],
)
def test_timm_networks_lose_every_batch_norm(name: str, padding: str) -> None:
    torch.manual_seed(0)
    arguments = {"pad_type": padding} if padding else {}
    network = settled(timm.create_model(name, num_classes=7, **arguments))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batch_norm(network, EXAMPLE)
    assert count_norms(network) > 10
    assert count_norms(folded) == 0
    assert not any(module.training for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    check_same(network, folded)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_with_and_without_bias_and_weights(bias: bool, affine: bool) -> None:
    torch.manual_seed(0)
    network = settled(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, groups=1, bias=bias),
            nn.BatchNorm2d(4, affine=affine),
            nn.Conv2d(4, 8, 3, groups=4, bias=bias),
            nn.BatchNorm2d(8, affine=affine),
            nn.Flatten(),
        ).to(memory_format=torch.channels_last)
    )
    folded = fold_batch_norm(network, EXAMPLE)
    assert count_norms(folded) == 0
    assert folded[2].weight.stride() == network[2].weight.stride()
    check_same(network, folded)


def test_convmixer_is_left_as_it_is() -> None:
    arguments = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 4, "num_classes": 3}
    network = settled(saved.build("convmixer", arguments))
    assert fold_batch_norm(network, EXAMPLE) is network


class TwoReaders(nn.Module):
    """The convolution is read by its BatchNorm and by an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        return (self.norm(features) + features).mean((2, 3))


class Shared(nn.Module):
    """One convolution, called twice, one BatchNorm each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = (
            nn.Conv2d(3, 3, 3),
            nn.BatchNorm2d(3),
            nn.BatchNorm2d(3),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(images)))).mean((2, 3))


class InPlace(nn.Module):
    """What BatchNorm reads is the convolution's tensor, but no longer its result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images).relu_()).mean((2, 3))


class Detached(nn.Module):
    """The second reader leaves no trace in autograd's graph; only the answers tell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        return (self.norm(features) + features.detach()).mean((2, 3))


class Standardized(nn.Conv2d):
    """Does not use its weights as they are."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.weight / self.weight.std(), self.bias)


@pytest.mark.parametrize(
    "make",
    [
        TwoReaders,
        Shared,
        InPlace,
        Detached,
        lambda: nn.Sequential(Standardized(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()),
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()
        ),
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten()),
    ],
)
def test_what_cannot_be_folded_is_left_as_it_is(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = settled(make())
    assert fold_batch_norm(network, EXAMPLE) is network


def test_hooks_do_not_stay() -> None:
    network = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()))
    folded = fold_batch_norm(network, EXAMPLE)
    for module in (*network.modules(), *folded.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_refuses_training_mode() -> None:
    with pytest.raises(ModelError, match=r"call \.eval\(\)"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), EXAMPLE)


@pytest.mark.shared
def test_trained_networks(shared: Path) -> None:
    models = shared / "models"
    network = load_classifier(f"timm:local-dir:{models}/mobilenetv2_100").network
    assert isinstance(network, nn.Module)
    folded = fold_batch_norm(network, torch.zeros(1, 3, 224, 224))
    assert (count_norms(network), count_norms(folded)) == (52, 0)
    check_same(network, folded, 224)
    for spec in (
        "torchvision:squeezenet1_1@{}/squeezenet1_1.safetensors",
        "exported:{}/mobilenetv1_050/model.pt2",
    ):
        classifier = load_classifier(spec.format(models))
        example = torch.zeros(1, *classifier.preprocessing.input_size)
        assert isinstance(classifier.network, nn.Module)
        assert fold_batch_norm(classifier.network, example) is classifier.network
