"""Pictures, and releases of them by the whole of ``hardened`` or by some of its parts."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.hardened_attacks import block_brightness
from benchmarks.pictures import MODELS, validation

if TYPE_CHECKING:
    from scotoma.protections.encrypt.maps import BlockMaps, Layout

__all__ = ["MEAN", "STAGES", "STD", "natural_patterns", "orders_of", "pictures", "release_of"]

STAGES = (
    "orthogonal",
    "whitened",
    "whitened, noise",
    "orthogonal, spread",
    "whitened, spread",
    "whitened, noise, values moved only",
    "whitened, noise, spread once",
    "hardened",
    "nothing but noise",
)
"""Parts of the scheme, then the whole; last what the oracle makes of releases of no picture."""

MEAN, STD = 0.45, 0.25
_CIFAR = MODELS.parent / "data" / "cifar10" / "train.zip"
_BATCH = 50


@cache
def pictures(side: int, count: int, seed: int) -> Tensor:
    """Return ``(count, 3, side, side)`` in [0, 1]: photographs, or crops of them where too few."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    if side == 32:
        return _small(count, seed)
    paths: list[Path] = validation()
    made = []
    for number in range(count):
        whole = number < len(paths)
        path = paths[number if whole else int(random.integers(len(paths)))]
        with Image.open(path) as image:
            picture = image.convert("RGB")
            crop = side if whole else int(random.integers(side // 2, side))
            left, top = (int(random.integers(0, edge - crop + 1)) for edge in picture.size)
            picture = picture.crop((left, top, left + crop, top + crop)).resize((side, side))
            made.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    return torch.stack(made).float() / 255


def _small(count: int, seed: int) -> Tensor:
    import zipfile

    import numpy as np
    from PIL import Image

    with zipfile.ZipFile(_CIFAR) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        chosen = np.random.default_rng(seed).permutation(len(names))[:count]
        pictures = [np.array(Image.open(io.BytesIO(archive.read(names[i])))) for i in chosen]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


@cache
def natural_patterns(side: int, block: int) -> Tensor:
    """Return what thumbnails of other pictures vary in most, ``(8, h, w)``, strongest first."""
    others = _small(2000, 1) if side == 32 else pictures(side, 650, 0)[-300:]
    thumbnails = block_brightness(others, block)
    flat = (thumbnails - thumbnails.mean(0)).flatten(1)
    axes = torch.linalg.svd(flat, full_matrices=False).Vh[:8]
    return torch.as_tensor(axes).view(8, *thumbnails.shape[1:])


def _maps(stage: str, side: int, block: int, seed: int) -> tuple[BlockMaps, Layout]:
    """Return the scheme with only some of its parts."""
    from scotoma.core.keys import Key
    from scotoma.ops.diffusion import Diffusion
    from scotoma.protections.encrypt.hardened import derive_hardened
    from scotoma.protections.encrypt.keyed import derive_one_orthogonal
    from scotoma.protections.encrypt.maps import BlockMaps, Layout
    from scotoma.protections.encrypt.settings import EncryptSettings

    key = Key.from_bytes(bytes([seed, 1]) * 16)
    layout = Layout(3, side // block, side // block)
    whole = derive_hardened(key, EncryptSettings("hardened", block), layout)
    plain = derive_one_orthogonal(key, EncryptSettings("orthogonal", block), layout)
    spread = whole.diffusion
    assert spread is not None
    quiet = BlockMaps(block, whole.forward, whole.inverse)
    if stage == "orthogonal":
        return plain, layout
    if stage == "orthogonal, spread":
        size = 3 * side * side
        orders = torch.stack([order[order < size] for order in spread.orders])
        return replace(plain, diffusion=Diffusion(orders, spread.matrices)), layout
    still = torch.eye(spread.matrices.shape[1], dtype=torch.float64)[None]
    return {
        "whitened": quiet,
        "whitened, noise": replace(whole, diffusion=None),
        "whitened, spread": replace(quiet, diffusion=spread),
        "whitened, noise, values moved only": replace(
            whole, diffusion=Diffusion(spread.orders[:1], still)
        ),
        "whitened, noise, spread once": replace(
            whole, diffusion=Diffusion(spread.orders[:1], spread.matrices[:1])
        ),
        "hardened": whole,
    }[stage], layout


def orders_of(config: dict[str, Any]) -> Tensor:
    """Return the ``(R, E)`` orders of a stage that spreads."""
    maps, _ = _maps(config["stage"], config["side"], config["block"], config["seed"])
    assert maps.diffusion is not None
    return maps.diffusion.orders


def release_of(config: dict[str, Any], images: Tensor) -> Tensor:
    """Return the release of images in [0, 1] by the stage that ``config`` names."""
    from scotoma.ops.generators import seeded_generator
    from scotoma.protections.encrypt.cipher import prepare

    generator = seeded_generator(b"benchmark" + bytes([config.get("draw", 0)]))
    if config["stage"] == "nothing but noise":
        shape = (len(images), 4, config["side"], config["side"])
        return torch.randn(shape, generator=generator)
    maps, layout = _maps(config["stage"], config["side"], config["block"], config["seed"])
    cipher = prepare(maps, layout)
    parts = torch.split((images - MEAN) / STD, _BATCH)
    return torch.cat([cipher.encrypt(part.contiguous(), generator) for part in parts])
