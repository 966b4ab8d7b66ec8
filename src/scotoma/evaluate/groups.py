"""Pictures in groups of one key, whatever batches they come in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scotoma.core.errors import ImageError
from scotoma.core.protocols import Release

__all__ = ["Group", "check_pictures", "drop_untouched", "regroup"]


@dataclass(frozen=True, eq=False)
class Group:
    """Pictures that share a key.

    Args:
        images: ``(B, 3, H, W)`` float32 in [0, 1].
        labels: ``(B,)`` int64, -1 where unknown.
    """

    images: Tensor
    labels: Tensor


def regroup(
    images: Tensor | Iterable[Tensor | tuple[Tensor, Tensor]], size: int
) -> Iterator[Group]:
    """Yield groups of ``size`` pictures, the last one of what is left.

    Args:
        images: Pictures, or batches of pictures with or without labels; no more than one group
            and one batch are held at a time.
        size: At least 1.

    Raises:
        ImageError: Pictures of another shape, type or range.
    """
    waiting: list[Group] = []
    count = 0
    for batch in (images,) if isinstance(images, Tensor) else images:
        found, labels = batch if isinstance(batch, tuple) else (batch, None)
        check_pictures(found)
        if labels is None:
            labels = torch.full((len(found),), -1)
        waiting.append(Group(found, labels))
        count += len(found)
        while count >= size:
            whole = _join(waiting)
            yield Group(whole.images[:size], whole.labels[:size])
            waiting = [Group(whole.images[size:], whole.labels[size:])]
            count -= size
    if count:
        yield _join(waiting)


def drop_untouched(group: Group, release: Release) -> tuple[Tensor, Tensor, Release]:
    """Return pictures, labels and release without those in which nothing was hidden."""
    regions = release.metadata.get("regions")
    if regions is None or all(regions):
        return group.images, group.labels, release
    kept = torch.tensor([place for place, boxes in enumerate(regions) if boxes], dtype=torch.long)
    metadata = {**release.metadata, "regions": [boxes for boxes in regions if boxes]}
    return group.images[kept], group.labels[kept], Release(release.data[kept], metadata)


def _join(groups: list[Group]) -> Group:
    if len(groups) == 1:
        return groups[0]
    return Group(
        torch.cat([group.images for group in groups]), torch.cat([group.labels for group in groups])
    )


def check_pictures(images: Tensor) -> None:
    """Refuse what is no batch of pictures.

    Raises:
        ImageError: Another shape than ``(B, 3, H, W)``, another type than float32, or values
            outside [0, 1].
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ImageError(f"expected pictures (B, 3, H, W), got {got}")
    if images.dtype != torch.float32 or not bool(((images >= 0) & (images <= 1)).all()):
        raise ImageError(
            f"expected float32 pictures in [0, 1], before normalization, got {images.dtype} from "
            f"{float(images.min()):.3g} to {float(images.max()):.3g}"
        )
