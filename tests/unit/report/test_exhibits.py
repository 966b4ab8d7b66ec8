"""Which pictures a report shows."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from scotoma.core.errors import SettingsError
from scotoma.report.exhibits import choose_exhibits
from scotoma.run.manifest import Answer, Decision, Entry


def make_entry(name: str, status: str, *, flips: bool, score: float = 0.5) -> Entry:
    cat, dog = Answer(1, "cat", score), Answer(2, "dog", 0.5)
    lost = status == "not-kept"
    decision = Decision("m", cat, dog if flips else cat, dog if lost else cat, not lost)
    error = "broken" if status == "failed" else None
    regions = () if status == "no-region" else ((0, 0, 8, 8),)
    return Entry(name, name, status, regions, (decision,), 1, 0.1, "a", "b", error, "s")


def wins(n: int) -> list[Entry]:
    return [make_entry(f"win{i:03}", "ok", flips=True, score=i / n) for i in range(n)]


def losses(n: int) -> list[Entry]:
    return [make_entry(f"loss{i:03}", "not-kept", flips=True) for i in range(n)]


def calm(n: int) -> list[Entry]:
    return [make_entry(f"calm{i:03}", "kept-naive", flips=False) for i in range(n)]


def names(entries: list[Entry]) -> list[str]:
    return [entry.input for entry in entries]


def test_wins_come_first_then_losses_then_what_the_fill_left_alone() -> None:
    chosen = names(choose_exhibits([*calm(1), *losses(1), *wins(1)]))
    assert chosen == ["win000", "loss000", "calm000"]


def test_the_surest_decision_that_the_fill_changed_comes_first() -> None:
    assert names(choose_exhibits(wins(30), limit=3)) == ["win029", "win028", "win027"]


def test_every_loss_is_shown_where_there_is_room_and_wins_give_way() -> None:
    chosen = choose_exhibits([*wins(50), *losses(9)], limit=12)
    assert sum(entry.status == "not-kept" for entry in chosen) == 9
    assert len(chosen) == 12


def test_many_losses_leave_a_quarter_to_wins() -> None:
    chosen = choose_exhibits([*wins(50), *losses(50)], limit=12)
    assert [entry.status for entry in chosen] == ["ok"] * 3 + ["not-kept"] * 9
    alone = choose_exhibits([*wins(1), *losses(50)], limit=12)
    assert [entry.status for entry in alone] == ["ok"] + ["not-kept"] * 11


def test_the_choice_does_not_depend_on_the_order_of_arrival() -> None:
    entries = [*wins(20), *losses(4), *calm(20)]
    expected = names(choose_exhibits(entries))
    for seed in range(5):
        shuffled = random.Random(seed).sample(entries, len(entries))
        assert names(choose_exhibits(shuffled)) == expected


def test_pictures_with_nothing_to_show_are_left_out() -> None:
    bare = make_entry("bare", "no-region", flips=False)
    failed = make_entry("bad", "failed", flips=False)
    assert choose_exhibits([bare, failed]) == []


def test_a_searched_picture_that_the_fill_left_alone_is_no_win() -> None:
    searched = make_entry("searched", "ok", flips=False)
    assert names(choose_exhibits([searched, *wins(1)], limit=1)) == ["win000"]


def test_a_model_that_was_only_checked_makes_no_win() -> None:
    cat, dog = Answer(1, "cat", 0.9), Answer(2, "dog", 0.9)
    decision = Decision("m", cat, dog, dog, kept=False, checked_only=True)
    box = ((0, 0, 8, 8),)
    entry = Entry("checked", "c", "ok", box, (decision,), 1, 0.1, "a", "b", None, "s")
    assert names(choose_exhibits([entry, *wins(1)], limit=1)) == ["win000"]


def test_a_stream_is_read_once_and_not_kept() -> None:
    alive = 0

    class Counted(Entry):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    most = 0

    def stream() -> Iterator[Entry]:
        nonlocal alive, most
        for entry in [*wins(300), *losses(300), *calm(300)]:
            alive += 1
            most = max(most, alive)
            yield Counted(**vars(entry))

    assert len(choose_exhibits(stream(), limit=12)) == 12
    assert most <= 3 * 12 + 3


def test_limits() -> None:
    assert choose_exhibits(wins(3), limit=0) == []
    with pytest.raises(SettingsError, match="limit"):
        choose_exhibits([], limit=-1)
