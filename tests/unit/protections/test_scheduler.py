"""Batches stay full, memory stays bounded, answers reach who asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from scotoma.protections.anonymize.scheduler import Life, Request, run_together


def _counting(number: int, rounds: int) -> Life[tuple[int, int]]:
    total = 0
    for turn in range(rounds):
        answers = yield [Request("double", number), Request("negate", turn)]
        assert list(answers) == [2 * number, -turn]
        total += sum(answers)
    return number, total


def _execute(queue: object, items: Sequence[Any]) -> list[Any]:
    return [2 * item if queue == "double" else -item for item in items]


def test_every_life_ends_with_its_own_answers() -> None:
    lives = ((_counting(n, 1 + n % 5), 1) for n in range(40))
    ended = dict(run_together(lives, _execute, batch_size=4, pool_size=9, pool_weight=1000))
    expected = {n: sum(2 * n - turn for turn in range(1 + n % 5)) for n in range(40)}
    assert ended == expected


def test_batches_are_full_until_the_end() -> None:
    sizes: list[int] = []

    def execute(queue: object, items: Sequence[Any]) -> list[Any]:
        sizes.append(len(items))
        return _execute(queue, items)

    lives = ((_counting(n, 1 + n % 7), 1) for n in range(200))
    list(run_together(lives, execute, batch_size=8, pool_size=40, pool_weight=1000))
    assert max(sizes) == 8
    assert sum(size == 8 for size in sizes) > 0.9 * len(sizes)


@pytest.mark.parametrize(("pool_size", "pool_weight", "most"), [(5, 1000, 5), (50, 12, 4)])
def test_pool_is_bounded(pool_size: int, pool_weight: int, most: int) -> None:
    alive = peak = 0

    def life() -> Life[None]:
        nonlocal alive, peak
        alive += 1
        peak = max(peak, alive)
        yield [Request("double", 1)]
        alive -= 1

    def lives() -> Iterator[tuple[Life[None], int]]:
        for _ in range(60):
            yield life(), 3

    list(
        run_together(lives(), _execute, batch_size=2, pool_size=pool_size, pool_weight=pool_weight)
    )
    assert peak <= most
    assert alive == 0


def test_one_heavy_life_is_always_admitted() -> None:
    lives = ((_counting(n, 2), 10**9) for n in range(3))
    ended = run_together(lives, _execute, batch_size=8, pool_size=8, pool_weight=1)
    assert len(list(ended)) == 3


def test_lives_that_ask_nothing() -> None:
    def life(number: int) -> Life[int]:
        yield []
        return number

    lives = ((life(n), 1) for n in range(5))
    ended = run_together(lives, _execute, batch_size=2, pool_size=2, pool_weight=9)
    assert sorted(ended) == [0, 1, 2, 3, 4]
