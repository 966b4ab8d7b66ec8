"""Stems are found by what a network does with the picture, not by what its parts are called."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from support.block_maps import randomize
from timm.layers import Conv2dSame, SpaceToDepth, StdConv2d
from torch import Tensor, nn

from scotoma.core.errors import UnsupportedModelError
from scotoma.models.stems import Stem, copy_sharing, find_stems

SIZE = (3, 32, 32)


def as_convolution(stem: Stem, images: Tensor) -> Tensor:
    """Run the stem as the convolution of the picture that it says it is."""
    top, bottom, left, right = stem.padding
    images = F.pad(images, (left, right, top, bottom))
    return F.conv2d(images, stem.weight, stem.bias, stem.stride, 0, stem.dilation, stem.groups)


class _Calls(nn.Module):
    """A network made of a function and the modules it uses."""

    def __init__(self, run, **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def _patchify(x: Tensor, side: int) -> Tensor:
    count, channels, height, width = x.shape
    cells = x.view(count, channels, height // side, side, width // side, side)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(count, -1, side * side * channels)


@pytest.mark.parametrize(
    ("network", "path", "expected"),
    [
        (nn.Conv2d(3, 4, 7, 2, 3), "", ((7, 7), (2, 2), (3, 3, 3, 3))),
        (nn.Conv2d(3, 4, 3, 2), "", ((3, 3), (2, 2), (0, 0, 0, 0))),
        (nn.Conv2d(3, 4, (5, 2), (1, 2), (2, 0)), "", ((5, 2), (1, 2), (2, 2, 0, 0))),
        (nn.Conv2d(3, 4, 4, padding="same"), "", ((4, 4), (1, 1), (1, 2, 1, 2))),
        (Conv2dSame(3, 4, 3, 2), "", ((3, 3), (2, 2), (0, 1, 0, 1))),
        (
            nn.Sequential(nn.ZeroPad2d((1, 2, 3, 4)), nn.Conv2d(3, 4, 3, padding=1)),
            "1",
            ((3, 3), (1, 1), (4, 5, 2, 3)),
        ),
        (
            nn.Sequential(
                nn.Identity(),
                nn.ModuleDict({"a": nn.Identity()})["a"],
                StdConv2d(3, 4, 3),
            ),
            "2",
            ((3, 3), (1, 1), (1, 1, 1, 1)),
        ),
        (
            _Calls(
                lambda self, x: self.conv(x.to(memory_format=torch.channels_last)[:, :, :].clone()),
                conv=nn.Conv2d(3, 6, 3, dilation=2, groups=3),
            ),
            "conv",
            ((3, 3), (1, 1), (0, 0, 0, 0)),
        ),
        (
            _Calls(
                lambda self, x: self.conv(self.s2d(x)).relu(),
                s2d=SpaceToDepth(4),
                conv=nn.Conv2d(48, 5, 3, padding=1),
            ),
            "conv",
            ((12, 12), (4, 4), (4, 4, 4, 4)),
        ),
        (
            _Calls(lambda self, x: self.conv(x[:, [2, 1, 0]]), conv=nn.Conv2d(3, 5, 3)),
            "conv",
            ((3, 3), (1, 1), (0, 0, 0, 0)),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_stem_is_the_convolution_that_it_says(
    network: nn.Module, path: str, expected: tuple[tuple[int, ...], ...]
) -> None:
    (stem,) = find_stems(network, SIZE)
    assert (stem.module, (stem.kernel, stem.stride, stem.padding)) == (path, expected)
    images = torch.randn(2, *SIZE)
    outputs: list[Tensor] = []
    handle = network.get_submodule(path).register_forward_hook(lambda *a: outputs.append(a[2]))
    with torch.no_grad():
        network(images)
    handle.remove()
    torch.testing.assert_close(as_convolution(stem, images), outputs[0], atol=1e-5, rtol=1e-5)
    assert stem.output_size(32, 32) == outputs[0].shape[2:]


def test_a_matrix_product_over_patches_is_a_patch_embedding() -> None:
    network = _Calls(lambda self, x: self.embed(_patchify(x, 8)), embed=nn.Linear(192, 7))
    (stem,) = find_stems(network, SIZE)
    assert (stem.operation, stem.kernel, stem.stride) == ("linear", (8, 8), (8, 8))
    images = torch.randn(2, *SIZE)
    with torch.no_grad():
        tokens = as_convolution(stem, images).flatten(2).mT
        torch.testing.assert_close(tokens, network(images), atol=1e-5, rtol=1e-5)


def test_the_weight_is_the_one_that_is_applied() -> None:
    plain, standardized = nn.Conv2d(3, 4, 3), StdConv2d(3, 4, 3)
    (found,) = find_stems(plain, SIZE)
    assert found.is_own_weight
    (found,) = find_stems(standardized, SIZE)
    assert not found.is_own_weight
    assert float(found.weight.mean((1, 2, 3)).abs().max()) < 1e-6
    assert not torch.allclose(found.weight, standardized.weight)


def test_every_branch_that_reads_the_picture_is_found() -> None:
    network = timm.create_model("repvgg_a0", num_classes=5)
    kernels = {stem.module: stem.kernel for stem in find_stems(network, (3, 64, 64))}
    assert kernels == {"stem.conv_kxk.conv": (3, 3), "stem.conv_1x1.conv": (1, 1)}


class _Kernel(nn.Module):
    """A matrix product over patches whose matrix has a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 48))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(_patchify(x, 4), self.kernel)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (_Kernel(), "expected a plain nn.Linear"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "only zeros"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), "only zeros"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), "copies parts"),
        (nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.Conv2d(3, 4, 3)), "pads the picture with 0.5"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), r"module '0' computes.*batch_norm"),
        (nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 3)), "'0' resizes.*upsample"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 3)), "max_pool"),
        (nn.ConvTranspose2d(3, 4, 3), "only plain 2-D"),
        (nn.Sequential(nn.Flatten(2), nn.Linear(1024, 4)), "rearranged"),
        (_Calls(lambda s, x: s.conv(x) + x.mean(), conv=nn.Conv2d(3, 4, 3)), "mean"),
        (_Calls(lambda s, x: s.conv(x) + s.conv(x), conv=nn.Conv2d(3, 4, 3)), "more than once"),
        (_Calls(lambda s, x: s.conv(x.sub_(1)), conv=nn.Conv2d(3, 4, 3)), "in place"),
        (_Calls(lambda s, x: s.conv(x[:, :1]), conv=nn.Conv2d(1, 4, 3)), "rearranged"),
        (_Calls(lambda s, x: s.conv(x[:, :, 4:]), conv=nn.Conv2d(3, 4, 3)), "only a part"),
        (_Calls(lambda s, x: s.conv(x.half().float()), conv=nn.Conv2d(3, 4, 3)), "float16"),
        (_Calls(lambda s, x: F.conv2d(x, torch.ones(4, 3, 3, 3)).relu()), "a module of its own"),
        (_Calls(lambda s, x: torch.zeros(1)), "no convolution"),
        (
            _Calls(
                lambda s, x: F.conv2d(x, s.conv(x).mean((2, 3)).view(4, 3, 1, 1)),
                conv=nn.Conv2d(3, 12, 3),
            ),
            "weights that depend on the picture",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(1000, 3)), "expected a network that runs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_names_its_reason(network: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        find_stems(network, SIZE)


