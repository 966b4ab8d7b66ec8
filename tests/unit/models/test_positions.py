"""Shuffled blocks: the position embedding follows, and nothing else passes for it."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from support.block_maps import encrypt_blocks, random_maps, randomize, relative_error
from torch import Tensor, nn

from scotoma.core.errors import ModelError, UnsupportedModelError
from scotoma.models.block_stem import adapt_stems
from scotoma.models.positions import permute_positions

SIZE = (3, 64, 64)


def build(name: str, **options: object) -> nn.Module:
    return randomize(timm.create_model(name, num_classes=5, img_size=64, **options))


def shuffle(images: Tensor, block: int, order: Tensor) -> Tensor:
    """Put the block of place ``order[n]`` at place ``n``, one after the other."""
    columns = images.shape[3] // block
    release = torch.empty_like(images)
    for to, source in enumerate(order.tolist()):
        (i, j), (k, m) = divmod(to, columns), divmod(source, columns)
        piece = images[:, :, k * block : (k + 1) * block, m * block : (m + 1) * block]
        release[:, :, i * block : (i + 1) * block, j * block : (j + 1) * block] = piece
    return release


def random_order(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_vit", {}),  # class token within the embedding
        ("test_vit2", {}),
        ("test_vit", {"class_token": False, "global_pool": "avg"}),
        ("test_vit", {"reg_tokens": 3, "no_embed_class": True}),
        ("test_vit", {"pos_embed": "none", "class_token": False, "global_pool": "avg"}),
    ],
    ids=str,
)
def test_answers_to_shuffled_blocks_are_the_plain_ones(
    name: str, options: dict[str, object], block: int
) -> None:
    network = build(name, **options)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    order = random_order((64 // block) ** 2)
    adapted = permute_positions(network, SIZE, block, order)
    images = torch.randn(2, *SIZE)
    with torch.no_grad():
        plain = network(images)
        assert relative_error(adapted(shuffle(images, block, order)), plain) < 1e-5
        if "pos_embed" not in options:
            assert relative_error(adapted(images), plain) > 1e-3
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert adapted.patch_embed.proj.weight is network.patch_embed.proj.weight


def test_blocks_may_be_shuffled_and_mixed() -> None:
    network = build("test_vit")
    order = random_order(16)
    forward, inverse = random_maps(16)
    adapted = adapt_stems(network, SIZE, 16, inverse, order)
    images = torch.randn(2, *SIZE)
    release = encrypt_blocks(shuffle(images, 16, order), forward, 16)
    with torch.no_grad():
        assert relative_error(adapted(release), network(images)) < 1e-5


class _Grid(nn.Module):
    """Positions as a grid of vectors, added before pooling by attention-like weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 16, stride=16)
        self.position_grid = nn.Parameter(torch.randn(1, 4, 4, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).permute(0, 2, 3, 1) + self.position_grid
        return self.head(F.gelu(tokens).mean((1, 2)))


def test_positions_may_lie_on_a_grid() -> None:
    network, order = _Grid(), random_order(16)
    adapted = permute_positions(network, SIZE, 16, order)
    images = torch.randn(2, *SIZE)
    with torch.no_grad():
        answers = adapted(shuffle(images, 16, order))
        assert relative_error(answers, network(images)) < 1e-5


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("vit_relpos_small_patch16_224", {"depth": 1}, "relative position biases"),
        ("swin_tiny_patch4_window7_224", {"depths": (2, 2), "window_size": 4}, "relative position"),
        ("mixer_s32_224", {}, "mixing along tokens"),
        ("eva02_tiny_patch14_224", {"depth": 1, "patch_size": 16}, "rotary positions"),
        ("test_convnext", {}, "convolutions after"),
        ("resnet10t", {}, "one embedding of square patches"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_ways_of_knowing_positions_are_refused(
    name: str, options: dict[str, object], reason: str
) -> None:
    fixed = {} if name in ("test_convnext", "resnet10t") else {"img_size": 64}
    network = randomize(timm.create_model(name, num_classes=5, **fixed, **options))
    block = 32
    with pytest.raises(UnsupportedModelError, match=reason):
        permute_positions(network, SIZE, block, random_order(4))


def test_a_network_that_answers_always_the_same_proves_nothing() -> None:
    network = build("test_vit")
    nn.init.zeros_(network.head.weight)
    with pytest.raises(UnsupportedModelError, match="answers depend on the picture"):
        permute_positions(network, SIZE, 16, random_order(16))


@pytest.mark.parametrize("order", [torch.arange(15), torch.zeros(16, dtype=torch.int64)], ids=str)
def test_an_order_that_is_none_is_refused(order: Tensor) -> None:
    with pytest.raises(ModelError, match="an order of 16 blocks, each once"):
        permute_positions(build("test_vit"), SIZE, 16, order)


@pytest.mark.parametrize("block", [8, 24])
def test_blocks_must_be_whole_patches(block: int) -> None:
    with pytest.raises(UnsupportedModelError, match="a multiple of the patch, 16"):
        permute_positions(build("test_vit"), SIZE, block, torch.arange(64))
