"""``hardened`` holds where it claims to, against attacks that are shown to work elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.encryption import KEY
from torch import Tensor

from scotoma.ops.blocks import to_blocks
from scotoma.ops.generators import seeded_generator
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

BLOCK = 4
COUNT, SIDE = 40, 64
HELD = 0.2


def _natural(count: int, side: int, seed: int = 0) -> Tensor:
    """Return ``(count, 3, side, side)`` normalized pictures of natural power, with borders."""
    random = np.random.default_rng(seed)
    across = np.fft.fftfreq(side)
    frequency = np.hypot(across[:, None], across)
    frequency[0, 0] = 1 / side
    shares = np.array([1.0, 0.3, 0.15])[None, :, None, None]
    layers = []
    for _ in range(2):
        grain = np.fft.fft2(random.normal(size=(count, 3, side, side)))
        layers.append(np.fft.ifft2(grain / frequency**1.2).real * shares)
    # Where one surface ends another begins, as things lie before each other.
    pictures = np.where(layers[0][:, :1] > 0, layers[0], layers[1])
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    pixels = np.einsum("kc,bkhw->bchw", colours, pictures)
    return torch.from_numpy(pixels / pixels.std()).float()


def _release(scheme: str, images: Tensor) -> Tensor:
    protection = open_protection(EncryptSettings(scheme, BLOCK))
    generator = seeded_generator(b"threats") if protection.fresh else None
    return protection.protect(images, KEY, generator=generator).data


def _brightness(images: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(images.double().mean(1), BLOCK)


def _within(guess: Tensor, truth: Tensor) -> float:
    """Return the mean over pictures of the correlation within a picture, either sign."""
    pairs = zip(guess.flatten(1), truth.flatten(1), strict=True)
    found = [torch.corrcoef(torch.stack(pair))[0, 1].nan_to_num(0) for pair in pairs]
    return abs(float(torch.stack(found).mean()))


def _smoothest(data: Tensor, count: int = 8) -> Tensor:
    """Return ``(count, B, h, w)``: directions that neighbours share most, after whitening."""
    blocks = to_blocks(data.double(), BLOCK).permute(0, 2, 3, 1)
    vectors = blocks.reshape(-1, blocks.shape[-1])
    values, axes = torch.linalg.eigh(torch.cov(vectors.T))
    kept = values > 1e-9 * values.max()
    white = (blocks - vectors.mean(0)) @ (axes[:, kept] / values[kept].sqrt())
    lag = sum(
        torch.einsum("bhwi,bhwj->ij", white.roll(1, axis), white)
        + torch.einsum("bhwi,bhwj->ij", white, white.roll(1, axis))
        for axis in (1, 2)
    )
    return (white @ torch.linalg.eigh(lag).eigenvectors.flip(1)[:, :count]).permute(3, 0, 1, 2)


def _read_by_pairs(scheme: str, side: int, known: int) -> tuple[float, float]:
    """Return how well ridge regression on known pairs reads 60 others, and their mean does."""
    images = _natural(known + 60, side)
    data, truth = _release(scheme, images).flatten(1).double(), _brightness(images)
    shown, hidden = truth[:known].flatten(1), truth[known:]
    mean = shown.mean(0)
    inner = data[:known] @ data[:known].T / data.shape[1]
    outer = data[known:] @ data[:known].T / data.shape[1]
    scores = []
    for ridge in (1e-4, 1e-2, 1.0):
        weights = torch.linalg.solve(inner + ridge * torch.eye(known), shown - mean)
        scores.append(_within((mean + outer @ weights).view_as(hidden), hidden))
    return max(scores), _within(mean.expand(60, -1).reshape(hidden.shape), hidden)


def test_smoothness_shows_what_orthogonal_maps_hide_and_not_what_is_spread() -> None:
    images = _natural(COUNT, SIDE)
    truth = _brightness(images)
    broken, held = (
        max(_within(one, truth) for one in _smoothest(_release(scheme, images)))
        for scheme in ("orthogonal", "hardened")
    )
    assert broken > 0.7
    assert held < HELD


def test_variances_show_what_orthogonal_maps_hide_and_not_what_is_spread() -> None:
    images = _natural(COUNT, SIDE)
    truth = _brightness(images)
    scores = {}
    for scheme in ("orthogonal", "hardened"):
        blocks = to_blocks(_release(scheme, images).double(), BLOCK)
        axes = torch.linalg.eigh(torch.cov(blocks.transpose(0, 1).flatten(1))).eigenvectors
        found = torch.einsum("bdhw,dk->kbhw", blocks, axes)
        scores[scheme] = max(_within(one, truth) for one in found)
    assert scores["orthogonal"] > 0.9
    assert scores["hardened"] < HELD


def test_lengths_say_nothing_of_contrast() -> None:
    images = _natural(COUNT, SIDE)
    contrast = to_blocks(images, BLOCK).norm(dim=1).double()
    scores = [
        _within(to_blocks(_release(scheme, images), BLOCK).norm(dim=1).double(), contrast)
        for scheme in ("orthogonal", "hardened")
    ]
    assert scores[0] > 0.99
    assert scores[1] < HELD / 2


def test_what_releases_have_in_common_tells_not_which_are_alike() -> None:
    """The products of all pairs are all that a rotation of everything leaves to look at."""
    images = _natural(COUNT, SIDE)
    alike = torch.corrcoef(_brightness(images).flatten(1))
    upper = torch.ones_like(alike).triu(1).bool()
    scores = []
    for scheme in ("orthogonal", "hardened"):
        seen = torch.corrcoef(_release(scheme, images).double().flatten(1))
        scores.append(float(torch.corrcoef(torch.stack([alike[upper], seen[upper]]))[0, 1]))
    assert scores[0] > 0.6
    assert abs(scores[1]) < HELD


@pytest.mark.parametrize("known", [1, 10, 100])
def test_known_pairs_below_the_wall_teach_no_more_than_their_mean(known: int) -> None:
    read, mean = _read_by_pairs("hardened", 32, known)
    assert read < mean + 0.1


def test_known_pairs_beyond_the_wall_read_on() -> None:
    """What is found nowhere below is found here: the attack is no straw man, the wall is real."""
    assert _read_by_pairs("hardened", 16, 1000)[0] > 0.4  # 256 noise dimensions
    assert _read_by_pairs("orthogonal", 32, 100)[0] > 0.5
