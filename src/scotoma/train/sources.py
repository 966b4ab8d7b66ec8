"""Training pictures as batches: whole in memory, or read from files as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scotoma.core.errors import FileError
from scotoma.models.letterbox import GREY
from scotoma.models.preprocessing import Preprocessing
from scotoma.train.augment import augment
from scotoma.train.data import LabelledPictures, list_class_folders, normalize
from scotoma.train.hardware import Share, generator_for, stream_seed

__all__ = ["FileSource", "MemorySource", "Source", "order_of"]

_EVALUATION_BATCH = 250


class Source(Protocol):
    """Labelled pictures that can be asked for batches."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each label."""
        ...

    @property
    def count(self) -> int:
        """How many pictures there are."""
        ...

    def training(
        self, epoch: int, batch_size: int, seed: int, share: Share
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented, normalized pictures and labels of an epoch: this process' share."""
        ...

    def evaluation(self, share: Share) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pictures as the model reads them, each once, and labels."""
        ...


def order_of(count: int, epoch: int, batch_size: int, seed: int, share: Share) -> list[Tensor]:
    """Return the pictures of each of an epoch's batches that fall to this process.

    Args:
        count: Pictures in all; those that do not fill a batch wait for another epoch, unless
            they are all there are.
        epoch: Numbered from 0; each has its own order.
        batch_size: Of all processes together.
        seed: Of the order.
        share: The same order is drawn everywhere and then dealt out.
    """
    order = torch.randperm(count, generator=generator_for(seed, "order", epoch))
    steps = max(1, count // batch_size)
    batches = torch.split(order[: steps * batch_size], batch_size)
    return [batch[share.rank :: share.world] for batch in batches]


class MemorySource:
    """Pictures that fit in memory, mirrored, shifted and erased a batch at a time.

    Args:
        pictures: All of one size.
        preprocessing: Normalizes them.
        shift: Largest random translation, in pixels.
        erase_probability: Chance that a rectangle of a picture is blanked.
    """

    def __init__(
        self,
        pictures: LabelledPictures,
        preprocessing: Preprocessing,
        *,
        shift: int = 0,
        erase_probability: float = 0.0,
    ) -> None:
        self._pictures = pictures
        self._preprocessing = preprocessing
        self._shift = shift
        self._erase_probability = erase_probability
        self.classes = pictures.classes
        self.count = len(pictures.labels)

    def training(
        self, epoch: int, batch_size: int, seed: int, share: Share
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Source`."""
        generator = generator_for(seed, "augment", epoch, share.rank)
        for chosen in order_of(self.count, epoch, batch_size, seed, share):
            images = augment(
                self._pictures.images[chosen],
                shift=self._shift,
                erase_probability=self._erase_probability,
                generator=generator,
            )
            yield normalize(images, self._preprocessing), self._pictures.labels[chosen]

    def evaluation(self, share: Share) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Source`."""
        every = torch.arange(share.rank, self.count, share.world)
        for chosen in torch.split(every, _EVALUATION_BATCH):
            images = self._pictures.images[chosen]
            yield normalize(images, self._preprocessing), self._pictures.labels[chosen]


class FileSource:
    """Pictures of a folder of class folders, read by workers and augmented by timm.

    Args:
        root: Laid out as ``CLASS/NAME.jpg``.
        preprocessing: Size, filter and normalization, at training and later.
        auto_augment: timm's policy, such as ``rand-m9-mstd0.5-inc1``.
        erase_probability: Chance that a rectangle of a picture is filled with noise.
        workers: Processes that read.
        labelled: See :func:`~scotoma.train.data.load_class_folders`.

    Raises:
        FileError: Nothing readable there, or fewer than two classes.
    """

    def __init__(
        self,
        root: Path,
        preprocessing: Preprocessing,
        *,
        auto_augment: str,
        erase_probability: float = 0.0,
        workers: int = 4,
        labelled: bool = True,
    ) -> None:
        self._files, self._labels, self.classes = list_class_folders(root, labelled=labelled)
        self._plain = preprocessing.transform
        self._augmented = _augmented(preprocessing, auto_augment, erase_probability)
        self._workers = workers
        self.count = len(self._files)

    def training(
        self, epoch: int, batch_size: int, seed: int, share: Share
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Source`."""
        batches = order_of(self.count, epoch, batch_size, seed, share)
        return self._load(batches, self._augmented, stream_seed(seed, "files", epoch, share.rank))

    def evaluation(self, share: Share) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Source`."""
        chosen = torch.arange(share.rank, self.count, share.world)
        return self._load(list(torch.split(chosen, _EVALUATION_BATCH)), self._plain, 0)

    def _load(
        self, batches: list[Tensor], transform: Any, seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # The loader hands its generator's seed on to the workers, whose random, numpy and
        # torch generators timm's transforms draw from.
        loader = DataLoader(
            _Files(self._files, self._labels, transform),
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=self._workers,
            generator=torch.Generator().manual_seed(seed),
            pin_memory=torch.cuda.is_available(),
        )
        return iter(loader)


def _augmented(preprocessing: Preprocessing, policy: str, erase_probability: float) -> Any:
    """Return timm's training transform; for a detector's letterbox, its policy and mirroring."""
    if preprocessing.is_letterbox:
        from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
        from torchvision.transforms import Compose, RandomHorizontalFlip

        make = rand_augment_transform if policy.startswith("rand") else auto_augment_transform
        changed = make(policy, {"img_mean": GREY})
        return Compose([RandomHorizontalFlip(), changed, preprocessing.transform])
    from timm.data.transforms_factory import create_transform

    return create_transform(
        input_size=preprocessing.input_size,
        is_training=True,
        auto_augment=policy,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        re_prob=erase_probability,
        re_mode="pixel",
    )


class _Files(Dataset[tuple[Tensor, int]]):
    def __init__(self, files: list[Path], labels: list[int], transform: Any) -> None:
        self._files = files
        self._labels = labels
        self._transform = transform

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self._files[index]
        try:
            with Image.open(path) as picture:
                return self._transform(picture.convert("RGB")), self._labels[index]
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise FileError(f"cannot read {path}: {error}") from error
