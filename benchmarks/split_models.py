"""Architectures to cut: the smallest of each of timm's families, torchvision's, transformers'."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.random_models import build_model, fill_randomly

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TIMM", "TORCHVISION", "TRANSFORMERS", "build"]

Size = tuple[int, int, int]

TIMM = (
    "halonet_h1",
    "test_byobnet",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "convmixer_768_32",
    "test_convnext",
    "cpubone_nano",
    "crossvit_tiny_240",
    "csatv2",
    "cs3darknet_focus_s",
    "cspnext_tiny",
    "davit_tiny",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla46x_c",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "test_efficientnet",
    "efficientvim_m1",
    "efficientvit_b0",
    "efficientvit_m0",
    "vit_tiny_patch16_dinov3_qkvb",
    "fasternet_t0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_050",
    "hardcorenas_b",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "hieradet_small",
    "hrnet_w18_small",
    "iformer_t",
    "inception_next_atto",
    "inception_resnet_v2",
    "inception_v3",
    "lcnetv2_small",
    "levit_128s",
    "lowformer_b0",
    "test_mambaout",
    "test_coatnet",
    "poolformerv2_s12",
    "gmlp_ti16_224",
    "mobilenetv3_small_050",
    "mobilenetv5_base",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "nasnetalarge",
    "nest_tiny",
    "nextvit_small",
    "test_nfnet",
    "pit_ti_224",
    "pnasnet5large",
    "pvt_v2_b0",
    "rdnet_tiny",
    "regnetx_002",
    "repghostnet_050",
    "repvit_m1",
    "res2next50",
    "resnest14d",
    "test_resnet",
    "resnetv2_18",
    "rexnet_100",
    "selecsls42",
    "legacy_seresnet18",
    "sequencer2d_s",
    "shvit_s1",
    "skresnet18",
    "starnet_s050",
    "swiftformer_xs",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224",
    "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224",
    "tresnet_m",
    "twins_svt_small",
    "visformer_tiny",
    "test_vit",
    "vit_tiny_r_s16_p8_224",
    "test_vit_relpos",
    "vitamin_small_224",
    "volo_d1_224",
    "ese_vovnet19b_slim_dw",
    "legacy_xception",
    "xception41p",
    "xcit_nano_12_p8_224",
)
"""Of each file of architectures in timm, the entry of fewest parameters (VGG is torchvision's)."""

TORCHVISION = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
    "wide_resnet50_2",
)
"""Of each of torchvision's families of classifiers, the smallest."""

TRANSFORMERS = (
    "beit",
    "bit",
    "convnext",
    "convnextv2",
    "cvt",
    "data2vec-vision",
    "deit",
    "dinov2",
    "efficientnet",
    "focalnet",
    "levit",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilevit",
    "mobilevitv2",
    "poolformer",
    "pvt",
    "pvt_v2",
    "regnet",
    "resnet",
    "segformer",
    "swiftformer",
    "swin",
    "swinv2",
    "vit",
    "vit_msn",
)
"""Types of transformers' image classifiers."""

_LAYERS = 4  # of networks whose layers are all alike


def build(library: str, name: str, *, seed: int) -> tuple[nn.Module, Size]:
    """Return a network with random weights in evaluation mode, and the size of its pictures."""
    makers = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}
    network, size = makers[library](name)
    fill_randomly(network, seed=seed)
    return network.eval().requires_grad_(False), size


def _timm(name: str) -> tuple[nn.Module, Size]:
    from scotoma.models.preprocessing import Preprocessing

    network = build_model(name)
    return network, Preprocessing.from_timm(network).input_size


def _torchvision(name: str) -> tuple[nn.Module, Size]:
    from scotoma.models.networks import find_network

    return find_network(f"torchvision:{name}")


def _transformers(name: str) -> tuple[nn.Module, Size]:
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as CLASSES,
    )

    config = AutoConfig.for_model(name)
    if isinstance(CLASSES[name], tuple):  # transformers then wants to be told which
        config.architectures = [CLASSES[name][0]]
    if isinstance(getattr(config, "num_hidden_layers", None), int) and hasattr(
        config, "hidden_size"
    ):
        config.num_hidden_layers = min(config.num_hidden_layers, _LAYERS)
    side = getattr(config, "image_size", None) or 224
    side = side[0] if isinstance(side, list | tuple) else side
    network: nn.Module = AutoModelForImageClassification.from_config(config)
    return network, (3, side, side)
