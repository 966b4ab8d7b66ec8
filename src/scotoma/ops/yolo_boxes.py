"""YOLOv5's maps to boxes: decoding, and non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scotoma.core.errors import SettingsError
from scotoma.ops.average_precision import Boxes

__all__ = ["decode_maps", "suppress"]

_MOST_CANDIDATES = 30_000


def decode_maps(maps: Sequence[Tensor], anchors: Tensor, strides: Sequence[int]) -> Tensor:
    """Return the boxes of all cells and anchors.

    ``centre = (2 σ(m) - 0.5 + cell) · stride``, ``size = (2 σ(m))² · anchor · stride``.

    Args:
        maps: For each stride ``(B, A, h, w, 5 + K)`` before the sigmoid.
        anchors: ``(len(maps), A, 2)`` widths and heights in units of the stride.
        strides: Pixels from one cell to the next.

    Returns:
        ``(B, N, 5 + K)``: centre x, centre y, width, height in pixels; the chance that there is
        an object; of each class, given that there is.
    """
    found = []
    for cells, sides, stride in zip(maps, anchors, strides, strict=True):
        count, _, height, width, values = cells.shape
        rows = torch.arange(height, device=cells.device, dtype=cells.dtype)
        columns = torch.arange(width, device=cells.device, dtype=cells.dtype)
        places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
        chances = cells.sigmoid()
        centres = (chances[..., 0:2] * 2 - 0.5 + places) * stride
        spans = (chances[..., 2:4] * 2) ** 2 * sides[:, None, None].to(cells) * stride
        boxes = torch.cat([centres, spans, chances[..., 4:]], -1)
        found.append(boxes.reshape(count, -1, values))
    return torch.cat(found, 1)


def suppress(
    decoded: Tensor, *, least_score: float = 0.001, most_overlap: float = 0.6, most: int = 300
) -> list[Boxes]:
    """Return for each picture the boxes that no likelier box of the same class overlaps.

    Args:
        decoded: ``(B, N, 5 + K)`` as :func:`decode_maps` returns it. A box is one detection for
            every class whose score, its chance times the object's, is high enough.
        least_score: Scores above it count.
        most_overlap: Intersection over union from which the less likely box goes.
        most: Boxes kept of one picture.

    Raises:
        SettingsError: Limits outside [0, 1], or ``most`` below 1.
    """
    from torchvision.ops import batched_nms

    if not (0 <= least_score <= 1 and 0 <= most_overlap <= 1 and most >= 1):
        raise SettingsError(
            "expected least_score and most_overlap in [0, 1] and most of at least 1, got "
            f"{least_score}, {most_overlap} and {most}"
        )
    found = []
    for picture in decoded.detach().float():
        scores = picture[:, 4:5] * picture[:, 5:]
        rows, labels = (scores > least_score).nonzero(as_tuple=True)
        chosen = scores[rows, labels]
        best = chosen.argsort(descending=True, stable=True)[:_MOST_CANDIDATES]
        rows, labels, chosen = rows[best], labels[best], chosen[best]
        centres, spans = picture[rows, 0:2], picture[rows, 2:4]
        corners = torch.cat([centres - spans / 2, centres + spans / 2], 1)
        kept = batched_nms(corners, chosen, labels, most_overlap)[:most]
        found.append(
            Boxes(
                corners[kept].double().cpu().numpy(),
                labels[kept].cpu().numpy(),
                chosen[kept].double().cpu().numpy(),
            )
        )
    return found
