"""How like the original a guess is, pixel by pixel and window by window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from scotoma.core.errors import MissingExtraError, NotApplicableError
from scotoma.evaluate.metrics.brightness import luma

try:
    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        peak_signal_noise_ratio,
    )
except ImportError as error:
    package = error.name or "torchmetrics"
    raise MissingExtraError("judging guesses", package, "attacks") from error

__all__ = ["LEAST_SIDE", "edge_psnr_db", "ms_ssim", "psnr_db", "sobel_lengths", "ssim"]

LEAST_SIDE = {"ssim": 11, "ms_ssim": 161}
"""Pictures of smaller sides have no such figure, in pixels: the window does not fit."""

_PEAK_GRADIENT = 4.0  # of a Sobel filter on [0, 1]


def psnr_db(guesses: Tensor, originals: Tensor, context: Mapping[str, Any]) -> Tensor:  # noqa: ARG001
    """Return per picture ``10 log10(1 / MSE)``, ``(B,)``; infinite for equal pictures."""
    found: Tensor = peak_signal_noise_ratio(
        guesses.double(), originals.double(), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    return found


def ssim(guesses: Tensor, originals: Tensor, context: Mapping[str, Any]) -> Tensor:  # noqa: ARG001
    """Return per picture the structural similarity, ``(B,)`` in [-1, 1].

    Gaussian windows of 11 pixels and standard deviation 1.5 that lie wholly in the picture;
    the mean over the channels.

    Raises:
        NotApplicableError: A side is shorter than the window.

    Source:
        Wang et al., Image Quality Assessment, IEEE TIP 2004.
    """
    _check_side("ssim", originals)
    pairs = zip(guesses.double().numpy(), originals.double().numpy(), strict=True)
    return torch.tensor([_structural_similarity(*pair) for pair in pairs], dtype=torch.float64)


def ms_ssim(guesses: Tensor, originals: Tensor, context: Mapping[str, Any]) -> Tensor:  # noqa: ARG001
    """Return per picture the multi-scale structural similarity, ``(B,)`` in [0, 1].

    Five scales. A scale at which structures are opposed counts as 0: powers of negative
    numbers are none.

    Raises:
        NotApplicableError: A side is shorter than 161 pixels.

    Differences from the paper:
        Windows at the border see the picture mirrored, as the library has it.

    Source:
        Wang, Simoncelli, Bovik, Multi-Scale Structural Similarity, Asilomar 2003.
    """
    _check_side("ms_ssim", originals)
    found: Tensor = multiscale_structural_similarity_index_measure(
        guesses, originals, data_range=1.0, reduction="none", normalize="relu"
    )
    return found.double()


def edge_psnr_db(guesses: Tensor, originals: Tensor, context: Mapping[str, Any]) -> Tensor:  # noqa: ARG001
    """Return per picture ``10 log10(16 / MSE)`` of the lengths of Sobel gradients, ``(B,)``.

    16 is the square of a Sobel filter's peak, 4, on brightness in [0, 1].

    Raises:
        NotApplicableError: A side is shorter than the filter's 3 pixels.

    Differences from the paper:
        It does not say what happens at the border; we leave out its outermost pixels.

    Source:
        Azizian, Bajić, Privacy-Preserving Feature Coding for Machines, PCS 2022.
    """
    if min(originals.shape[2:]) < 3:
        raise NotApplicableError(
            f"edge_psnr_db: expected sides of at least 3 pixels, got {tuple(originals.shape[2:])}"
        )
    lengths = (sobel_lengths(luma(images)) for images in (guesses, originals))
    error = torch.stack([*lengths]).diff(dim=0)[0].square().mean((1, 2))
    return 10 * torch.log10(_PEAK_GRADIENT**2 / error)


def sobel_lengths(brightness: Tensor) -> Tensor:
    """Return ``(B, H - 2, W - 2)`` lengths of the Sobel gradients of ``(B, H, W)``."""
    smooth, slope = brightness.new_tensor([1.0, 2, 1]), brightness.new_tensor([-1.0, 0, 1])
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])
    gradients = F.conv2d(brightness[:, None], kernels[:, None])
    return gradients.square().sum(1).sqrt()


def _structural_similarity(guess: NDArray[np.float64], original: NDArray[np.float64]) -> float:
    found = structural_similarity(  # type: ignore[no-untyped-call]
        guess,
        original,
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(found)


def _check_side(name: str, images: Tensor) -> None:
    least = LEAST_SIDE[name]
    if min(images.shape[2:]) < least:
        raise NotApplicableError(
            f"{name}: expected sides of at least {least} pixels, got {tuple(images.shape[2:])}"
        )
