"""Patches that changed places are put back; how many neighbours are right is counted here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from support.encryption import KEY
from support.natural_pictures import make_natural
from torch import Generator, Tensor
from torchvision.transforms.functional import pil_to_tensor

from scotoma.attacks.jigsaw.assembly import assemble, greedy, likelihood
from scotoma.attacks.jigsaw.compatibility import COSTS, SHARPNESS, evidence
from scotoma.attacks.jigsaw.hidden_order import HiddenOrder
from scotoma.attacks.jigsaw.jigsaw import Jigsaw, border_evidence
from scotoma.attacks.jigsaw.learned import JigsawLearned
from scotoma.attacks.jigsaw.puzzle import open_puzzle
from scotoma.core.errors import NotApplicableError, NotGrantedError, SettingsError
from scotoma.core.protocols import Knowledge, Release
from scotoma.ops.blocks import draw_orders
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

BLOCK = 16
SIDE = 112
GRID = (SIDE // BLOCK, SIDE // BLOCK)
CHANCE = 0.15  # a random order of 49 has .02 of its neighbours right


def drawn(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def shuffled(pictures: Tensor, block: int = BLOCK, *, seed: int = 3) -> tuple[Release, Tensor]:
    """Return the release, and from which place of the picture each of its patches is."""
    protection = open_protection(EncryptSettings("shuffle", block=block))
    release = protection.protect(pictures, generator=drawn(seed))
    count = (pictures.shape[2] // block) * (pictures.shape[3] // block)
    return release, draw_orders(len(pictures), count, drawn(seed))


def right_neighbours(order: Tensor, truth: Tensor) -> float:
    """Return the share of neighbours in an arrangement that were such, on the same side."""
    places = truth[order]
    columns = order.shape[1]
    found = count = 0
    for (one, two), step in (
        ((places[:, :-1], places[:, 1:]), (0, 1)),
        ((places[:-1], places[1:]), (1, 0)),
    ):
        down, across = two // columns - one // columns, two % columns - one % columns
        found += int(((down == step[0]) & (across == step[1])).sum())
        count += one.numel()
    return found / count


def mean_right(orders: Tensor, truths: Tensor) -> float:
    shares = [right_neighbours(*pair) for pair in zip(orders, truths, strict=True)]
    return sum(shares) / len(shares)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return make_natural(4, SIDE, seed=11)


def test_the_ruler_measures() -> None:
    order = torch.arange(12).view(3, 4)
    assert right_neighbours(order, torch.arange(12)) == 1
    # Two halves exchanged break three joints of 17; transposed pieces have none.
    assert right_neighbours(order.roll(2, 1), torch.arange(12)) == pytest.approx(14 / 17)
    assert right_neighbours(order.flip(0, 1), torch.arange(12)) == 0


def test_jigsaw_beats_a_random_and_a_greedy_arrangement(pictures: Tensor) -> None:
    release, truths = shuffled(pictures)
    puzzle = open_puzzle(release)
    ours = mean_right(Jigsaw().arrange(puzzle, generator=drawn(0)), truths)
    lazy = [greedy(border_evidence(pieces, "ssd"), GRID) for pieces in puzzle.pieces]
    chance = mean_right(draw_orders(len(truths), 49, drawn(5)).view(-1, *GRID), truths)
    assert chance < CHANCE
    assert ours > mean_right(torch.stack(lazy), truths) + 0.1
    assert ours > 0.8


def test_a_shuffled_noise_picture_gives_chance() -> None:
    noise = torch.rand(3, 3, SIDE, SIDE, generator=drawn(2))
    release, truths = shuffled(noise)
    assert mean_right(Jigsaw().arrange(open_puzzle(release), generator=drawn(0)), truths) < CHANCE


def test_flat_patches_tell_nothing_and_break_nothing() -> None:
    release, truths = shuffled(torch.full((2, 3, SIDE, SIDE), 0.5))
    guess = Jigsaw().run(release, Knowledge(), generator=drawn(0))
    assert torch.allclose(guess, torch.full_like(guess, 0.5))
    # All pieces are alike: whoever puts them right has looked at the order.
    orders = Jigsaw().arrange(open_puzzle(release), generator=drawn(0))
    assert mean_right(orders, truths) < CHANCE


def test_same_generator_same_guess(pictures: Tensor) -> None:
    release, _ = shuffled(pictures[:2])
    guesses = [Jigsaw().run(release, Knowledge(), generator=drawn(7)) for _ in range(2)]
    assert torch.equal(*guesses)


def test_frames_need_not_be_square_nor_whole() -> None:
    pictures = make_natural(1, SIDE, seed=21)[..., :90, :70]
    protection = open_protection(EncryptSettings("shuffle", block=BLOCK))
    release = protection.protect(pictures, generator=drawn(1))
    guess = Jigsaw().run(release, Knowledge(), generator=drawn(0))
    assert guess.shape == pictures.shape
    assert guess.isfinite().all()


def test_normalized_releases_are_read_as_they_are_shown(pictures: Tensor) -> None:
    release, _ = shuffled(pictures[:2])
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    data = (release.data - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    other = Release(data, {**release.metadata, "mean": mean, "std": std})
    orders = [Jigsaw().arrange(open_puzzle(one), generator=drawn(0)) for one in (release, other)]
    assert torch.equal(*orders)
    guess = Jigsaw().run(other, Knowledge(), generator=drawn(0))
    plain = Jigsaw().run(release, Knowledge(), generator=drawn(0))
    assert torch.allclose(guess, plain, atol=1e-5)


def test_one_order_for_all_pictures_is_found_from_all_of_them() -> None:
    # Rough pictures, hard alone: grain is as strong as what continues over borders.
    generator = drawn(4)
    pictures = make_natural(12, 64, seed=31)
    pictures = (pictures + 0.12 * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)
    protection = open_protection(EncryptSettings("block-shuffle", block=8))
    release = protection.protect(pictures, KEY)
    maps = protection.derive_maps(KEY, (3, 64, 64))
    truth = maps.order
    assert truth is not None
    shares = []
    for count in (1, 12):
        part = Release(release.data[:count], release.metadata)
        orders = Jigsaw().arrange(open_puzzle(part), generator=drawn(0))
        assert (orders == orders[0]).all()
        shares.append(right_neighbours(orders[0], truth))
    assert shares[1] > 0.9
    assert shares[1] > shares[0] + 0.2


def test_evidence_prefers_the_true_neighbour_whatever_the_contrast(pictures: Tensor) -> None:
    release, truths = shuffled(pictures[:1])
    pieces = open_puzzle(release).pieces[0]
    inverse = truths[0].argsort().view(GRID)
    true = inverse[:, :-1].flatten(), inverse[:, 1:].flatten()
    for name, cost in COSTS.items():
        costs = cost(pieces)
        found = evidence(costs, SHARPNESS[name])
        assert (found[true[0]].argmax(1) == true[1]).double().mean() > 0.4, name
        assert torch.allclose(found, evidence(7 * costs, SHARPNESS[name]))
    with pytest.raises(SettingsError, match="got \\(2, 3\\)"):
        evidence(torch.ones(2, 3), 1.0)


def test_costs_are_those_of_the_definition(pictures: Tensor) -> None:
    release, _ = shuffled(pictures[:1])
    pieces = open_puzzle(release).pieces[0][:6]
    for one in range(6):
        for two in range(6):
            left, right = pieces[one], pieces[two]
            step = right[..., 0] - left[..., -1]
            assert COSTS["ssd"](pieces)[one, two] == pytest.approx(float((step**2).sum()))
            guess = 2 * left[..., -1] - left[..., -2] - right[..., 0]
            other = 2 * right[..., 0] - right[..., 1] - left[..., -1]
            total = float(guess.abs().sum() + other.abs().sum())
            assert COSTS["prediction"](pieces)[one, two] == pytest.approx(total)


def test_a_scaled_step_across_the_border_costs_its_square_in_the_gradient_cost() -> None:
    ramp = torch.arange(16.0, dtype=torch.float64).expand(3, 16, 16) / 64
    ripple = 0.02 * torch.randn(3, 16, 16, generator=drawn(3), dtype=torch.float64)
    left = ramp + ripple
    gaps = []
    for gap in (0.1, 0.2):
        right = left[..., -1:] + 1 / 64 + gap + (ramp - ramp[..., :1])
        # What lies behind each border has the same slope, so that only the gap differs.
        gaps.append(float(COSTS["mgc"](torch.stack([left, right]))[0, 1]))
    smooth = left[..., -1:] + 1 / 64 + (ramp - ramp[..., :1])
    base = float(COSTS["mgc"](torch.stack([left, smooth]))[0, 1])
    assert base < gaps[0] < gaps[1]
    assert 3 < gaps[1] / gaps[0] < 5


def test_assembly_reaches_the_planted_arrangement() -> None:
    """Evidence for one arrangement, with noise: it is found, and nothing likelier is missed."""
    grid, generator = (5, 6), drawn(9)
    truth = torch.randperm(30, generator=generator).view(grid)
    pairs = torch.randn(2, 30, 30, generator=generator, dtype=torch.float64)
    pairs[0, truth[:, :-1], truth[:, 1:]] += 3
    pairs[1, truth[:-1], truth[1:]] += 3
    found = assemble(pairs, grid, generator=drawn(0))
    assert sorted(found.flatten().tolist()) == list(range(30))
    assert likelihood(found, pairs) >= likelihood(truth, pairs)
    assert likelihood(found, pairs) > likelihood(greedy(pairs, grid), pairs)
    assert (found == truth).double().mean() > 0.9


def test_places_decide_where_borders_do_not() -> None:
    grid = (3, 3)
    places = torch.full((3, 3, 9), -1.0)
    truth = torch.randperm(9, generator=drawn(1)).view(grid)
    places.scatter_(2, truth[..., None], 1.0)
    found = assemble(torch.zeros(2, 9, 9), grid, generator=drawn(0), places=places)
    assert torch.equal(found, truth)


def test_learning_improves_on_the_hand_made_cost(tmp_path: Path) -> None:
    pictures = make_natural(40, 96, seed=5)
    grain = torch.randn(pictures.shape, generator=drawn(8))
    pictures = (pictures + 0.05 * grain).clamp(0, 1)
    protection = open_protection(EncryptSettings("shuffle", block=BLOCK))
    knowledge = Knowledge(
        auxiliary=pictures[:32],
        simulate=lambda batch, generator: protection.protect(batch, generator=generator),
    )
    attack = JigsawLearned(steps=60, width=8)
    fitted = attack.fit(knowledge, generator=drawn(0), checkpoint=tmp_path / "state.pt")
    assert fitted.history[0].step == 0
    assert fitted.history[-1].loss < 0.9 * fitted.history[0].loss
    release, truths = shuffled(pictures[32:])
    puzzle = open_puzzle(release)
    lazy = torch.stack([greedy(border_evidence(one, "ssd"), puzzle.grid) for one in puzzle.pieces])
    ours = mean_right(fitted.arrange(puzzle, generator=drawn(0)), truths)
    assert ours > mean_right(lazy, truths) + 0.1
    again = attack.fit(knowledge, generator=drawn(0), checkpoint=tmp_path / "state.pt")
    assert again.history == fitted.history
    with pytest.raises(SettingsError, match="another training"):
        attack.fit(knowledge, generator=drawn(1), checkpoint=tmp_path / "state.pt")
    with pytest.raises(SettingsError, match="as learned from"):
        fitted.run(shuffled(pictures[:1], 32)[0], Knowledge(), generator=drawn(0))


def test_a_stopped_training_ends_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    protection = open_protection(EncryptSettings("shuffle", block=BLOCK))
    knowledge = Knowledge(
        auxiliary=make_natural(6, 64, seed=6),
        simulate=lambda batch, generator: protection.protect(batch, generator=generator),
    )
    attack, state = JigsawLearned(steps=16, width=4), tmp_path / "state.pt"

    def stop(done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack.fit(knowledge, generator=drawn(0), checkpoint=state, on_step=stop)
    assert state.exists()
    resumed = attack.fit(knowledge, generator=drawn(0), checkpoint=state)
    assert resumed.history == attack.fit(knowledge, generator=drawn(0)).history


def undirected(order: Tensor, truth: Tensor) -> float:
    """Return the share of neighbours in an arrangement that were neighbours on any side."""
    places = truth[order]
    ys, xs = places // order.shape[1], places % order.shape[1]
    apart = [(ys.diff(dim=axis).abs() + xs.diff(dim=axis).abs()).flatten() for axis in (0, 1)]
    return float((torch.cat(apart) == 1).double().mean())


@pytest.mark.parametrize("inner", ["permute", "orthogonal"])
def test_an_order_hides_less_the_more_pictures_share_it(inner: str) -> None:
    pictures = make_natural(60, 64, seed=41, leaves=4)
    protection = open_protection(EncryptSettings("block-shuffle", block=8, inner=inner))
    release = protection.protect(pictures, KEY)
    truth = protection.derive_maps(KEY, (3, 64, 64)).order
    assert truth is not None
    shares = []
    for count in (1, 60):
        part = Release(release.data[:count], release.metadata)
        shares.append(undirected(HiddenOrder().arrange(part), truth))
    assert shares[1] > shares[0] + 0.1
    assert shares[1] > 0.3  # a random order has .06
    guesses = HiddenOrder().run(part, Knowledge(), generator=drawn(0))
    assert guesses.shape == (8, 60, 3, 64, 64)
    assert guesses.isfinite().all()


def test_what_is_no_puzzle_is_refused(pictures: Tensor) -> None:
    orthogonal = open_protection(EncryptSettings("orthogonal", block=8)).protect(pictures, KEY)
    for attack in (Jigsaw(), HiddenOrder()):
        with pytest.raises(NotApplicableError, match="orthogonal"):
            attack.run(orthogonal, Knowledge(), generator=drawn(0))
    with pytest.raises(NotGrantedError):
        JigsawLearned().fit(Knowledge(), generator=drawn(0))
    with pytest.raises(SettingsError, match="cost"):
        Jigsaw(cost="magic")


@pytest.mark.shared
def test_nine_in_ten_neighbours_of_photographs(shared: Path) -> None:
    paths = sorted((shared / "data" / "imagenet" / "val").glob("*.jpg"))[::80]
    photos = torch.stack([pil_to_tensor(Image.open(path).convert("RGB")) for path in paths])
    photos = photos[..., 1:225, 1:225].float() / 255
    for block in (56, 16):
        release, truths = shuffled(photos, block)
        orders = Jigsaw().arrange(open_puzzle(release), generator=drawn(0))
        assert mean_right(orders, truths) >= 0.9
