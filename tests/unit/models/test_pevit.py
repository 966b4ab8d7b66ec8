from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor

from scotoma.core.errors import ImageError, ModelError, SettingsError, UnknownNameError
from scotoma.models import saved
from scotoma.models.pevit import (
    RELEASES,
    MixedPatchEmbed,
    PEViT,
    ReferenceEncoding,
    load_vit_weights,
)
from scotoma.models.preprocessing import Preprocessing

SETTINGS: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 7,
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def lively(release: str, **changes: Any) -> PEViT:
    """A network whose logits are of order 1 and depend on everything: no weight is near 0."""
    network = PEViT(release=release, **{**SETTINGS, **changes}).eval().requires_grad_(False)
    for number, (name, parameter) in enumerate(network.named_parameters()):
        scale = 1.0 if name in ("cls_token", "pos_embed") else 0.5
        parameter.copy_(scale * draw(*parameter.shape, seed=number))
    return network


def cut(images: Tensor, side: int) -> Tensor:
    """``(B, 3, H, W)`` to ``(B, N, 3, side, side)``, row by row; slow and obvious."""
    rows = [
        images[:, :, y : y + side, x : x + side]
        for y in range(0, images.shape[2], side)
        for x in range(0, images.shape[3], side)
    ]
    return torch.stack(rows, 1)


def join(patches: Tensor, columns: int) -> Tensor:
    lines = [torch.cat(list(line.unbind(1)), 3) for line in patches.split(columns, 1)]
    return torch.cat(lines, 2)


