"""Adapted networks answer to encrypted blocks as the plain ones do to plain pictures."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.block_maps import encrypt_blocks, random_maps, randomize, relative_error
from timm.layers import SpaceToDepth
from torch import Tensor, nn

from scotoma.core.errors import ImageError, ModelError, UnsupportedModelError
from scotoma.models.block_stem import BlockStem, adapt_stems, valid_blocks
from scotoma.models.stem_layout import restore_stems, stem_layout
from scotoma.models.stems import find_stems

Size = tuple[int, int, int]


class _Same(nn.Module):
    """A convolution with zeros around the picture that differ from side to side."""

    def __init__(self, conv: nn.Conv2d, sides: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv, self.sides = conv, sides

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.sides))


def small_vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


def small_tresnet() -> nn.Module:
    return nn.Sequential(
        SpaceToDepth(4), nn.Conv2d(48, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip


def small_linear_vit() -> nn.Module:
    return timm.create_model(
        "naflexvit_base_patch16_gap", embed_dim=48, depth=2, num_heads=2, num_classes=5
    )


def build(name: str) -> nn.Module:
    local = {"vgg": small_vgg, "tresnet": small_tresnet, "linear": small_linear_vit}
    made = local[name]() if name in local else timm.create_model(name, num_classes=5)
    return randomize(made)


ARCHITECTURES = [
    ("resnet10t", (3, 64, 64), 16),
    ("resnet18", (3, 64, 96), 16),
    ("mobilenetv2_035", (3, 64, 64), 16),
    ("vgg", (3, 32, 32), 8),
    ("legacy_xception", (3, 75, 75), 8),  # valid, odd: filled up, then cropped
    ("tf_mobilenetv3_small_minimal_100", (3, 65, 64), 16),  # "same": more zeros after than before
    ("nf_regnet_b0", (3, 64, 64), 16),  # standardized weights
    ("mobileone_s0", (3, 64, 64), 8),  # several branches
    ("repvgg_a0", (3, 64, 64), 4),
    ("test_vit", (3, 160, 160), 16),
    ("test_vit", (3, 160, 160), 8),
    ("test_convnext", (3, 64, 64), 2),
    ("test_convnext", (3, 64, 64), 4),
    ("test_convnext", (3, 64, 64), 8),
    ("tresnet", (3, 64, 64), 8),
    ("linear", (3, 64, 64), 16),
    ("linear", (3, 64, 64), 8),
]


@pytest.mark.parametrize(("name", "size", "block"), ARCHITECTURES, ids=str)
def test_answers_to_ciphertext_are_the_plain_ones(name: str, size: Size, block: int) -> None:
    network = build(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    forward, inverse = random_maps(block)
    adapted = adapt_stems(network, size, block, inverse)
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(1))
    release = encrypt_blocks(images, forward, block)
    with torch.no_grad():
        plain = network(images)
        assert relative_error(adapted(release), plain) < 1e-5
        # It needs the ciphertext, under this key, and the logits depend on what it reads.
        wrong = encrypt_blocks(images, random_maps(block, seed=1)[0], block)
        padded = encrypt_blocks(images, torch.eye(3 * block**2).double()[None, None], block)
        assert relative_error(adapted(padded), plain) > 1e-2
        assert relative_error(adapted(wrong), plain) > 1e-2
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    stems = {stem.module for stem in find_stems(network, size)}
    for path, parameter in network.named_parameters():
        if path.rpartition(".")[0] not in stems:
            assert adapted.get_parameter(path) is parameter


@pytest.mark.parametrize("name", ["resnet10t", "test_convnext", "mobileone_s0"])
def test_in_double_precision_the_answers_are_the_same_to_rounding(name: str) -> None:
    network = build(name).double()
    forward, inverse = random_maps(16)
    adapted = adapt_stems(network, (3, 64, 64), 16, inverse)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        answers = adapted(encrypt_blocks(images, forward, 16))
        assert relative_error(answers, network(images)) < 1e-12


class _Turned(nn.Module):
    """A patch embedding that uses its weight the other way round: the same memory, read anew."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.transpose(2, 3), stride=4)


def _spectral() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.spectral_norm(nn.Conv2d(3, 8, 4, 4))


