"""Labelled pictures on which a network is compressed, as it reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from scotoma.core.errors import FileError
from scotoma.images.picture_sets import PictureSet, open_picture_set

if TYPE_CHECKING:
    from scotoma.models.classifier import Classifier
    from scotoma.models.preprocessing import Preprocessing

__all__ = ["Pictures", "count_right", "read_pictures"]

_BATCH = 250


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one size with their labels.

    Args:
        images: ``(N, 3, H, W)`` uint8, resized and cropped as the network reads them.
        labels: ``(N,)`` int64, the logit that should be the largest.
        preprocessing: Normalizes them.
        are_labelled: Whether labels are from the data; else they are the network's decisions.
    """

    images: Tensor
    labels: Tensor
    preprocessing: Preprocessing
    are_labelled: bool

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, start: int, stop: int | None = None) -> Pictures:
        """Return a part."""
        part = slice(start, stop)
        return Pictures(self.images[part], self.labels[part], self.preprocessing, self.are_labelled)

    def batches(self, size: int = _BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalized pictures and labels, each once."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.normalized(self.images[part]), self.labels[part]

    def normalized(self, images: Tensor) -> Tensor:
        """Return ``(B, 3, H, W)`` uint8 pictures as the network reads them."""
        mean = torch.tensor(self.preprocessing.mean).view(3, 1, 1)
        std = torch.tensor(self.preprocessing.std).view(3, 1, 1)
        scaled = (images.float() / 255 - mean) / std
        return scaled.contiguous(memory_format=torch.channels_last)


def read_pictures(
    source: Path,
    classifier: Classifier,
    *,
    seed: int,
    most: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """Read a set's pictures in a seeded order.

    Labels are those of a table; or of class folders, where there are as many as the classifier
    has classes (by name where the names are the same, else by the alphabet); or else what the
    classifier itself decides.

    Args:
        source: Folder, ``.zip`` or ``.csv``, see :mod:`scotoma.images.picture_sets`.
        classifier: Says how pictures are read.
        seed: Of the order.
        most: Pictures that are read; None for all.
        on_progress: Called with (pictures read, pictures in all) now and then.

    Raises:
        FileError: Nothing readable there.
    """
    listed = open_picture_set(source)
    order = torch.randperm(len(listed.entries), generator=torch.Generator().manual_seed(seed))
    places = order[:most].tolist()
    preprocessing = classifier.preprocessing
    _, height, width = preprocessing.input_size
    images = torch.empty(len(places), 3, height, width, dtype=torch.uint8)
    # The evaluation transform up to, but without, scaling and normalization.
    geometry = getattr(preprocessing.transform, "transforms", ())[:-2]
    for number, content in enumerate(listed.contents(places)):
        try:
            picture = Image.open(BytesIO(content)).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            name = listed.entries[places[number]].path
            raise FileError(f"cannot read {name} in {source}: {error}") from error
        for step in geometry:
            picture = step(picture)
        images[number] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        if on_progress and (number % 100 == 99 or number + 1 == len(places)):
            on_progress(number + 1, len(places))
    labels = _labels(listed, places, classifier)
    if labels is not None:
        return Pictures(images, labels, preprocessing, are_labelled=True)
    unlabelled = Pictures(images, torch.zeros(len(places)).long(), preprocessing, False)
    with torch.no_grad():
        decided = [classifier.logits(batch).argmax(1) for batch, _ in unlabelled.batches()]
    return Pictures(images, torch.cat(decided), preprocessing, are_labelled=False)


def count_right(network: nn.Module, pictures: Pictures) -> int:
    """Return of how many pictures the largest logit is the label's."""
    with torch.no_grad():
        return sum(
            int((network(images).argmax(1) == labels).sum())
            for images, labels in pictures.batches()
        )


def _labels(listed: PictureSet, places: list[int], classifier: Classifier) -> Tensor | None:
    entries = [listed.entries[place] for place in places]
    _, height, width = classifier.preprocessing.input_size
    classes = classifier.logits(torch.zeros(1, 3, height, width)).shape[1]
    if all(0 <= entry.label < classes for entry in entries):
        return torch.tensor([entry.label for entry in entries])
    names: tuple[str, ...] = listed.groups
    if classifier.classes is not None and set(names) <= set(classifier.classes):
        names = classifier.classes
    if "" in names or len(names) != classes:
        return None
    index = {name: number for number, name in enumerate(names)}
    return torch.tensor([index[entry.group] for entry in entries])
