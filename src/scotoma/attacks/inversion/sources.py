"""Where a learned attack gets releases with their originals from, by what it is granted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Generator, Tensor

from scotoma.attacks.inversion.training import step_generator
from scotoma.core.errors import ImageError, NotApplicableError, NotGrantedError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["Source", "open_source", "split"]

_KEPT_SHARE = 0.1
_MOST_KEPT = 256
_KEPT_KEYS = 8

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Source:
    """Releases with their originals.

    Args:
        batch: From a generator and a count to inputs ``(B, C, h, w)`` and originals.
        kept: Inputs and originals that no batch holds.
        example: A release, for its metadata.
        sample: ``(N, C, h, w)`` inputs to scale by.
        originals: ``(N, 3, H, W)`` pictures that batches are made of.
    """

    batch: Callable[[Generator, int], tuple[Tensor, Tensor]]
    kept: tuple[Tensor, Tensor]
    example: Release
    sample: Tensor
    originals: Tensor


def open_source(knowledge: Knowledge, way: str, *, seed: int, most_sampled: int) -> Source:
    """Return where batches come from.

    Args:
        knowledge: What the threat model grants.
        way: ``"pairs"``: known pictures with their releases under the attacked key;
            ``"protect"``: auxiliary pictures through the oracle of that key; ``"simulate"``:
            auxiliary pictures under fresh keys, one for every batch.
        seed: Of what is kept aside, and of its keys.
        most_sampled: Numbers in the sample to scale by.

    Raises:
        NotGrantedError: The way is not granted.
        NotApplicableError: There are fewer than two pictures.
        ImageError: Pairs of different numbers.
    """
    if way == "pairs":
        pictures, release = _granted(knowledge.pairs)
        return _pairs(pictures, release, seed, most_sampled)
    auxiliary = _granted(knowledge.auxiliary)
    if way == "protect":
        oracle = _granted(knowledge.protect)

        def ask(pictures: Tensor, generator: Generator) -> Release:  # noqa: ARG001
            return oracle(pictures)

        return _fresh(auxiliary, ask, seed, most_sampled)
    return _fresh(auxiliary, _granted(knowledge.simulate), seed, most_sampled)


def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return places of pictures to learn from, and of those to keep aside: a tenth.

    Raises:
        NotApplicableError: There are fewer than two pictures.
    """
    if count < 2:
        raise NotApplicableError(
            "expected at least 2 pictures, to learn from some and judge by others, "
            f"got {count}; grant more"
        )
    order = torch.randperm(count, generator=step_generator(seed, "split"))
    aside = min(_MOST_KEPT, max(1, round(_KEPT_SHARE * count)))
    return order[aside:], order[:aside]


def _granted(value: T | None) -> T:
    if value is None:  # reading it raised already
        raise NotGrantedError("expected what the attack needs, got nothing")
    return value


def _pairs(pictures: Tensor, release: Release, seed: int, most_sampled: int) -> Source:
    if len(pictures) != len(release.data):
        raise ImageError(
            f"expected a release of every picture, got {len(pictures)} pictures and "
            f"{len(release.data)} releases"
        )
    learned, kept = split(len(pictures), seed)
    data = release.data

    def batch(generator: Generator, count: int) -> tuple[Tensor, Tensor]:
        chosen = learned[torch.randint(len(learned), (count,), generator=generator)]
        return data[chosen], pictures[chosen]

    sample = data[learned[: _count(data, most_sampled)]]
    return Source(batch, (data[kept], pictures[kept]), release, sample, pictures[learned])


def _fresh(
    pictures: Tensor,
    make: Callable[[Tensor, Generator], Release],
    seed: int,
    most_sampled: int,
) -> Source:
    learned, kept = (pictures[chosen] for chosen in split(len(pictures), seed))
    keys = min(_KEPT_KEYS, len(kept))
    parts = [
        make(part, step_generator(seed, "kept", number))
        for number, part in enumerate(kept.tensor_split(keys))
    ]
    example = parts[0]
    few = learned[: _count(example.data, most_sampled)]
    sample = make(few, step_generator(seed, "sample")).data

    def batch(generator: Generator, count: int) -> tuple[Tensor, Tensor]:
        chosen = learned[torch.randint(len(learned), (count,), generator=generator)]
        mirrored = torch.rand(count, generator=generator) < 0.5
        chosen = torch.where(mirrored[:, None, None, None], chosen.flip(-1), chosen)
        return make(chosen, generator).data, chosen

    inputs = torch.cat([part.data for part in parts])
    return Source(batch, (inputs, kept), example, sample, learned)


def _count(data: Tensor, most: int) -> int:
    return max(1, most // data[0].numel())
