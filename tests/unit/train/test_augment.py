from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from scotoma.train.augment import augment


def pictures(count: int = 40, height: int = 12, width: int = 10) -> Tensor:
    generator = Generator().manual_seed(1)
    # Below 127, the grey of erased rectangles.
    return torch.randint(0, 120, (count, 3, height, width), generator=generator).to(torch.uint8)


def run(images: Tensor, shift: int = 0, erase: float = 0.0, seed: int = 0) -> Tensor:
    generator = Generator().manual_seed(seed)
    return augment(images, shift=shift, erase_probability=erase, generator=generator)


def test_keeps_shape_type_and_the_originals() -> None:
    images = pictures()
    before = images.clone()
    made = run(images, shift=3, erase=0.5)
    assert (made.shape, made.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)


def test_same_seed_same_pictures() -> None:
    images = pictures()
    assert torch.equal(run(images, 3, 0.5, seed=4), run(images, 3, 0.5, seed=4))
    assert not torch.equal(run(images, 3, 0.5, seed=4), run(images, 3, 0.5, seed=5))


def test_without_shift_and_erasing_a_picture_is_itself_or_its_mirror_image() -> None:
    images = pictures()
    made = run(images)
    same = (made == images).flatten(1).all(1)
    mirrored = (made == images.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 8 <= int(mirrored.sum()) <= 32


def test_a_shift_is_a_window_of_the_reflected_picture() -> None:
    images = pictures()
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    seen = set()
    for picture, made in zip(padded, run(images, shift=2), strict=True):
        found = [
            (row, column, flip)
            for row in range(5)
            for column in range(5)
            for flip in (False, True)
            if torch.equal(
                picture[:, row : row + 12, column : column + 10].flip(2 if flip else ()), made
            )
        ]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 15


def test_erased_pixels_are_one_grey_rectangle() -> None:
    images = pictures(height=24, width=20)
    made = run(images, erase=1.0)
    for erased in (made == 127).all(1):
        rows, columns = erased.any(1), erased.any(0)
        assert torch.equal(erased, rows[:, None] & columns[None])
        for span in (rows, columns):
            length = int(span.sum())
            assert length >= 1
            assert bool(span[int(span.int().argmax()) :][:length].all())
        assert 1 <= int(erased.sum()) <= 0.5 * erased.numel()


@pytest.mark.parametrize(("probability", "least", "most"), [(0.0, 0, 0), (0.25, 30, 70)])
def test_as_many_are_erased_as_asked(probability: float, least: int, most: int) -> None:
    made = run(pictures(200), erase=probability)
    assert least <= int((made == 127).flatten(1).any(1).sum()) <= most