def shuffle_patches(images: Tensor, side: int, seed: int) -> Tensor:
    patches = cut(images, side)
    order = torch.randperm(patches.shape[1], generator=Generator().manual_seed(seed))
    return join(patches[:, order], images.shape[3] // side)


def shuffle_within_patches(images: Tensor, side: int, seed: int) -> Tensor:
    """Each patch's four quarters in an order of its own."""
    generator = Generator().manual_seed(seed)
    patches = []
    for patch in cut(images, side).unbind(1):
        order = torch.randperm(4, generator=generator)
        patches.append(join(cut(patch, side // 2)[:, order], 2))
    return join(torch.stack(patches, 1), images.shape[3] // side)


def mixed(images: Tensor, side: int) -> Tensor:
    """The release: every patch becomes the mean of its four quarters."""
    patches = [cut(patch, side // 2).mean(1) for patch in cut(images, side).unbind(1)]
    return join(torch.stack(patches, 1), images.shape[3] // side)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


def test_the_helpers_rearrange_and_lose_nothing() -> None:
    images = draw(2, 3, 32, 32)
    assert torch.equal(join(cut(images, 8), 4), images)
    for moved in (shuffle_patches(images, 8, 1), shuffle_within_patches(images, 8, 1)):
        assert not torch.equal(moved, images)
        assert torch.equal(moved.flatten(1).sort().values, images.flatten(1).sort().values)


LINEAR: dict[str, Any] = {}
NETWORK: dict[str, Any] = {"embedding": "network"}
MATCHING: dict[str, Any] = {"embedding": "network", "neighbours": 2}
DEEP: dict[str, Any] = {"embedding": "network", "trunk": 2}


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("changes", [LINEAR, NETWORK, MATCHING, DEEP])
@pytest.mark.parametrize("seed", range(5))
def test_logits_do_not_move_when_patches_do(
    reference: bool, changes: dict[str, Any], seed: int
) -> None:
    images = draw(2, 3, 32, 32)
    network = lively("shuffle", reference=reference, **changes)
    logits = network(images)
    assert float(logits.std()) > 0.1
    assert difference(logits, network(shuffle_patches(images, 8, seed))) <= 1e-4
    # What it claims not to see is the order of its own patches, nothing else.
    assert difference(logits, network(shuffle_patches(images, 4, seed))) > 1e-2
    assert difference(logits, network(shuffle_within_patches(images, 8, seed))) > 1e-2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("changes", [LINEAR, NETWORK, DEEP])
@pytest.mark.parametrize("positions", [True, False])
def test_logits_do_not_move_when_sub_patches_do(
    positions: bool, changes: dict[str, Any], seed: int
) -> None:
    images = draw(2, 3, 32, 32)
    network = lively("mix", positions=positions, **changes)
    logits = network(images)
    assert difference(logits, network(shuffle_within_patches(images, 8, seed))) <= 1e-4
    moved = difference(logits, network(shuffle_patches(images, 8, seed)))
    looks_across = bool(changes)
    assert moved > 1e-2 if positions or looks_across else moved <= 1e-4


def test_the_plain_twin_sees_both_and_reads_neither() -> None:
    images = draw(2, 3, 32, 32)
    network = lively("plain")
    logits = network(images)
    assert network.reads == frozenset()
    assert difference(logits, network(shuffle_patches(images, 8, 0))) > 1e-2
    assert difference(logits, network(shuffle_within_patches(images, 8, 0))) > 1e-2


def test_the_plain_twin_is_timms() -> None:
    torch.manual_seed(0)
    twin = PEViT(release="plain", **SETTINGS)
    torch.manual_seed(0)
    original = VisionTransformer(**SETTINGS)
    images = draw(2, 3, 32, 32)
    assert twin.state_dict().keys() == original.state_dict().keys()
    assert torch.equal(twin.eval()(images), original.eval()(images))


@pytest.mark.parametrize(
    ("patch", "changes"),
    [(2, LINEAR), (4, LINEAR), (8, LINEAR), (4, NETWORK), (8, NETWORK), (8, DEEP)],
)
def test_a_mixed_release_is_read_like_its_picture(patch: int, changes: dict[str, Any]) -> None:
    images = draw(3, 3, 32, 16)
    network = lively("mix", patch_size=patch, img_size=(32, 16), **changes)
    release = mixed(images, patch)
    assert release.shape == (3, 3, 16, 8)
    assert difference(network(images), network(release)) <= 1e-5
    assert network.reads == {"mix"}


def test_the_mixed_embedding_is_the_formula() -> None:
    embed = MixedPatchEmbed(img_size=16, patch_size=8, embed_dim=5).requires_grad_(False)
    images = draw(1, 3, 16, 16)
    expected = []
    for patch in cut(images, 8).unbind(1):
        flat = cut(patch, 4).mean(1).flatten()
        hidden = F.gelu(embed.proj.weight.flatten(1) @ flat + embed.proj.bias)
        expected.append(embed.out.weight[:, :, 0, 0] @ hidden + embed.out.bias)
    torch.testing.assert_close(embed(images)[0], torch.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [LINEAR, NETWORK])
@pytest.mark.parametrize("sides", [(8, 8), (32, 16), (64, 64)])
def test_other_sizes_are_refused(sides: tuple[int, int], changes: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match="expected pictures of 32×32 or mixed releases of 16×16"):
        PEViT(release="mix", **SETTINGS, **changes)(draw(1, 3, *sides))


def test_the_reference_encoding_is_the_formula() -> None:
    encoding = ReferenceEncoding(4).requires_grad_(False)
    for number, parameter in enumerate(encoding.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=number))
    token = draw(4, seed=9)
    one = encoding.inner.weight @ (token - encoding.reference)
    two = encoding.outer.weight @ one.clamp(min=0)
    torch.testing.assert_close(encoding(token), token + 1 / (1 + torch.exp(-two)))


def test_the_class_token_is_added_after_the_encoding() -> None:
    network = lively("shuffle")
    seen: list[Tensor] = []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(draw(1, 3, 32, 32))
    assert torch.equal(seen[0][:, 0], network.cls_token[:, 0])


@pytest.mark.parametrize(
    ("release", "changes"),
    [
        *((release, LINEAR) for release in RELEASES),
        ("mix", NETWORK),
        ("shuffle", MATCHING),
        ("mix", DEEP),
    ],
)
def test_every_parameter_learns(release: str, changes: dict[str, Any]) -> None:
    network = PEViT(release=release, **SETTINGS, **changes)
    network(draw(2, 3, 32, 32)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # The reference starts where ReLU's slope is 0 or 1: some of its gradient is not 0.
        assert float(parameter.grad.abs().sum()) > 0, name


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"release": "shufle"}, UnknownNameError, "did you mean 'shuffle'"),
        ({"release": "shuffle", "positions": True}, SettingsError, "no position embedding"),
        ({"release": "mix", "patch_size": 7, "img_size": 28}, SettingsError, "even patch size"),
        ({"pos_embed": "learn"}, SettingsError, "release, positions and reference"),
        ({"embedding": "netwrk"}, UnknownNameError, "did you mean 'network'"),
        ({"neighbours": 1}, SettingsError, "neighbours only of shuffled patches with embedding"),
        ({"trunk": 1}, SettingsError, "a trunk only with embedding 'network'"),
        ({"release": "mix", **MATCHING}, SettingsError, "neighbours only of shuffled patches"),
        ({"release": "mix", "patch_size": 2, **NETWORK}, SettingsError, "at least 2×2 pixels"),
        (
            {"release": "mix", "patch_size": 12, "img_size": 24, **NETWORK},
            SettingsError,
            "size of 4, 8, 16",
        ),
    ],
)
def test_refuses_settings(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PEViT(**{**SETTINGS, **changes})


class TestPretrainedWeights:
    """A timm vision transformer's state dict."""

    def pretrained(self, **changes: Any) -> VisionTransformer:
        torch.manual_seed(3)
        return VisionTransformer(**{**SETTINGS, **changes}).eval().requires_grad_(False)

    def test_plain(self) -> None:
        original = self.pretrained()
        network = PEViT(release="plain", **SETTINGS).eval()
        assert load_vit_weights(network, original.state_dict()) == ()
        images = draw(2, 3, 32, 32)
        assert torch.equal(network(images), original(images))

    @pytest.mark.parametrize("no_embed_class", [True, False])
    def test_positions_that_are_all_alike_are_no_loss(self, no_embed_class: bool) -> None:
        original = self.pretrained(no_embed_class=no_embed_class)
        original.pos_embed.copy_(draw(1, 1, 24).expand_as(original.pos_embed))
        if not no_embed_class:
            original.pos_embed[:, 0] = draw(24, seed=1)
        network = PEViT(reference=False, no_embed_class=no_embed_class, **SETTINGS).eval()
        assert load_vit_weights(network, original.state_dict()) == ()
        images = draw(2, 3, 32, 32)
        torch.testing.assert_close(network(images), original(images))

    def test_reference_and_head_stay_new(self) -> None:
        weights = self.pretrained().state_dict()
        network = PEViT(**{**SETTINGS, "num_classes": 5})
        fresh = load_vit_weights(network, weights)
        new = {"reference.reference", "reference.inner.weight", "reference.outer.weight"}
        assert set(fresh) == new | {"head.weight", "head.bias"}
        assert torch.equal(network.blocks[1].mlp.fc1.weight, weights["blocks.1.mlp.fc1.weight"])

    def test_mix_keeps_positions_and_embeds_anew(self) -> None:
        weights = self.pretrained().state_dict()
        network = PEViT(release="mix", **SETTINGS)
        fresh = load_vit_weights(network, weights)
        assert fresh
        assert all(name.startswith("patch_embed.") for name in fresh)
        assert torch.equal(network.pos_embed, weights["pos_embed"])
        again = PEViT(release="mix", **SETTINGS)
        assert load_vit_weights(again, network.state_dict()) == ()

    def test_a_network_in_patches_stays_new(self) -> None:
        weights = self.pretrained().state_dict()
        network = PEViT(reference=False, **SETTINGS, **MATCHING)
        fresh = load_vit_weights(network, weights)
        assert {name.split(".")[1] for name in fresh} == {"convolutions", "out", "matching"}
        assert torch.equal(network.blocks[1].mlp.fc1.weight, weights["blocks.1.mlp.fc1.weight"])

    @pytest.mark.parametrize("changes", [{"depth": 1}, {"embed_dim": 12}, {"reg_tokens": 2}])
    def test_others_are_refused(self, changes: dict[str, Any]) -> None:
        weights = self.pretrained(**changes).state_dict()
        with pytest.raises(ModelError, match="width 24, depth 2"):
            load_vit_weights(PEViT(**SETTINGS), weights)

    def test_a_deit_of_timms_own_list(self) -> None:
        import timm

        deit = timm.create_model("deit_tiny_patch16_224", pretrained=False)
        network = PEViT(embed_dim=192, num_heads=3)
        fresh = load_vit_weights(network, deit.state_dict())
        assert all(name.startswith("reference.") for name in fresh)


@pytest.mark.parametrize(
    ("release", "changes"), [*((release, LINEAR) for release in RELEASES), ("shuffle", MATCHING)]
)
def test_saved_and_loaded(tmp_path: Path, release: str, changes: dict[str, Any]) -> None:
    arguments = {**SETTINGS, **changes, "release": release, "img_size": [32, 32]}
    network = saved.build("pevit", arguments).eval()
    model = saved.SavedModel("pevit", arguments, Preprocessing((3, 32, 32)), tuple("abcdefg"))
    saved.save(tmp_path / "m.safetensors", network.state_dict(), model)
    loaded, _ = saved.load(tmp_path / "m.safetensors")
    images = draw(1, 3, 32, 32)
    assert torch.equal(loaded(images), network(images))
    assert loaded.reads == network.reads
