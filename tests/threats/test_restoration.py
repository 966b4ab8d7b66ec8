"""Fills that leave a trace are undone in part; those that leave none are guessed, and say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.natural_pictures import make_portraits
from torch import Generator, Tensor

from scotoma.attacks.restoration.crops import cut, paste, read_boxes
from scotoma.attacks.restoration.deblur import Deblur
from scotoma.attacks.restoration.dictionary import Dictionary
from scotoma.attacks.restoration.mean_region import MeanRegion
from scotoma.core.errors import NotApplicableError, NotGrantedError, SettingsError
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.fills import apply_fill, fills

SIDE = 48
BOX = (10, 6, 38, 42)
AUXILIARY = make_portraits(200, SIDE, seed=10)
ATTACKED = make_portraits(24, SIDE, seed=11)
LOSSY = ["blur", "pixelate", "inverse-super-resolution"]
BLIND = ["inpaint", "noise", "solid"]
SMALL: dict[str, Any] = {"side": 32, "width": 32, "depth": 2, "steps": 120, "learning_rate": 4e-3}


def paint(images: Tensor, fill: str) -> Release:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    x0, y0, x1, y1 = BOX
    mask[y0:y1, x0:x1] = True
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    painted = [apply_fill(picture, mask, fills.get(fill), seed=0) for picture in pixels]
    data = torch.from_numpy(np.stack(painted)).permute(0, 3, 1, 2).float() / 255
    metadata = {
        "scheme": "anonymize",
        "settings": {"fill": fill},
        "input_size": [3, SIDE, SIDE],
        "regions": [[list(BOX)]] * len(images),
    }
    return Release(data, metadata)


def knowledge(fill: str, *, shift: int = 0) -> Knowledge:
    """Return what an attacker knows; with a shift, simulated releases are of other pictures."""

    def simulate(images: Tensor, generator: Generator) -> Release:
        return paint(images.roll(shift, 0), fill)

    return Knowledge(simulate=simulate, auxiliary=AUXILIARY)


def psnr_db(guesses: Tensor) -> float:
    x0, y0, x1, y1 = BOX
    errors = (guesses - ATTACKED)[..., y0:y1, x0:x1].square().flatten(1).mean(1)
    return float(-10 * errors.log10().mean())


def deblur(fill: str, **options: Any) -> tuple[Tensor, Any]:
    generator = Generator().manual_seed(0)
    fitted = Deblur(**SMALL).fit(knowledge(fill, **options), generator=generator)
    return fitted.run(paint(ATTACKED, fill), Knowledge(), generator=generator), fitted


def run(attack: Any, fill: str, **options: Any) -> Tensor:
    guesses: Tensor = attack.run(
        paint(ATTACKED, fill), knowledge(fill, **options), generator=Generator().manual_seed(0)
    )
    return guesses


@pytest.mark.parametrize("fill", LOSSY)
def test_a_network_restores_more_than_the_release_and_the_mean_show(fill: str) -> None:
    guesses, fitted = deblur(fill)
    weak = max(psnr_db(paint(ATTACKED, fill).data), psnr_db(run(MeanRegion(), fill)))
    assert psnr_db(guesses) > weak + 1.5
    assert not any("reads nothing" in note for note in fitted.notes)


@pytest.mark.parametrize("fill", LOSSY)
def test_look_up_restores_more_than_the_release_and_the_mean_show(fill: str) -> None:
    weak = max(psnr_db(paint(ATTACKED, fill).data), psnr_db(run(MeanRegion(), fill)))
    assert psnr_db(run(Dictionary(side=32), fill)) > weak + 1


def test_a_picture_in_the_dictionary_is_found() -> None:
    """Plain look-up of whole regions returns the original itself if it is there."""
    release = paint(AUXILIARY[5:6], "pixelate")
    attack = Dictionary(neighbours=1, patch=1.0, side=48)
    guess = attack.run(release, knowledge("pixelate"), generator=Generator())
    x0, y0, x1, y1 = BOX
    error = (guess - AUXILIARY[5:6])[..., y0:y1, x0:x1].abs().mean()
    painted = (release.data - AUXILIARY[5:6])[..., y0:y1, x0:x1].abs().mean()
    # What is left is resampling.
    assert float(error) < 0.5 * float(painted)


@pytest.mark.parametrize("attack", ["deblur", "dictionary"])
def test_simulations_of_other_pictures_teach_no_more_than_the_mean(attack: str) -> None:
    if attack == "deblur":
        guesses, _ = deblur("pixelate", shift=7)
    else:
        guesses = run(Dictionary(side=32), "pixelate", shift=7)
    assert psnr_db(guesses) < psnr_db(run(MeanRegion(), "pixelate")) + 0.5


@pytest.mark.parametrize("fill", BLIND)
def test_what_left_no_trace_is_guessed_and_reported_as_such(fill: str) -> None:
    assert psnr_db(run(MeanRegion(), fill)) > psnr_db(paint(ATTACKED, fill).data)
    with pytest.raises(NotApplicableError, match="leaves a trace"):
        run(Dictionary(), fill)


def test_a_network_on_a_blind_fill_says_that_it_only_guesses() -> None:
    guesses, fitted = deblur("solid")
    assert any("reads nothing" in note for note in fitted.notes)
    assert psnr_db(guesses) > psnr_db(paint(ATTACKED, "solid").data)


@pytest.mark.parametrize("attack", [MeanRegion(), Dictionary(side=32)])
def test_only_regions_change(attack: Any) -> None:
    release = paint(ATTACKED, "blur")
    guesses = run(attack, "blur")
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    x0, y0, x1, y1 = BOX
    outside[y0:y1, x0:x1] = False
    assert torch.equal(guesses[..., outside], release.data[..., outside])
    assert guesses.shape == ATTACKED.shape
    assert guesses.dtype == torch.float32


@pytest.mark.parametrize("margin", [0.0, 0.25])
@pytest.mark.parametrize("box", [(2, 3, 22, 23), (0, 0, 20, 20), (28, 28, 48, 48)])
def test_a_crop_goes_back_where_it_came_from(box: tuple[int, int, int, int], margin: float) -> None:
    boxes = [(1, *box)]
    side = round(20 * (1 + 2 * margin))  # the box' own resolution, so that nothing is resized
    crops = cut(ATTACKED, boxes, side, margin)
    grey = ATTACKED.clone()
    x0, y0, x1, y1 = box
    grey[1, :, y0:y1, x0:x1] = 0.5
    assert torch.allclose(paste(grey, boxes, crops, margin), ATTACKED, atol=1e-6)


def test_the_margin_shows_what_surrounds_the_box() -> None:
    crop = cut(ATTACKED, [(0, 10, 6, 30, 26)], 30, 0.25)
    assert torch.allclose(crop[0], ATTACKED[0, :, 1:31, 5:35], atol=1e-6)


def test_many_regions_and_none() -> None:
    release = paint(ATTACKED[:3], "blur")
    metadata = {**release.metadata, "regions": [[[0, 0, 8, 8], [8, 8, 20, 24]], [], [[1, 2, 9, 9]]]}
    boxes = read_boxes(Release(release.data, metadata))
    assert boxes == [(0, 0, 0, 8, 8), (0, 8, 8, 20, 24), (2, 1, 2, 9, 9)]
    assert cut(release.data, boxes, 16, 0.25).shape == (3, 3, 16, 16)
    assert cut(release.data, [], 16, 0.25).shape == (0, 3, 16, 16)


ATTACKS: list[Callable[[Release, Knowledge], Any]] = [
    lambda release, known: MeanRegion().run(release, known, generator=Generator()),
    lambda release, known: Dictionary().run(release, known, generator=Generator()),
    lambda release, known: Deblur().fit(known, generator=Generator()),
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_not_granted_raises(attack: Callable[[Release, Knowledge], Any]) -> None:
    with pytest.raises(NotGrantedError):
        attack(paint(ATTACKED[:1], "blur"), Knowledge(auxiliary=AUXILIARY))


@pytest.mark.parametrize("attack", ATTACKS)
def test_releases_without_regions_are_refused(attack: Callable[[Release, Knowledge], Any]) -> None:
    def simulate(images: Tensor, generator: Generator) -> Release:
        return Release(images, {"scheme": "orthogonal"})

    known = Knowledge(simulate=simulate, auxiliary=AUXILIARY)
    with pytest.raises(NotApplicableError, match="painted regions"):
        attack(simulate(ATTACKED, Generator()), known)


def test_a_network_for_another_fill_is_refused() -> None:
    _, fitted = deblur("solid")
    with pytest.raises(NotApplicableError, match="fit on that fill"):
        fitted.run(paint(ATTACKED, "blur"), Knowledge(), generator=Generator())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dictionary(neighbours=0),
        lambda: Dictionary(patch=1.5),
        lambda: Dictionary(ridge=0.0),
        lambda: Deblur(side=30),
        lambda: Deblur(steps=0),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        make()
