from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from transformers import YolosConfig, YolosForObjectDetection

from scotoma.core.errors import ModelError, SettingsError, UnknownNameError
from scotoma.models.peyolos import PEYOLOS, load_yolos_weights, peyolos_config
from scotoma.ops.blocks import draw_orders, mix_patches, move_blocks

PATCH = 8


def plain_config(**changes: Any) -> YolosConfig:
    settings = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 48,
        "image_size": [32, 48],
        "patch_size": PATCH,
        "num_detection_tokens": 5,
        "num_labels": 4,
    }
    return YolosConfig(**{**settings, **changes})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def liven(network: YolosForObjectDetection) -> Any:
    """Give every weight a size at which all that the network sees shows in its answer."""
    network.eval().requires_grad_(False)
    for number, (name, parameter) in enumerate(network.named_parameters()):
        # Classes and boxes come through two more layers, which saturate where all is large.
        scale = 2.0 if name.endswith("position_embeddings") else 0.4
        parameter.copy_(scale * draw(*parameter.shape, seed=number))
    return network


def lively(release: str, **changes: Any) -> PEYOLOS:
    network: PEYOLOS = liven(PEYOLOS(peyolos_config(plain_config(**changes), release)))
    return network


def difference(network: PEYOLOS, one: Tensor, other: Tensor) -> tuple[float, float]:
    """How far logits and boxes move, relative to the largest of them."""
    first, second = network(one), network(other)
    return tuple(
        float((a - b).abs().max() / a.abs().max())
        for a, b in ((first.logits, second.logits), (first.pred_boxes, second.pred_boxes))
    )


def shuffled(images: Tensor, block: int, seed: int) -> Tensor:
    count = images.shape[2] * images.shape[3] // block**2
    order = draw_orders(len(images), count, Generator().manual_seed(seed))
    return move_blocks(images, order, block)