@pytest.mark.parametrize("stem", [_Turned(), _spectral()], ids=["turned", "spectral"])
def test_a_weight_that_is_not_used_as_it_is_kept_is_replaced_whole(stem: nn.Module) -> None:
    network = nn.Sequential(stem).eval()
    forward, inverse = random_maps(4)
    adapted = adapt_stems(network, (3, 16, 16), 4, inverse)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        answers = adapted(encrypt_blocks(images, forward, 4))
        assert relative_error(answers, network(images)) < 1e-5


class _Backup(nn.Module):
    def __init__(self, kept: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        if kept == "parameter":
            self.backup = self.conv.weight
        else:
            self.register_buffer("backup", self.conv.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize("kept", ["parameter", "buffer"])
def test_plain_weights_of_the_stem_stay_nowhere_in_the_network(kept: str) -> None:
    _, inverse = random_maps(4)
    with pytest.raises(UnsupportedModelError, match=r"a plain copy as 'backup'.*remove it"):
        adapt_stems(_Backup(kept), (3, 16, 16), 4, inverse)
    same = torch.eye(48).double()[None, None]  # as when blocks move and nothing else
    adapt_stems(_Backup(kept), (3, 16, 16), 4, same)


def test_an_adapted_patch_embedding_is_an_ordinary_network() -> None:
    network = build("test_vit")
    forward, inverse = random_maps(16)
    adapted = adapt_stems(network, (3, 160, 160), 16, inverse)
    assert type(adapted.patch_embed.proj) is nn.Conv2d
    ordinary = build("test_vit")
    ordinary.load_state_dict(adapted.state_dict())
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        answers = ordinary(encrypt_blocks(images, forward, 16))
        assert relative_error(answers, network(images)) < 1e-5


sides = st.integers(0, 4)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    kernel=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    outer=st.tuples(sides, sides, sides, sides),
    inner=st.tuples(sides, sides),
    groups=st.sampled_from([1, 3]),
    extra=st.integers(0, 1),
    period=st.sampled_from([(1, 1), (2, 1), (2, 3)]),
    has_bias=st.booleans(),
)
def test_any_convolution_can_be_read_from_blocks(
    data: st.DataObject,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    outer: tuple[int, int, int, int],
    inner: tuple[int, int],
    groups: int,
    extra: int,
    period: tuple[int, int],
    has_bias: bool,
) -> None:
    least = torch.lcm(torch.tensor(stride[0]), torch.tensor(stride[1])).item()
    block = least * data.draw(st.integers(1, 3 if least < 4 else 1), label="factor")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height = data.draw(st.integers(reach[0], reach[0] + 14), label="height")
    width = data.draw(st.integers(reach[1], reach[1] + 14), label="width")
    conv = nn.Conv2d(3, 6, kernel, stride, inner, dilation, groups, bias=has_bias).double()
    network = _Same(conv, outer)
    forward, inverse = random_maps(block, extra=extra, period=period)
    adapted = adapt_stems(network, (3, height, width), block, inverse)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        answers = adapted(encrypt_blocks(images, forward, block))
        torch.testing.assert_close(answers, network(images), atol=1e-10, rtol=1e-10)


def test_the_stem_never_sees_plain_pixels_of_several_maps() -> None:
    """Blocks under many maps go over to a common map that is not the identity."""
    network = build("resnet10t")
    forward, inverse = random_maps(8, period=(8, 8))
    adapted = adapt_stems(network, (3, 64, 64), 8, inverse)
    stem = next(module for module in adapted.modules() if isinstance(module, BlockStem))
    common = stem.alignment.double() @ forward.flatten(0, 1)
    assert torch.allclose(common, common[:1].expand_as(common), atol=1e-6)
    assert float((common[0] - torch.eye(192).double()).abs().max()) > 0.5
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        answers = adapted(encrypt_blocks(images, forward, 8))
        assert relative_error(answers, network(images)) < 1e-5


@pytest.mark.parametrize(("name", "block"), [("test_vit", 16), ("resnet10t", 16)])
def test_extra_planes_of_noise_are_ignored(name: str, block: int) -> None:
    network, size = build(name), (3, 160, 160)
    forward, inverse = random_maps(block, extra=1)
    adapted = adapt_stems(network, size, block, inverse)
    images = torch.randn(1, *size)
    blocks = F.pixel_unshuffle(encrypt_blocks(images, forward, block), block)
    noise = torch.randn_like(blocks)
    onto = forward[0, 0].float() @ inverse[0, 0].float()
    noisy = blocks + noise - torch.einsum("oi,bihw->bohw", onto, noise)
    with torch.no_grad():
        answers = adapted(F.pixel_shuffle(noisy, block))
        assert relative_error(answers, network(images)) < 1e-5


def test_a_block_side_that_does_not_fit_is_refused_with_those_that_do() -> None:
    network = nn.Conv2d(3, 4, 8, stride=4)
    with pytest.raises(UnsupportedModelError, match=r"use a block side of 4, 8, 12, .*64$"):
        adapt_stems(network, (3, 32, 32), 6, random_maps(6)[1])
    patches = nn.Conv2d(3, 4, 8, stride=8)
    with pytest.raises(UnsupportedModelError, match=r"use a block side of 2, 4, 8, 16, "):
        adapt_stems(patches, (3, 32, 32), 5, random_maps(5)[1])  # of one pixel would show it all
    assert valid_blocks(find_stems(patches, (3, 32, 32)), limit=24) == [1, 2, 4, 8, 16, 24]


def test_a_release_of_another_size_is_refused() -> None:
    network = build("resnet10t")
    adapted = adapt_stems(network, (3, 64, 64), 16, random_maps(16)[1])
    with pytest.raises(ImageError, match=r"expected a release \(B, 3, 64, 64\).*adapt the network"):
        adapted(torch.zeros(1, 3, 80, 80))


@pytest.mark.parametrize(
    ("inverse", "message"),
    [
        (torch.zeros(1, 1, 10, 10), "expected inverse maps"),
        (torch.zeros(192, 192), "expected inverse maps"),
        (torch.full((1, 1, 192, 192), float("nan")), "expected finite"),
        (torch.zeros(1, 1, 192, 128), "at least 192"),
    ],
    ids=["size", "shape", "nan", "narrow"],
)
def test_maps_that_are_none_are_refused(inverse: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        adapt_stems(nn.Conv2d(3, 4, 8, stride=8), (3, 32, 32), 8, inverse)


@pytest.mark.parametrize(
    ("name", "size", "block"), [("resnet10t", (3, 64, 64), 16), ("test_vit", (3, 160, 160), 16)]
)
def test_an_adapted_network_runs_in_onnxruntime(name: str, size: Size, block: int) -> None:
    network = build(name)
    forward, inverse = random_maps(block, period=(2, 2) if name == "resnet10t" else (1, 1))
    adapted = adapt_stems(network, size, block, inverse)
    images = torch.randn(3, *size)
    release = encrypt_blocks(images, forward, block)
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own: it is deprecated for a heavier one
        torch.onnx.export(
            adapted, (release[:1],), written, dynamo=False, opset_version=17,
            input_names=["release"], dynamic_axes={"release": {0: "batch"}},
        )  # fmt: skip
    session = onnxruntime.InferenceSession(written.getvalue(), providers=["CPUExecutionProvider"])
    (answers,) = session.run(None, {"release": release.numpy()})
    with torch.no_grad():
        plain = network(images)
    assert relative_error(torch.from_numpy(np.asarray(answers)), plain) < 1e-4


def test_an_adapted_network_is_built_again_from_layout_and_weights() -> None:
    network = build("mobileone_s0")
    adapted = adapt_stems(network, (3, 64, 64), 8, random_maps(8, period=(2, 2))[1])
    layout = json.loads(json.dumps(stem_layout(adapted)))
    again = restore_stems(build("mobileone_s0"), layout)
    again.load_state_dict(adapted.state_dict())
    release = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(release), adapted(release))
    with pytest.raises(ModelError, match="belongs to another architecture"):
        restore_stems(nn.Conv2d(3, 4, 3), layout)
    with pytest.raises(ModelError, match="settings of a block stem"):
        restore_stems(network, {"stem": {"blocks": 3}})
