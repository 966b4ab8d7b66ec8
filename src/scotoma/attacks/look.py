"""The attack that does nothing: whoever has the release looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Generator, Tensor

from scotoma.attacks.views import plain_size, unnormalize
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["Look"]


@dataclass(frozen=True)
class Look:
    """The release itself as the guess, enlarged where it is smaller than the picture.

    Of a release that protects nothing this is the picture; of any other it says what is
    visible without any effort, and so what an attack must beat.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return the release as pictures; see :class:`~scotoma.core.protocols.Attack`.

        Raises:
            NotApplicableError: It has another number of channels than pictures.
        """
        if release.data.shape[1] != 3:
            raise NotApplicableError(
                f"expected a release of three channels to look at, got {release.data.shape[1]}"
            )
        height, width = plain_size(release)
        data = release.data
        if data.shape[2] < height or data.shape[3] < width:
            data = F.interpolate(data, (height, width), mode="bicubic", align_corners=False)
        return unnormalize(data, release)