@pytest.mark.parametrize("mid", [True, False])
@pytest.mark.parametrize("size", [(32, 48), (64, 40)])
@pytest.mark.parametrize("seed", range(3))
def test_boxes_and_logits_do_not_move_when_patches_do(
    mid: bool, size: tuple[int, int], seed: int
) -> None:
    images = draw(2, 3, *size)
    network = lively("shuffle", use_mid_position_embeddings=mid)
    assert network.reads == {"shuffle"}
    assert max(difference(network, images, shuffled(images, PATCH, seed))) <= 1e-4
    assert min(difference(network, images, shuffled(images, PATCH // 2, seed))) > 1e-3


def test_so_boxes_cannot_say_where_a_thing_is() -> None:
    # One patch that is not blank, at the top left or at the bottom right: the true boxes share
    # nothing, the answers are one, so at least one of them is wrong.
    network = lively("shuffle")
    here, there = torch.zeros(1, 3, 32, 48), torch.zeros(1, 3, 32, 48)
    here[:, :, :PATCH, :PATCH] = 5 * draw(3, PATCH, PATCH)
    there[:, :, -PATCH:, -PATCH:] = here[:, :, :PATCH, :PATCH]
    assert max(difference(network, here, there)) <= 1e-4
    for release in ("plain", "mix"):
        other = lively(release)
        pair = [mix_patches(x, PATCH, 2) if release == "mix" else x for x in (here, there)]
        assert difference(other, pair[0], pair[1])[1] > 1e-3


@pytest.mark.parametrize("mid", [True, False])
@pytest.mark.parametrize("size", [(32, 48), (64, 40)])
def test_a_mixed_picture_is_embedded_as_in_the_paper(mid: bool, size: tuple[int, int]) -> None:
    # Conv (k = s = p/2) on the plain picture, mean of 2×2, GELU, 1×1.
    network = lively("mix", use_mid_position_embeddings=mid)
    images = draw(2, 3, *size)
    embed = network.vit.embeddings.patch_embeddings
    expected = embed.out(F.gelu(F.avg_pool2d(embed.projection(images), 2)))
    release = mix_patches(images, PATCH, 2)
    assert release.shape[-2:] == (size[0] // 2, size[1] // 2)
    torch.testing.assert_close(embed(release), expected.flatten(2).transpose(1, 2))
    assert network(release).logits.shape == (2, 5, 5)
    assert network.reads == {"mix"}


def test_mixed_patches_keep_their_places() -> None:
    network = lively("mix")
    release = mix_patches(draw(2, 3, 32, 48), PATCH, 2)
    assert min(difference(network, release, shuffled(release, PATCH // 2, 0))) > 1e-3


def test_the_plain_twin_is_transformers() -> None:
    config = plain_config()
    original = liven(YolosForObjectDetection(config))
    twin = PEYOLOS(peyolos_config(config, "plain")).eval()
    assert load_yolos_weights(twin, original.state_dict()) == ()
    images = draw(2, 3, 32, 48)
    assert twin.reads == frozenset()
    # Several threads round differently where one of the two keeps gradients.
    torch.testing.assert_close(twin(images).logits, original(images).logits)
    torch.testing.assert_close(twin(images).pred_boxes, original(images).pred_boxes)


@pytest.mark.parametrize("mid", [True, False])
def test_positions_that_are_all_alike_are_no_loss(mid: bool) -> None:
    config = plain_config(use_mid_position_embeddings=mid)
    original = liven(YolosForObjectDetection(config))
    for name, parameter in original.named_parameters():
        if name.endswith("position_embeddings"):
            parameter[..., 1:-5, :] = parameter[..., 1:2, :].clone()
    network = PEYOLOS(peyolos_config(config, "shuffle", reference=False)).eval()
    assert load_yolos_weights(network, original.state_dict()) == ()
    images = draw(2, 3, 32, 48)
    torch.testing.assert_close(network(images).logits, original(images).logits)
    torch.testing.assert_close(network(images).pred_boxes, original(images).pred_boxes)


def test_class_and_detection_tokens_are_untouched() -> None:
    # The encoding is per patch: the class and detection tokens enter the first layer as they are.
    network = lively("shuffle")
    seen: list[Tensor] = []
    layer = network.vit.encoder.layer[0]
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(draw(1, 3, 32, 48))
    embeddings = network.vit.embeddings
    own = embeddings.position_embeddings
    assert torch.equal(seen[0][:, :1], embeddings.cls_token + own[:, :1])
    assert torch.equal(seen[0][:, -5:], embeddings.detection_tokens + own[:, 2:])


@pytest.mark.parametrize(("release", "new"), [("shuffle", "reference."), ("mix", "projection.")])
def test_what_a_yolos_lacks_stays_new(release: str, new: str) -> None:
    weights = liven(YolosForObjectDetection(plain_config())).state_dict()
    # The name that files of before transformers 5 have.
    old = {k.replace("encoder.interpolation.mid_", "encoder.mid_"): v for k, v in weights.items()}
    assert old.keys() != weights.keys()
    network = PEYOLOS(peyolos_config(plain_config(num_labels=7), release))
    fresh = load_yolos_weights(network, old)
    heads = {name for name in fresh if name.startswith("class_labels_classifier.layers.2")}
    assert len(heads) == 2
    rest = set(fresh) - heads
    assert any(new in name for name in rest)
    assert all(name.startswith("vit.embeddings.patch_embeddings.") for name in rest)
    name = "vit.encoder.layer.1.output.dense.weight"
    assert torch.equal(network.get_parameter(name), weights[name])


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 2}, {"num_detection_tokens": 6}, {"image_size": [64, 48]}]
)
def test_weights_of_others_are_refused(changes: dict[str, Any]) -> None:
    weights = YolosForObjectDetection(plain_config(**changes)).state_dict()
    with pytest.raises(ModelError, match="expected the weights of a YOLOS"):
        load_yolos_weights(PEYOLOS(peyolos_config(plain_config(), "mix")), weights)


@pytest.mark.parametrize("release", ["plain", "shuffle", "mix"])
def test_saved_and_loaded_by_transformers(tmp_path: Path, release: str) -> None:
    network = lively(release)
    network.save_pretrained(tmp_path / "net")
    loaded = PEYOLOS.from_pretrained(tmp_path / "net", local_files_only=True).eval()
    images = draw(1, 3, 32, 48)
    images = mix_patches(images, PATCH, 2) if release == "mix" else images
    assert loaded.reads == network.reads
    assert torch.equal(loaded(images).logits, network(images).logits)


def test_detection_tokens_start_apart() -> None:
    tokens = PEYOLOS(peyolos_config(plain_config(), "mix")).vit.embeddings.detection_tokens[0]
    distances = torch.cdist(tokens, tokens).detach().fill_diagonal_(1)
    assert float(distances.min()) > 0.01


def test_refuses_settings() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mix'"):
        peyolos_config(plain_config(), "mixx")
    with pytest.raises(SettingsError, match="even patch size"):
        peyolos_config(plain_config(patch_size=5), "mix")
    with pytest.raises(SettingsError, match="peyolos_config"):
        PEYOLOS(plain_config())
