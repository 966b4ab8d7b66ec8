"""Likeness of releases stands for likeness of pictures: a guess is a mean of the known ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Generator, Tensor

from scotoma.attacks.algebra.linear import fit_linear
from scotoma.attacks.views import plain_size
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["KnownLikeness"]

_FEW = 3
_WIDTHS = (0.05, 0.2, 0.5, 1.0, 4.0, 100.0)
_CUT = 1e-10


@dataclass(frozen=True)
class KnownLikeness:
    """Kernel ridge regression: weigh known pictures by how their releases resemble the asked one.

    No structure of the cipher is used, only products of whole releases under one key, which any
    rotation of the whole picture keeps. How fast likeness fades and how strong the ridge is,
    the pairs decide, each predicted from all others.

    Security:
        Finds copies and the same scene among known pictures. Fresh noise drowns the products.

    Source:
        Saunders, Gammerman, Vovk, Ridge Regression Learning Algorithm in Dual Variables,
        ICML 1998.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`.

        Raises:
            NotApplicableError: Fewer than three pairs: likeness has nothing to be compared with.
        """
        pictures, made = cast("tuple[Tensor, Release]", knowledge.pairs)
        if len(pictures) < _FEW:
            raise NotApplicableError(f"expected {_FEW} known pairs or more, got {len(pictures)}")
        known, asked = (_directions(part.data) for part in (made, release))
        apart, far = 1 - known @ known.T, 1 - asked @ known.T
        usual = float(apart.sum()) / (len(known) * (len(known) - 1))
        wanted = pictures.double().flatten(1)[None]
        best, least = wanted.mean(1).expand(len(asked), -1), float("inf")
        for width in _WIDTHS:
            scale = max(width * usual, 1e-12)
            kernel, answers = torch.exp(-apart / scale), torch.exp(-far / scale)
            values, vectors = torch.linalg.eigh(kernel)
            kept = values > _CUT * values[-1]
            axes = vectors[:, kept] / values[kept].sqrt()
            guess, error = fit_linear((kernel @ axes)[None], wanted, (answers @ axes)[None])
            if error < least:
                best, least = guess[0], error
        return best.reshape(len(asked), 3, *plain_size(release)).clamp(0, 1).float()


def _directions(data: Tensor) -> Tensor:
    """Return ``(N, E)`` releases of length one."""
    flat = data.double().flatten(1)
    directions: Tensor = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-300)
    return directions
