"""``python -m benchmarks.gallery``: draw ``docs/images/attacked.jpg`` for the README.

One picture of scikit-image's, its releases under two schemes and 40 pictures to a key, and
what the strongest attack that has releases alone makes of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from benchmarks.record import ROOT

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["main"]

_PAGE = ROOT / "docs" / "images" / "attacked.jpg"
_SIDE = 224
_CASES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("orthogonal", {"block": 8}, "pca"),
    ("hardened", {}, "position-field"),
)


def main() -> None:
    """Draw it."""
    from PIL import Image

    from scotoma.attacks.registry import attacks
    from scotoma.core.keys import Key
    from scotoma.core.protocols import Knowledge
    from scotoma.evaluate.judge import best_candidate, context_of
    from scotoma.evaluate.subjects import open_subject

    pictures = _pictures()
    tiles = [pictures[0]]
    for name, settings, attack in _CASES:
        subject = open_subject(name, settings)
        generator = torch.Generator().manual_seed(0)
        release = subject.protect(pictures, Key.from_bytes(bytes(range(32))), generator=generator)
        attacker: Any = attacks.get(attack)()
        guesses = attacker.run(release, Knowledge(), generator=generator)
        if guesses.ndim == 5:
            guesses = guesses[best_candidate(guesses, pictures, context_of(release))]
        tiles += [_visible(release.data[0]), guesses[0]]
    line = torch.cat([torch.nn.functional.pad(tile, (0, 8), value=1.0) for tile in tiles], 2)
    pixels = (line[..., :-8].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(_PAGE, quality=88)


def _pictures() -> Tensor:
    """Return the astronaut and 39 crops of other pictures, all under one key."""
    import numpy as np
    from PIL import Image
    from skimage import data

    def cut(pixels: np.ndarray, box: tuple[int, int, int, int]) -> Tensor:
        image = Image.fromarray(pixels).crop(box).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    named: Any = data
    astronaut = named.astronaut()
    made = [cut(astronaut, (60, 0, 380, 320))]
    generator = torch.Generator().manual_seed(0)
    others = [named.coffee(), named.chelsea(), named.rocket()]
    while len(made) < 40:
        pixels = others[len(made) % len(others)]
        top, left = (
            int(torch.randint(0, side - 256, (1,), generator=generator))
            for side in pixels.shape[:2]
        )
        made.append(cut(pixels, (left, top, left + 256, top + 256)))
    return torch.stack(made)


def _visible(data: Tensor) -> Tensor:
    """Return the first three planes of a release, stretched to what can be shown."""
    planes = data[:3]
    low, high = planes.quantile(0.01), planes.quantile(0.99)
    return (planes - low) / (high - low)


if __name__ == "__main__":
    main()
