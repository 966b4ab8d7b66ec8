"""The attackers' training loop: resumed exactly, honest over budgets, refused where it must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Generator, Tensor, nn

from scotoma.attacks.inversion.curve import Point, has_flattened, late_gain
from scotoma.attacks.inversion.training import Lesson, Training, reconstruction_loss, train
from scotoma.core.errors import SettingsError

STEPS = 45
PICTURES = torch.rand(64, 3, 8, 8, generator=Generator().manual_seed(3))


def lesson(seed: int = 0, recipe: str = "negatives") -> Lesson:
    """Return the task of undoing a negative."""

    def batch(generator: Generator) -> tuple[Tensor, Tensor]:
        chosen = PICTURES[torch.randint(48, (4,), generator=generator)]
        return 1 - chosen, chosen

    return Lesson(batch, (1 - PICTURES[48:], PICTURES[48:]), seed, recipe)


def fresh() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Conv2d(3, 3, 3, padding=1)


def training(steps: int = STEPS) -> Training:
    return Training(steps, 4, 1e-2, warmup_steps=5)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([value.flatten() for value in network.state_dict().values()])


class StoppedError(Exception):
    """Somebody pulled the plug."""


def stop_after(last: int) -> object:
    def on_step(done: int, total: int) -> None:
        if done == last:
            raise StoppedError

    return on_step


@pytest.mark.parametrize("last", [1, 11, 30, STEPS])
def test_a_stopped_run_ends_in_the_same_weights(tmp_path: Path, last: int) -> None:
    whole, history = train(fresh(), lesson(), training())
    file = tmp_path / "state"
    with pytest.raises(StoppedError):
        train(fresh(), lesson(), training(), checkpoint=file, on_step=stop_after(last))
    resumed, again = train(fresh(), lesson(), training(), checkpoint=file)
    assert torch.equal(weights(resumed), weights(whole))
    assert again == history


def test_a_resumed_run_does_not_start_anew(tmp_path: Path) -> None:
    file = tmp_path / "state"
    train(fresh(), lesson(), training(32), checkpoint=file)
    steps: list[int] = []
    train(
        fresh(), lesson(), training(), checkpoint=file, on_step=lambda done, _: steps.append(done)
    )
    assert steps == list(range(33, STEPS + 1))


def test_a_shorter_run_is_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    whole, history = train(fresh(), lesson(), training())
    file = tmp_path / "state"
    _, short = train(fresh(), lesson(), training(25), checkpoint=file)
    assert short[:-1] == tuple(point for point in history if point.step < 25)
    longer, again = train(fresh(), lesson(), training(), checkpoint=file)
    assert torch.equal(weights(longer), weights(whole))
    assert again == history


def test_the_best_weights_are_returned_not_the_last() -> None:
    """A rate so high that training gets worse leaves the best point's weights."""
    wild = Training(STEPS, 4, 3.0, warmup_steps=0)
    network, history = train(fresh(), lesson(), wild)
    inputs, originals = lesson().kept
    found = float(reconstruction_loss(network(inputs), originals))
    assert found == pytest.approx(min(point.loss for point in history), rel=1e-4)
    assert found < history[-1].loss


@pytest.mark.parametrize(
    ("other", "settings"),
    [
        (lesson(seed=1), training()),
        (lesson(recipe="other pictures"), training()),
        (lesson(), Training(STEPS, 4, 2e-2, warmup_steps=5)),
    ],
)
def test_another_runs_checkpoint_is_refused(
    tmp_path: Path, other: Lesson, settings: Training
) -> None:
    file = tmp_path / "state"
    train(fresh(), lesson(), training(10), checkpoint=file)
    with pytest.raises(SettingsError, match="another training"):
        train(fresh(), other, settings, checkpoint=file)


def test_a_damaged_or_longer_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state"
    train(fresh(), lesson(), training(20), checkpoint=file)
    with pytest.raises(SettingsError, match="raise steps"):
        train(fresh(), lesson(), training(10), checkpoint=file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(SettingsError, match="damaged"):
        train(fresh(), lesson(), training(), checkpoint=file)


def test_a_loss_that_is_no_number_stops() -> None:
    def batch(generator: Generator) -> tuple[Tensor, Tensor]:
        return torch.full((1, 3, 8, 8), torch.nan), PICTURES[:1]

    broken = Lesson(batch, (PICTURES, PICTURES), 0, "")
    with pytest.raises(SettingsError, match="finite"):
        train(fresh(), broken, training())


def test_the_loss_equals_a_slow_one() -> None:
    guesses, originals = PICTURES[:2], PICTURES[2:4]
    errors = (guesses - originals).numpy().astype(np.float64)
    expected = np.abs(errors).mean()
    lumas = [np.tensordot([0.299, 0.587, 0.114], part, (0, 0)) for part in errors]
    edges = [ndimage.sobel(luma, axis=axis, mode="nearest") for luma in lumas for axis in (0, 1)]
    slow = float(expected + 5 * np.abs(edges).mean())
    assert float(reconstruction_loss(guesses, originals, 5.0)) == pytest.approx(slow, rel=1e-5)


def test_only_what_is_weighed_counts() -> None:
    guesses, originals = PICTURES[:2].clone(), PICTURES[2:4]
    weight = torch.zeros(2, 1, 8, 8)
    weight[..., 2:5, 3:7] = 1
    before = reconstruction_loss(guesses, originals, 0.0, weight)
    inside = (guesses - originals)[..., 2:5, 3:7].abs().mean()
    guesses[..., 0, 0] = 9
    assert torch.allclose(before, inside)
    assert torch.equal(reconstruction_loss(guesses, originals, 0.0, weight), before)


def history(*losses: float) -> list[Point]:
    return [Point(25 * place, loss, 0.0) for place, loss in enumerate(losses)]


def test_late_gain_is_a_share_of_the_trivial_loss() -> None:
    assert late_gain(history(0.2, 0.1, 0.08, 0.06, 0.05)) == pytest.approx(0.05)
    assert late_gain(history(0.2, 0.2, 0.2, 0.2, 0.3)) == 0
    # Ups and downs are no gain: what counts is the best so far.
    assert late_gain(history(0.2, 0.05, 0.05, 0.12, 0.05)) == 0


def test_a_curve_that_still_falls_has_not_flattened() -> None:
    assert not has_flattened(history(0.2, 0.15, 0.12, 0.1, 0.08))
    assert has_flattened(history(0.2, 0.1, 0.08, 0.079, 0.0785))
    with pytest.raises(SettingsError, match="at least one step"):
        has_flattened(history(0.2))


@pytest.mark.parametrize(
    "arguments",
    [(0, 4, 1e-3), (1, 0, 1e-3), (1, 4, 0.0), (1, 4, float("nan"))],
)
def test_settings_out_of_range_are_refused(arguments: tuple[int, int, float]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        Training(*arguments)
