"""What statistics of releases give away: attacks win where they should, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.scenes import block_brightness, encrypt, make_scenes, pearson
from torch import Generator, Tensor

from scotoma.attacks.registry import ENTRIES, attacks
from scotoma.attacks.statistics.classes import from_classes, to_classes
from scotoma.attacks.statistics.minimum_difference import least_difference_order
from scotoma.attacks.statistics.moments import settle_signs
from scotoma.attacks.views import brightness_guess
from scotoma.core.errors import NotApplicableError
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.blocks import from_blocks, map_vectors, to_blocks

NAMES = [name for name, entry in ENTRIES.items() if entry.home.startswith("statistics.")]


def run(name: str, release: Release, **settings: object) -> Tensor:
    """Return candidates ``(K, B, 3, H, W)``."""
    guesses = attacks.get(name)(**settings).run(
        release, Knowledge(), generator=Generator().manual_seed(0)
    )
    return guesses if guesses.ndim == 5 else guesses[None]


def best(guesses: Tensor, images: Tensor, block: int) -> float:
    truth = block_brightness(images, block)
    return max(pearson(block_brightness(one, block), truth) for one in guesses)


def turned(
    images: Tensor, block: int, period: tuple[int, int], *, white: bool = True, noise: int = 0
) -> Release:
    """Return whitened blocks, noise entries added, rotated by a map for each class."""
    blocks = to_blocks(images.double(), block)
    flat = blocks.transpose(0, 1).flatten(1)
    blocks = blocks - flat.mean(1)[:, None, None]
    if white:
        values, axes = torch.linalg.eigh(torch.cov(flat))
        whitening = axes / values.clamp(min=1e-4 * float(values[-1])).sqrt() @ axes.T
        blocks = torch.einsum("ij,bjhw->bihw", whitening, blocks)
    generator = Generator().manual_seed(5)
    count, size, rows, columns = blocks.shape
    extra = torch.randn(count, noise, rows, columns, generator=generator).double()
    blocks = torch.cat([blocks, extra], 1)
    maps = torch.randn(*period, size + noise, size + noise, generator=generator).double()
    data = from_blocks(map_vectors(blocks, torch.linalg.qr(maps).Q), block).float()
    settings = {"block": block, **({} if period == (1, 1) else {"period": list(period)})}
    return Release(
        data,
        {"scheme": "test", "settings": settings, "input_size": [3, *images.shape[2:]]},
    )


@pytest.mark.parametrize("name", NAMES)
def test_guesses_are_pictures_and_repeat(name: str) -> None:
    images = make_scenes(6, 48)
    release = encrypt(images, "orthogonal", 4)
    first, again = run(name, release), run(name, release)
    assert first.shape[1:] == images.shape
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", NAMES)
def test_noise_gives_nothing(name: str) -> None:
    images = make_scenes(6, 64)
    noise = torch.randn(images.shape, generator=Generator().manual_seed(3))
    metadata = encrypt(images, "orthogonal", 4).metadata
    guesses = run(name, Release(noise, metadata))
    assert best(guesses, images, 4) < 0.2


def test_lengths_are_a_thumbnail_whatever_the_rotations_are() -> None:
    images = make_scenes(3)
    for scheme in ("orthogonal", "orthogonal-per-block"):
        release = encrypt(images, scheme, 4)
        assert best(run("norm-thumbnail", release), images, 4) > 0.95
    assert best(run("norm-thumbnail", turned(images, 4, (1, 1))), images, 4) < 0.6


def test_one_rotated_picture_is_rebuilt_with_its_details() -> None:
    images = make_scenes(1, 128)
    release = encrypt(images, "orthogonal", 8)
    guess = run("pca", release)[0]
    smooth = brightness_guess(block_brightness(images, 8), (128, 128))
    details, kept = images.mean(1), pearson(guess.mean(1), images.mean(1))
    assert kept > 0.85
    assert kept > pearson(smooth.mean(1), details)  # more than any thumbnail of blocks could tell


def test_matching_moments_beats_the_first_component_alone() -> None:
    images = make_scenes(2, 128)
    release = encrypt(images, "orthogonal", 8)
    many, one = (run("pca", release, count=count)[0] for count in (32, 1))
    truth = images.mean(1)
    assert pearson(many.mean(1), truth) > pearson(one.mean(1), truth) + 0.02


@pytest.mark.parametrize("name", ["spatial-lag", "lag-ica"])
def test_smoothness_sees_through_whitening_which_components_do_not(name: str) -> None:
    images = make_scenes(12)
    release = turned(images, 4, (1, 1))
    assert best(run(name, release), images, 4) > 0.8
    assert best(run("pca", release), images, 4) < 0.5
    assert best(run(name, turned(images, 4, (24, 24))), images, 4) < 0.3


@pytest.mark.parametrize("block", [4, 8])
def test_moved_values_come_back_in_their_order(block: int) -> None:
    images = make_scenes(4, 128)
    release = encrypt(images, "permute", block)
    guesses = run("mda", release)
    truth = images.mean(1)
    assert len(guesses) == 6
    assert pearson(guesses[0].mean(1), truth) > 0.999
    assert (
        max(pearson(run("pca", release)[0].mean(1), truth), pearson(release.data.mean(1), truth))
        < 0.995
    )
    right = max(float(((guess - images).abs() < 1e-6).double().mean()) for guess in guesses)
    assert right > 0.9  # value by value, colours included
    rotated = run("mda", encrypt(images, "orthogonal", block))
    assert max(pearson(guess.mean(1), truth) for guess in rotated) < 0.9


def test_an_order_needs_one_map_for_all_blocks() -> None:
    with pytest.raises(NotApplicableError, match="changed places alike"):
        run("mda", turned(make_scenes(2, 48), 4, (2, 2)))
    with pytest.raises(NotApplicableError, match="changed places alike"):
        run("mda", turned(make_scenes(2, 48), 4, (1, 1), noise=16))


def test_least_differences_are_found_among_all_orders() -> None:
    near = torch.rand(2, 6, 6, generator=Generator().manual_seed(0)).double()
    near[0] = near[0] + near[0].T
    hidden = torch.tensor([3, 0, 5, 1, 4, 2])
    differences = (2 - near)[:, hidden.argsort()][:, :, hidden.argsort()]
    found = least_difference_order(differences, near, rounds=30)
    assert torch.equal(found, hidden)


def test_negatives_of_single_values_are_undone() -> None:
    images = make_scenes(3, 96)
    turn = torch.rand(images.shape[1:], generator=Generator().manual_seed(4)) < 0.5
    settings = {"scheme": "test", "settings": {"block": 4}, "input_size": [3, 96, 96]}
    release = Release(torch.where(turn, 1 - images, images), settings)
    edges = steps(images)
    assert pearson(steps(run("fr", release)[0]), edges) > 0.6
    assert pearson(steps(release.data), edges) < 0.2


def steps(images: Tensor) -> Tensor:
    """Return how much each pixel differs from the one beside it."""
    return (images[..., 1:] - images[..., :-1]).abs().mean(1)


def test_a_field_is_found_though_every_position_has_its_own_map() -> None:
    images = make_scenes(80, 48)
    release = turned(images, 4, (12, 12))
    found = best(run("position-field", release), images, 4)
    assert found > 0.4
    assert found > best(run("spatial-lag", release), images, 4) + 0.2
    few = best(run("position-field", turned(images[:8], 4, (12, 12))), images[:8], 4)
    assert few < found


def test_a_field_needs_several_pictures() -> None:
    with pytest.raises(NotApplicableError, match="4 pictures or more"):
        run("position-field", encrypt(make_scenes(2, 48), "orthogonal", 4))


def test_blocks_are_expected() -> None:
    anonymized = Release(
        torch.rand(4, 3, 32, 32), {"scheme": "anonymize", "settings": {"fill": "blur"}}
    )
    for name in NAMES:
        with pytest.raises(NotApplicableError, match="encrypted blocks"):
            run(name, anonymized)


@pytest.mark.parametrize("period", [(1, 1), (2, 3), (4, 5)])
def test_classes_come_back_as_they_went(period: tuple[int, int]) -> None:
    grid = torch.randn(2, 3, 4, 5, generator=Generator().manual_seed(0))
    again = from_classes(to_classes(grid, period), period, (2, 4, 5))
    assert torch.equal(again, grid)
    assert torch.equal(to_classes(grid, (4, 5))[7, :, :], grid[:, :, 1, 2])


def test_signs_are_settled_against_each_other() -> None:
    generator = Generator().manual_seed(0)
    signs = torch.randint(2, (30,), generator=generator).double() * 2 - 1
    noise = torch.randn(30, 30, generator=generator).double()
    found = settle_signs(torch.outer(signs, signs) + noise)
    assert abs(float(found @ signs)) == 30


def test_a_thumbnail_keeps_the_means_of_blocks() -> None:
    thumbnail = block_brightness(make_scenes(3, 48), 4)
    guess = brightness_guess(thumbnail, (48, 48))
    assert pearson(block_brightness(guess, 4), thumbnail) > 0.99
    assert guess.shape == (3, 3, 48, 48)
    assert guess.unique().numel() > 3 * 12 * 12  # it is interpolated, not made of squares


@pytest.fixture(scope="module")
def photographs(shared: Path) -> Tensor:
    files = sorted((shared / "data/imagenet/val").glob("*.jpg"))[:12]
    pixels = [np.array(Image.open(file).convert("RGB").crop((1, 1, 225, 225))) for file in files]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.shared
@pytest.mark.parametrize("block", [4, 8])
def test_lengths_of_photographs(photographs: Tensor, block: int) -> None:
    release = encrypt(photographs, "orthogonal", block)
    assert best(run("norm-thumbnail", release), photographs, block) >= 0.98


@pytest.mark.shared
@pytest.mark.parametrize(("block", "mean"), [(4, 0.95), (8, 0.9), (16, 0.81)])
def test_two_photographs_are_enough(photographs: Tensor, block: int, mean: float) -> None:
    found = []
    for first in range(0, len(photographs), 2):
        pair = photographs[first : first + 2]
        guess = run("pca", encrypt(pair, "orthogonal", block))[0]
        found.append(pearson(guess.mean(1), pair.mean(1)))
    assert sum(found) / len(found) >= mean
