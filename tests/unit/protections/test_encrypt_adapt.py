"""Adapted models on releases say what plain models say of pictures, and nothing to other keys."""

from __future__ import annotations

import pytest
import torch
from support.encryption import KEY, NOISY, OTHER_KEY, make_images
from timm.models.convmixer import ConvMixer
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from scotoma.core.errors import ModelError, UnsupportedModelError
from scotoma.core.keys import Key
from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.schemes import schemes
from scotoma.protections.encrypt.settings import EncryptSettings

READING = Preprocessing((3, 32, 32))
IMAGES = make_images(24)


def _convmixer() -> nn.Module:
    return ConvMixer(dim=24, depth=2, kernel_size=5, patch_size=4, num_classes=5)


def _transformer() -> nn.Module:
    network = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=24, depth=2, num_heads=2, num_classes=5
    )
    nn.init.normal_(network.pos_embed, std=0.5)  # untrained ones hardly matter
    return network


def _overlapping() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 5),
    )


NETWORKS = {
    "patches": _convmixer,
    "patches and positions": _transformer,
    "overlapping": _overlapping,
}
KEYED = {
    "orthogonal": EncryptSettings("orthogonal", 4),
    "permute": EncryptSettings("permute", 4),
    "per block": EncryptSettings("orthogonal-per-block", 4),
    "period": EncryptSettings("orthogonal-per-block", 4, period=(3, 2)),
    "hardened": EncryptSettings("hardened", 4),
    "hardened, larger blocks and more noise": EncryptSettings(
        "hardened", 8, noise=16, noise_planes=2
    ),
}


def _network(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NETWORKS[name]()
        with torch.no_grad():  # logits that tell pictures apart, as a trained network's do
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.weight.mul_(4)
    return network.eval().requires_grad_(False)


def _difference(
    network: nn.Module, settings: EncryptSettings, *, key: Key = KEY, images: Tensor = IMAGES
) -> float:
    """Return the largest change of a logit, relative to their spread between pictures."""
    protection = open_protection(settings, READING)
    generator = Generator().manual_seed(0) if protection.fresh else None
    release = protection.protect(images, KEY, generator=generator)
    before, after = network(images), protection.adapt(network, key)(release.data)
    return float((after - before).abs().max() / before.std(0).mean())


@pytest.mark.parametrize("scheme", KEYED)
@pytest.mark.parametrize("name", NETWORKS)
def test_adapted_models_say_the_same(name: str, scheme: str) -> None:
    network = _network(name)
    weights = {k: v.clone() for k, v in network.state_dict().items()}
    assert _difference(network, KEYED[scheme]) < 1e-4
    assert _difference(network, KEYED[scheme], key=OTHER_KEY) > 1, "another key reads nothing"
    assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("inner", ["none", "permute", "orthogonal"])
def test_moved_blocks_need_moved_positions(inner: str) -> None:
    settings = EncryptSettings("block-shuffle", 4, inner=inner)
    network = _network("patches and positions")
    assert _difference(network, settings) < 1e-4
    # An untrained transformer hardly minds where a block lies, hence the low bound.
    assert _difference(network, settings, key=OTHER_KEY) > 0.05
    for name in ("patches", "overlapping"):
        with pytest.raises(UnsupportedModelError):
            open_protection(settings, READING).adapt(_network(name), KEY)


@pytest.mark.parametrize("name", NETWORKS)
def test_noise_planes_are_read_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schemes._built_in, NOISY.name, NOISY)
    assert _difference(_network(name), EncryptSettings(NOISY.name, 4)) < 1e-4


def test_the_size_may_come_from_the_model() -> None:
    network = _network("patches and positions")
    network.pretrained_cfg = {"input_size": (3, 32, 32)}
    protection = open_protection(EncryptSettings("permute", 4))
    adapted = protection.adapt(network, KEY)
    release = protection.protect(IMAGES, KEY)
    torch.testing.assert_close(adapted(release.data), network(IMAGES), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scheme", KEYED)
def test_completed_sides_are_read_away(scheme: str) -> None:
    """30 and 26 pixels are no whole blocks of 4: the zeros that complete them leave no trace."""
    reading, images = Preprocessing((3, 30, 26)), make_images(4, 30, 26)
    protection, network = open_protection(KEYED[scheme], reading), _network("overlapping")
    generator = Generator().manual_seed(0) if protection.fresh else None
    release = protection.protect(images, KEY, generator=generator)
    assert release.data.shape[2:] == (32, 28 if KEYED[scheme].block == 4 else 32)
    adapted = protection.adapt(network, KEY)
    torch.testing.assert_close(adapted(release.data), network(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("scheme", "block", "fits"),
    [
        ("shuffle", 8, True),
        ("shuffle", 16, True),
        ("shuffle", 4, False),
        ("mix", 8, True),
        ("mix", 16, False),
        ("mix", 4, False),
    ],
)
def test_keyless_readers_say_which_patches_they_read(scheme: str, block: int, fits: bool) -> None:
    from scotoma.models.pevit import PEViT

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
        network = PEViT(release=scheme, num_classes=5, **sizes).eval().requires_grad_(False)
    protection = open_protection(EncryptSettings(scheme, block), READING)
    images = make_images(2)
    data = protection.protect(images, generator=Generator().manual_seed(0)).data
    assert torch.allclose(network(data), network(images), atol=1e-5) == fits
    if fits:
        assert protection.adapt(network) is network
    else:
        with pytest.raises(ModelError, match="encrypt with --block 8"):
            protection.adapt(network)
