"""Pictures and a model out of a seed, for measurements that need many and not real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["generated_model", "write_pictures"]

_SPREAD = 25.0


def write_pictures(folder: Path, count: int, *, seed: int, side: int = 96) -> Path:
    """Write ``count`` JPEG files; those that are there already stay.

    Each shows a few soft blobs of colour, so that models tell them apart and fills flip them.

    Args:
        folder: Made if missing.
        count: Of files.
        seed: The same seed gives the same files.
        side: In pixels.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if not path.is_file():
            part = path.with_suffix(".part")
            _draw(np.random.default_rng([seed, number]), side).save(part, "JPEG", quality=90)
            part.replace(path)
    return folder


def generated_model(path: Path, *, seed: int) -> str:
    """Return the SPEC of a small model: the embedded one, or else a seeded ConvMixer.

    Args:
        path: Where the ConvMixer is written if it is needed.
        seed: Of its weights.
    """
    from scotoma.models.loaders import EMBEDDED

    if EMBEDDED[""].is_file():
        return "embedded"
    import torch

    from scotoma.models import saved
    from scotoma.models.preprocessing import Preprocessing

    arguments = {"dim": 32, "depth": 2, "kernel_size": 5, "patch_size": 4, "num_classes": 10}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = saved.build("convmixer", arguments)
        # In training mode BatchNorm learns the pictures' range; untrained logits barely differ.
        images = torch.randn(64, 3, 64, 64)
        with torch.no_grad():
            for _ in range(20):
                network(images)
            # Margins are in logits: spread these as a trained network's are.
            for weights in list(network.parameters())[-2:]:
                weights.mul_(_SPREAD)
    preprocessing = Preprocessing(input_size=(3, 64, 64), crop_pct=1.0)
    names = tuple(f"class {number}" for number in range(10))
    path.parent.mkdir(parents=True, exist_ok=True)
    model = saved.SavedModel("convmixer", arguments, preprocessing, names)
    saved.save(path, network.state_dict(), model)
    return f"scotoma:{path}"


def _draw(generator: np.random.Generator, side: int) -> Image.Image:
    grid = np.mgrid[0:side, 0:side] / side
    picture = np.tile(generator.uniform(0, 255, 3), (side, side, 1))
    for _ in range(6):
        centre, width = generator.uniform(0, 1, (2, 1, 1)), generator.uniform(0.02, 0.3)
        weight = np.exp(-((grid - centre) ** 2).sum(0) / width**2)[:, :, None]
        picture = picture * (1 - weight) + generator.uniform(0, 255, 3) * weight
    picture += generator.normal(0, 6, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))
