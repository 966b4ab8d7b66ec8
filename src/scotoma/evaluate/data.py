"""Pictures for an evaluation: some are attacked, others are the attacker's own.

::

    all pictures ── seed ──► attacked          read in batches, as they are needed
                         ├─► auxiliary         in memory; none of them is attacked
                         └─► gallery           identities only: one known picture of each

With ``identities`` the attacker's pictures show other people than those attacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scotoma.core.errors import SettingsError
from scotoma.images.picture_sets import PictureSet, open_picture_set
from scotoma.images.read import decode_picture
from scotoma.models.preprocessing import Preprocessing
from scotoma.ops.generators import seeded_generator

__all__ = ["DataSettings", "Pictures", "open_pictures"]

_BATCH = 32


@dataclass(frozen=True)
class DataSettings:
    """Which pictures, and how many.

    Args:
        path: Folder or zip of class or identity folders, a table; see
            :mod:`scotoma.images.picture_sets`.
        pictures: Attacked pictures, at most.
        auxiliary: Pictures of the attacker's own, at most.
        size: Height and width, where no model says; None takes the model's.
        identities: Whether groups are people: then the attacker's own pictures show others, and
            one picture of each attacked person goes into a gallery.

    Raises:
        SettingsError: A number out of range.
    """

    path: Path
    pictures: int = 100
    auxiliary: int = 200
    size: tuple[int, int] | None = None
    identities: bool = False

    def __post_init__(self) -> None:
        if not self.pictures >= 1:
            raise SettingsError(f"expected at least 1 picture, got {self.pictures}")
        if not self.auxiliary >= 0:
            raise SettingsError(f"expected auxiliary of at least 0, got {self.auxiliary}")
        if self.size is not None and not (len(self.size) == 2 and min(self.size) >= 1):
            raise SettingsError(f"expected size [height, width], got {self.size}")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one size, split between owner and attacker.

    Args:
        found: All that there are.
        labels: Of each: its class as the model numbers it, or its identity; -1 where unknown.
        attacked: Places of those attacked.
        auxiliary: Places of the attacker's own.
        gallery: Places of known pictures, one for each identity attacked.
        preprocessing: Size, filter and crop; pictures stay in [0, 1].
    """

    found: PictureSet
    labels: tuple[int, ...]
    attacked: tuple[int, ...]
    auxiliary: tuple[int, ...]
    gallery: tuple[int, ...]
    preprocessing: Preprocessing

    def stream(self, places: Sequence[int] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of ``(B, 3, H, W)`` float32 pictures in [0, 1], and ``(B,)`` labels.

        Args:
            places: Of which pictures; the attacked ones by default.

        Raises:
            FileError: A picture that cannot be read.
        """
        chosen = self.attacked if places is None else places
        for first in range(0, len(chosen), _BATCH):
            part = chosen[first : first + _BATCH]
            images = torch.stack([self._read(*item) for item in self._contents(part)])
            yield images, torch.tensor([self.labels[place] for place in part])

    def load(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return all pictures at ``places`` and their labels, in memory."""
        batches = list(self.stream(places))
        if not batches:
            _, height, width = self.preprocessing.input_size
            return torch.empty(0, 3, height, width), torch.empty(0, dtype=torch.long)
        return torch.cat([images for images, _ in batches]), torch.cat([ids for _, ids in batches])

    def _contents(self, places: Sequence[int]) -> Iterator[tuple[bytes, str]]:
        for place, content in zip(places, self.found.contents(places), strict=True):
            yield content, self.found.entries[place].path

    def _read(self, content: bytes, name: str) -> Tensor:
        picture = decode_picture(content, name=name, keep_profile=True).to_pil()
        return self.preprocessing.transform(picture).clamp(0, 1)


def open_pictures(
    settings: DataSettings,
    preprocessing: Preprocessing | None = None,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Pictures:
    """List pictures and split them.

    Args:
        settings: Which, and how many.
        preprocessing: Of the model that reads them, whose normalization is left out; without
            it ``settings.size`` says how large they are.
        classes: Names of the model's classes, by which folders get their labels.
        seed: Of the split.

    Raises:
        FileError: No pictures there.
        SettingsError: No size, or too few pictures to split.
    """
    found = open_picture_set(settings.path)
    order = torch.randperm(
        len(found.entries), generator=seeded_generator(f"evaluate/{seed}/split".encode())
    ).tolist()
    split = _by_identity if settings.identities else _by_picture
    attacked, auxiliary, gallery = split(found, order, settings)
    if not attacked:
        raise SettingsError(
            f"expected pictures to attack besides {len(auxiliary)} auxiliary ones in "
            f"{settings.path}, got {len(found.entries)} in all; set auxiliary to fewer"
        )
    return Pictures(
        found,
        _number(found, None if settings.identities else classes),
        tuple(attacked),
        tuple(auxiliary),
        tuple(gallery),
        _geometry(settings, preprocessing),
    )


def _by_picture(
    found: PictureSet,  # noqa: ARG001
    order: list[int],
    settings: DataSettings,
) -> tuple[list[int], list[int], list[int]]:
    """Attacked pictures come first, so that their number alone does not move the others."""
    spare = min(settings.auxiliary, len(order) // 2)
    auxiliary = order[len(order) - spare :]
    return order[: min(settings.pictures, len(order) - spare)], auxiliary, []


def _by_identity(
    found: PictureSet, order: list[int], settings: DataSettings
) -> tuple[list[int], list[int], list[int]]:
    """Other people are the attacker's; of each attacked one, one picture is known."""
    people: dict[str, list[int]] = {}
    for place in order:
        people.setdefault(found.entries[place].group, []).append(place)
    if len(people) < 2:
        raise SettingsError(
            f"expected folders of at least 2 identities in {settings.path}, got {len(people)}"
        )
    auxiliary: list[int] = []
    strangers = list(people)[len(people) // 2 :]
    for name in strangers:
        if len(auxiliary) >= settings.auxiliary:
            break
        auxiliary += people.pop(name)
    gallery = [places[0] for places in people.values() if len(places) > 1]
    rest = [place for places in people.values() for place in places[1:]]
    rank = {place: number for number, place in enumerate(order)}
    attacked = sorted(rest, key=rank.__getitem__)[: settings.pictures]
    return attacked, auxiliary[: settings.auxiliary], gallery


def _number(found: PictureSet, classes: Sequence[str] | None) -> tuple[int, ...]:
    """Number each picture's group: as a table or the model does, or by the alphabet."""
    if all(entry.label >= 0 for entry in found.entries):
        return tuple(entry.label for entry in found.entries)
    names = found.groups
    if classes is not None:
        if not set(names) <= set(classes):
            return (-1,) * len(found.entries)  # folders of something else than the model's classes
        names = tuple(classes)
    index = {name: number for number, name in enumerate(names)}
    return tuple(index[entry.group] for entry in found.entries)


def _geometry(settings: DataSettings, preprocessing: Preprocessing | None) -> Preprocessing:
    """Return the preprocessing without normalization."""
    if preprocessing is not None:
        return preprocessing.in_unit_range()
    if settings.size is None:
        raise SettingsError(
            f"expected size [height, width] for {settings.path}, which no model reads, got none"
        )
    return Preprocessing(
        (3, *settings.size), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", crop_pct=1.0
    )
