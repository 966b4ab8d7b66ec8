"""What blocks of natural pictures are like: a model with four numbers, known to everyone.

The power of natural pictures falls with the square of the spatial frequency, and brightness
varies more than colour. In the cosine transform of a block, with brightness and two differences
of colour for red, green and blue, the coefficient of the frequencies ``(u, v)`` has the variance

    s / (w^2 + (0.63 / M)^2),   w = π · sqrt(u² + v²) / M,   s = 1, 0.11, 0.024

in units of a pixel's variance. The constants were fitted by eye to 300 photographs and blocks of
4, 8 and 16 pixels. They need not be exact: a scheme that divides by the deviations is invertible
with any of them.

Source:
    Field, Relations between the statistics of natural images and the response properties of
    cortical cells, Journal of the Optical Society of America A 4(12), 1987.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["block_transform", "natural_deviations"]

_SHARES = (1.0, 0.11, 0.024)
_COARSEST = 0.63
_LEAST = 0.1
_COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))


def block_transform(channels: int, block: int) -> Tensor:
    """Return the orthogonal map from a block to its colour and cosine coefficients.

    Args:
        channels: Colour channels; other numbers than three are not mixed.
        block: Side ``M``.

    Returns:
        ``(C*M*M, C*M*M)`` float64; rows count (colour, vertical, horizontal frequency).
    """
    places = torch.arange(block, dtype=torch.float64)
    cosines = torch.cos(math.pi * torch.outer(places, 2 * places + 1) / (2 * block))
    cosines /= cosines.norm(dim=1, keepdim=True)
    colours = torch.eye(channels, dtype=torch.float64)
    if channels == len(_COLOURS):
        colours = torch.tensor(_COLOURS, dtype=torch.float64)
        colours /= colours.norm(dim=1, keepdim=True)
    return torch.kron(colours, torch.kron(cosines, cosines))


def natural_deviations(channels: int, block: int) -> Tensor:
    """Return the standard deviation of each coefficient of :func:`block_transform`.

    Args:
        channels: Colour channels; other numbers than three count as brightness all.
        block: Side ``M``.

    Returns:
        ``(C*M*M,)`` float64, for pixels of variance about 1; at least 0.1, so that the largest
        is not many times the smallest.
    """
    places = torch.arange(block, dtype=torch.float64)
    squares = (math.pi / block) ** 2 * (places[:, None] ** 2 + places**2)
    power = 1 / (squares + (_COARSEST / block) ** 2)
    shares = _SHARES if channels == len(_SHARES) else (1.0,) * channels
    return torch.cat([(share * power).flatten() for share in shares]).sqrt().clamp(min=_LEAST)