def test_a_network_that_looks_at_values_is_still_watched() -> None:
    def run(self: nn.Module, x: Tensor) -> Tensor:
        features = self.conv(x)
        return features if float(features.sum()) > 0 else -features  # needs real numbers

    (stem,) = find_stems(_Calls(run, conv=nn.Conv2d(3, 4, 3)), SIZE)
    assert stem.module == "conv"


def test_watching_leaves_the_network_alone() -> None:
    network = randomize(timm.create_model("mobilenetv2_035", num_classes=5)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    find_stems(network, (3, 64, 64))
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_watching_costs_the_stem_only() -> None:
    """The pass through a wide network must allocate nothing like its features."""
    seen: list[bool] = []
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    network[1].register_forward_pre_hook(lambda _, args: seen.append(args[0].is_meta))
    find_stems(network, SIZE)
    assert seen == [True]


def test_a_copy_shares_parameters_and_replaces_at_every_place() -> None:
    shared = nn.Conv2d(3, 3, 1)
    network = nn.Sequential(shared, nn.BatchNorm2d(3), nn.Sequential(shared))
    copied = copy_sharing(network, [(shared, nn.Identity())])
    assert isinstance(copied[0], nn.Identity)
    assert copied[2][0] is copied[0]
    assert copied[1].weight is network[1].weight
    assert copied[1].running_mean is not network[1].running_mean
    assert network[0] is shared
