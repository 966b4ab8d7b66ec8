"""Block maps: inverses that invert, shapes that fit, and a secret that stays."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from scotoma.core.errors import SecretError, SettingsError
from scotoma.protections.encrypt.cipher import prepare
from scotoma.protections.encrypt.maps import BlockMaps, Layout

EYE = torch.eye(12, dtype=torch.float64)[None, None]


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forward": EYE.float()}, "forward maps .* in float64"),
        ({"forward": EYE[0]}, "forward maps"),
        ({"inverse": EYE[..., :8]}, "inverse maps of shape"),
        ({"inverse": 1.0001 * EYE}, "undo forward"),
        ({"inverse": torch.nan * EYE}, "undo forward"),
        ({"forward": EYE.expand(2, 1, 12, 12)}, "inverse maps of shape"),
        ({"forward": EYE[..., :8, :], "inverse": EYE[..., :8]}, "C' >= C planes"),
        ({"forward": EYE[..., :6, :6], "inverse": EYE[..., :6, :6]}, "C' >= C planes"),
        ({"noise": EYE[..., :3]}, "undo forward and noise"),
        ({"noise": EYE[..., :4, :3]}, "noise maps of shape"),
        ({"order": torch.tensor([0, 2, 2])}, "a permutation"),
        ({"order": torch.tensor([[0, 1]])}, "a permutation"),
    ],
    ids=str,
)
def test_maps_that_cannot_be_read_back_are_refused(changes: dict[str, Any], message: str) -> None:
    whole: dict[str, Any] = {"block": 2, "forward": EYE, "inverse": EYE}
    BlockMaps(**whole)
    with pytest.raises(SettingsError, match=message):
        BlockMaps(**{**whole, **changes})


def test_one_wrong_map_of_many_is_found() -> None:
    forward = torch.linalg.qr(_random(3, 4, 12, 12)).Q
    inverse = forward.mT.clone()
    BlockMaps(2, forward, inverse)
    inverse[2, 1] = forward[2, 1]
    with pytest.raises(SettingsError, match="undo forward"):
        BlockMaps(2, forward, inverse)


def test_secrets_stay() -> None:
    maps = BlockMaps(2, EYE, EYE)
    shown = "BlockMaps(block=2, forward=(1, 1, 12, 12), noise=0, moves=False, spreads=False)"
    assert repr(maps) == shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(SecretError, match="derive them again"):
            leak(maps)


@pytest.mark.parametrize("forward", [EYE, EYE.roll(1, -1), -EYE], ids=["same", "moved", "mixed"])
def test_prepared_maps_stay_too(forward: Tensor) -> None:
    cipher = prepare(BlockMaps(2, forward, forward.mT), Layout(3, 1, 2))
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(SecretError, match="prepare it again"):
            leak(cipher)


def test_maps_must_fit_the_picture() -> None:
    moved = BlockMaps(2, EYE, EYE, torch.tensor([1, 0]))
    prepare(moved, Layout(3, 1, 2))
    with pytest.raises(SettingsError, match="an order of 4 blocks"):
        prepare(moved, Layout(3, 2, 2))
    with pytest.raises(SettingsError, match="blocks of 4 values"):
        prepare(moved, Layout(1, 1, 2))


def _moved(period: tuple[int, int]) -> Tensor:
    sources = torch.stack([torch.randperm(12) for _ in range(period[0] * period[1])])
    return EYE[0, 0][sources].unflatten(0, period)


@pytest.mark.parametrize("period", [(1, 1), (2, 3)])
@pytest.mark.parametrize("order", [None, torch.tensor([5, 3, 1, 0, 2, 4])], ids=["stay", "move"])
@pytest.mark.parametrize("almost", [False, True])
def test_moving_and_multiplying_agree(
    period: tuple[int, int], order: Tensor | None, almost: bool
) -> None:
    """The gather is a permutation's product; what is only nearly a permutation is multiplied."""
    torch.manual_seed(1)
    forward = _moved(period)
    if almost:
        forward[..., 0, :] *= 1.5
    maps = BlockMaps(2, forward, torch.linalg.inv(forward), order)
    cipher = prepare(maps, Layout(3, 2, 3))
    images = torch.randn(2, 3, 4, 6)
    slow = torch.nn.functional.pixel_unshuffle(images, 2).double()
    if order is not None:
        slow = slow.flatten(2)[..., order].view_as(slow)
    for i in range(2):
        for j in range(3):
            matrix = forward[i % period[0], j % period[1]]
            slow[:, :, i, j] = slow[:, :, i, j] @ matrix.T
    expected = torch.nn.functional.pixel_shuffle(slow, 2).float()
    found = cipher.encrypt(images, None)
    torch.testing.assert_close(found, expected)
    assert almost or torch.equal(found, expected), "moving rounds nothing"
    torch.testing.assert_close(cipher.decrypt(found), images)


def test_a_swapped_pair_of_columns_is_no_permutation() -> None:
    """Two ones in one column: as many non-zeros as a permutation has, but values get lost."""
    forward = EYE.clone()
    forward[0, 0, 1] = forward[0, 0, 0]
    with pytest.raises(SettingsError, match="undo forward"):
        BlockMaps(2, forward, EYE)
