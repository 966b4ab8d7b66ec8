"""Values with their negative undone: what the oldest attack on perceptual encryption does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from scotoma.attacks.views import release_blocks, unnormalize
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release

__all__ = ["FeatureReconstruction"]

_MIDDLE = 0.5


@dataclass(frozen=True)
class FeatureReconstruction:
    """Take every value or its negative, whichever is darker (FR).

    A value and its negative become the same, so a cipher that turns single values round shows
    its edges. None of our schemes does: here it is a baseline that papers report.

    Security:
        Undoes negatives and nothing else. Values that move or mix stay moved and mixed.

    Differences from the paper:
        There the leading bit of 8-bit values is cleared; here values are real, and what lies
        outside the range of pictures becomes black.

    Source:
        Chang, Case, Attacks on Image Encryption Schemes for Privacy-Preserving Deep Neural
        Networks, arXiv 2004.13263, 2020.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:  # noqa: ARG002
        """Guess the pictures; see :class:`~scotoma.core.protocols.Attack`.

        Raises:
            NotApplicableError: The release has other than a picture's values.
        """
        channels = release.data.shape[1]
        release_blocks(release)
        if channels != 3:
            raise NotApplicableError(
                f"expected 3 planes whose values are a picture's or their negatives, got {channels}"
            )
        values = unnormalize(release.data, release)
        return _MIDDLE - (values - _MIDDLE).abs()
