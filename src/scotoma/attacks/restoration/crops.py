"""Regions as pictures of one size, cut out with a margin, and put back.

::

    release ── box + margin, resized ──► crop (3, S, S) ── attack ──► crop ──► box in the guess

Fills work in proportion to their region, so that of one size all regions look alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.fills import fills

__all__ = ["Examples", "cut", "fill_of", "learn_examples", "paste", "read_boxes", "reads_nothing"]

_CHUNK = 64

Boxes = list[tuple[int, int, int, int, int]]


@dataclass(frozen=True, eq=False)
class Examples:
    """Auxiliary regions before and after they were painted over.

    Args:
        painted: ``(N, 3, S, S)`` as released.
        originals: The same places of the original pictures.
        fill: Name of what painted them.
        pictures: ``(N,)`` int64, the auxiliary picture each is from.
    """

    painted: Tensor
    originals: Tensor
    fill: str
    pictures: Tensor


def read_boxes(release: Release) -> Boxes:
    """Return (picture, x0, y0, x1, y1) of every region in a release.

    Raises:
        NotApplicableError: It has no regions.
    """
    regions = release.metadata.get("regions")
    if regions is None:
        raise NotApplicableError(
            "expected a release whose metadata tell its painted regions, got one of scheme "
            f"{release.metadata.get('scheme')!r}; try learned inversion"
        )
    return [
        (number, int(x0), int(y0), int(x1), int(y1))
        for number, boxes in enumerate(regions)
        for x0, y0, x1, y1 in boxes
    ]


def fill_of(release: Release) -> str:
    """Return the name of the fill by the release's public settings."""
    return str(release.metadata.get("settings", {}).get("fill"))


def reads_nothing(fill: str) -> bool:
    """Return whether a fill by its name reads nothing of what it covers."""
    return fill in fills.names() and fills.get(fill).background_only


def cut(images: Tensor, boxes: Boxes, side: int, margin: float) -> Tensor:
    """Return ``(N, 3, side, side)`` crops around boxes of ``(B, 3, H, W)`` pictures.

    Args:
        images: Pictures.
        boxes: From :func:`read_boxes`.
        side: Of the crops.
        margin: On each side, as a fraction of the box; beyond the border the edge repeats.
    """
    crops = [
        F.interpolate(_window(images, box, margin), (side, side), mode="bilinear", antialias=True)
        for box in boxes
    ]
    return torch.cat(crops) if crops else images.new_empty(0, images.shape[1], side, side)


def paste(images: Tensor, boxes: Boxes, crops: Tensor, margin: float) -> Tensor:
    """Return pictures in whose boxes the middle of the crops is; the rest stays as it is."""
    guesses = images.clone()
    for box, crop in zip(boxes, crops, strict=True):
        number, x0, y0, x1, y1 = box
        wide, tall = _margins(box, margin)
        size = (y1 - y0 + 2 * tall, x1 - x0 + 2 * wide)
        whole = F.interpolate(crop[None], size, mode="bilinear", antialias=True)[0]
        guesses[number, :, y0:y1, x0:x1] = whole[:, tall : tall + y1 - y0, wide : wide + x1 - x0]
    return guesses.clamp(0, 1)


def learn_examples(
    knowledge: Knowledge, generator: Generator, side: int, margin: float
) -> Examples:
    """Return the attacker's own regions, painted as the owner paints.

    Raises:
        NotGrantedError: No simulation or no auxiliary pictures.
        NotApplicableError: Releases have no regions, or none was found.
    """
    simulate: Callable[[Tensor, Generator], Release] | None = knowledge.simulate
    auxiliary = knowledge.auxiliary
    if simulate is None or auxiliary is None:  # reading them raised already
        raise NotApplicableError("expected a simulation and auxiliary pictures, got none")
    painted: list[Tensor] = []
    originals: list[Tensor] = []
    pictures: list[int] = []
    fill = ""
    for start in range(0, len(auxiliary), _CHUNK):
        part = auxiliary[start : start + _CHUNK]
        release = simulate(part, generator)
        boxes, fill = read_boxes(release), fill_of(release)
        painted.append(cut(release.data, boxes, side, margin))
        originals.append(cut(part, boxes, side, margin))
        pictures.extend(start + box[0] for box in boxes)
    if not pictures:
        raise NotApplicableError("expected regions in the auxiliary pictures, got none")
    return Examples(torch.cat(painted), torch.cat(originals), fill, torch.tensor(pictures))


def _margins(box: tuple[int, int, int, int, int], margin: float) -> tuple[int, int]:
    _, x0, y0, x1, y1 = box
    return round(margin * (x1 - x0)), round(margin * (y1 - y0))


def _window(images: Tensor, box: tuple[int, int, int, int, int], margin: float) -> Tensor:
    number, x0, y0, x1, y1 = box
    wide, tall = _margins(box, margin)
    height, width = images.shape[-2:]
    rows = torch.arange(y0 - tall, y1 + tall).clamp(0, height - 1)
    columns = torch.arange(x0 - wide, x1 + wide).clamp(0, width - 1)
    return images[number, :, rows][:, :, columns][None]
