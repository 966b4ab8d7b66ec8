"""Pictures of a cell for a report: original | release | the attacker's best guess.

::

    OUT/pictures/FINGERPRINT/0-release.png, 0-guess.png, and 0-original.png where asked for
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from scotoma.core.protocols import Release
from scotoma.images.write import write_atomically

if TYPE_CHECKING:
    from scotoma.evaluate.measurement import Shown

__all__ = ["encode_png", "release_view", "save_pictures"]

_SPREAD = 3.0  # standard deviations between mid grey and black or white


def save_pictures(folder: Path, shown: Shown, *, count: int, show_originals: bool) -> None:
    """Write the first pictures of a cell.

    Args:
        folder: Made where there is none.
        shown: Originals, release and guesses.
        count: Pictures at most.
        show_originals: Write originals too; the folder must then not be published.

    Security:
        A guess that succeeds shows what was private, as the original would.
    """
    kinds = {"release": release_view(shown.release), "guess": shown.guesses}
    if show_originals:
        kinds["original"] = shown.originals
    for kind, images in kinds.items():
        for number, image in enumerate(images[: max(0, count - shown.first)], start=shown.first):
            write_atomically(folder / f"{number}-{kind}.png", encode_png(image))


def release_view(release: Release) -> Tensor:
    """Return a release as the eye would see it: ``(B, 3, H, W)`` in [0, 1].

    Numbers beyond [0, 1], as encrypted ones are, are scaled by their spread over the whole
    release, three standard deviations either side of grey; of other than three channels the
    first three are shown.
    """
    data = release.data
    channels = data[:, [min(channel, data.shape[1] - 1) for channel in range(3)]]
    if bool((channels >= 0).all() and (channels <= 1).all()):
        return channels
    scaled = (channels - channels.mean()) / (2 * _SPREAD * channels.std().clamp(min=1e-12)) + 0.5
    return scaled.clamp(0, 1)


def encode_png(image: Tensor) -> bytes:
    """Return a ``(3, H, W)`` picture in [0, 1] as PNG."""
    pixels = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()
