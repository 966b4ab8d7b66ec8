"""The manifest survives kills, and proves only what is true."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scotoma.core.errors import FileError, ModelError, SettingsError
from scotoma.run.manifest import (
    STATUSES,
    Answer,
    Decision,
    Entry,
    Manifest,
    latest,
    proves_done,
    sha256_of,
    summarize,
    write_summary,
)

CAT, DOG = Answer(1, "cat", 0.9), Answer(2, "dog", 0.6)


def make_entry(name: str = "a.jpg", status: str = "ok", **changes: object) -> Entry:
    entry = Entry(
        input=name,
        output="a.png",
        status=status,
        regions=((1, 2, 30, 40),),
        decisions=(Decision("embedded", CAT, DOG, CAT, True),),
        steps=3,
        seconds=0.25,
        sha256_in="ab",
        sha256_out="cd",
        error="it broke" if status == "failed" else None,
        settings="s1",
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manifest.jsonl"


answers = st.builds(Answer, st.integers(0, 999), st.text(), st.floats(0, 1))
decisions = st.builds(
    Decision,
    st.text(),
    answers,
    st.none() | answers,
    st.none() | answers,
    st.booleans(),
    st.booleans(),
)
boxes = st.tuples(*[st.integers(0, 10_000)] * 4)
entries = st.builds(
    Entry,
    input=st.text(st.characters(exclude_categories=[])),  # lone surrogates included
    output=st.none() | st.text(),
    status=st.sampled_from(STATUSES),
    regions=st.lists(boxes, max_size=3).map(tuple),
    decisions=st.lists(decisions, max_size=3).map(tuple),
    steps=st.integers(0),
    seconds=st.floats(0, 1e6),
    sha256_in=st.none() | st.text(),
    sha256_out=st.none() | st.text(),
    error=st.text(min_size=1),
    settings=st.text(),
    queries=st.integers(0),
)


@given(entries)
def test_an_entry_comes_back_from_its_one_line(entry: Entry) -> None:
    line = entry.to_json()
    assert "\n" not in line
    assert line.isascii()
    assert Entry.from_json(line) == entry


def test_a_line_has_the_documented_fields() -> None:
    fields = json.loads(make_entry().to_json())
    assert list(fields) == [
        *("input", "output", "status", "regions", "decisions", "steps", "seconds"),
        *("sha256_in", "sha256_out", "error", "settings", "queries"),
    ]
    assert fields["regions"] == [[1, 2, 30, 40]]
    assert fields["decisions"][0]["naive"] == {"label": 2, "name": "dog", "score": 0.6}


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5, float("inf")])
def test_a_score_that_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(ModelError, match="softmax probability"):
        Answer(0, "cat", score)


def test_a_score_may_miss_one_by_float_rounding() -> None:
    assert Answer(0, "cat", 1.0000001).score > 1


def test_unknown_status_and_silent_failure_are_refused() -> None:
    with pytest.raises(SettingsError, match="'done'"):
        make_entry(status="done")
    with pytest.raises(SettingsError, match="the error that made"):
        make_entry(status="failed", error=None)


@pytest.mark.parametrize("line", ["", "[]", "null", "{}", '{"input": "a"}', "not json"])
def test_a_line_that_is_no_entry_is_a_clear_error(line: str) -> None:
    with pytest.raises(FileError, match="expected a manifest entry"):
        Entry.from_json(line)


def test_entries_come_back_in_order_and_across_openings(path: Path) -> None:
    with Manifest.open(path) as manifest:
        manifest.append(make_entry("a"))
    with Manifest.open(path) as manifest:
        manifest.append(make_entry("b"))
        assert [entry.input for entry in manifest.entries()] == ["a", "b"]


def test_appending_after_close_is_an_error(path: Path) -> None:
    manifest = Manifest.open(path)
    manifest.close()
    manifest.close()
    with pytest.raises(FileError, match="already closed"):
        manifest.append(make_entry())


def test_a_folder_that_is_not_there_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="choose another output folder"):
        Manifest.open(tmp_path / "missing" / "manifest.jsonl")


def test_wherever_a_kill_stops_the_write_only_the_last_line_is_lost(path: Path) -> None:
    first, second, third = (make_entry(name) for name in "abc")
    with Manifest.open(path) as manifest:
        manifest.append(first)
        manifest.append(second)
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for stop in (*range(start, len(whole) - 1, 7), len(whole) - 1):
        path.write_bytes(whole[:stop])
        assert list(latest(path)) == ["a"]
        with Manifest.open(path) as manifest:
            assert list(manifest.entries()) == [first]
            manifest.append(third)
            assert list(manifest.entries()) == [first, third]


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("has_whole_line", [True, False])
def test_a_torn_line_of_any_length_is_removed(path: Path, size: int, has_whole_line: bool) -> None:
    kept = [make_entry("a")] if has_whole_line else []
    path.write_bytes(b"".join(e.to_json().encode() + b"\n" for e in kept) + b"x" * size)
    with Manifest.open(path) as manifest:
        manifest.append(make_entry("b"))
        assert [entry.input for entry in manifest.entries()] == [e.input for e in kept] + ["b"]


def test_a_write_cut_short_by_a_full_disk_is_reported_then_repaired(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    write = os.write
    with Manifest.open(path) as manifest:
        manifest.append(make_entry("a"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda file, data: write(file, data[:20]))
            with pytest.raises(FileError, match="disk"):
                manifest.append(make_entry("b"))
        manifest.append(make_entry("c"))
    assert list(latest(path)) == ["a", "c"]


def test_a_damaged_whole_line_is_an_error_not_a_silent_loss(path: Path) -> None:
    path.write_bytes(make_entry().to_json().encode() + b"\n\xff\xfe\n")
    with pytest.raises(FileError, match="expected a manifest entry"):
        latest(path)


def test_the_last_entry_of_an_input_supersedes_earlier_ones(path: Path) -> None:
    with Manifest.open(path) as manifest:
        for name, status in (("a", "failed"), ("b", "ok"), ("a", "ok")):
            manifest.append(make_entry(name, status))
    found = latest(path)
    assert {name: entry.status for name, entry in found.items()} == {"a": "ok", "b": "ok"}
    assert len(found) == 2
    assert "c" not in found


def test_a_manifest_that_does_not_exist_holds_nothing(path: Path) -> None:
    assert dict(latest(path)) == {}


def test_memory_holds_an_index_not_the_entries(path: Path) -> None:
    many = tuple(Decision(f"model{i}", CAT, DOG, CAT, True) for i in range(10))
    with path.open("w") as file:
        for i in range(1000):
            file.write(make_entry(f"{i}.jpg", decisions=many).to_json() + "\n")
    size = path.stat().st_size
    tracemalloc.start()
    try:
        found = latest(path)
        assert sum(entry.steps for entry in found.values()) == 3000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 1_500_000
    assert peak < size / 4


@pytest.fixture
def done(tmp_path: Path) -> tuple[Entry, Path, Path]:
    source, out = tmp_path / "a.jpg", tmp_path / "out"
    out.mkdir()
    source.write_bytes(b"original")
    (out / "a.png").write_bytes(b"release")
    hashes = {"sha256_in": sha256_of(source), "sha256_out": sha256_of(out / "a.png")}
    return make_entry(**hashes), source, out


def test_a_finished_picture_is_proven_done(done: tuple[Entry, Path, Path]) -> None:
    entry, source, out = done
    for status in ("ok", "kept-naive", "not-kept"):
        assert proves_done(replace(entry, status=status), source, out, "s1")


def test_nothing_less_proves_it(done: tuple[Entry, Path, Path]) -> None:
    entry, source, out = done
    assert not proves_done(entry, source, out, "s2")
    assert not proves_done(replace(entry, status="failed", error="e"), source, out, "s1")
    assert not proves_done(replace(entry, sha256_in=None), source, out, "s1")
    assert not proves_done(replace(entry, sha256_out=None), source, out, "s1")
    assert not proves_done(replace(entry, output=None), source, out, "s1")
    assert not proves_done(entry, source.with_name("gone.jpg"), out, "s1")
    (out / "a.png").write_bytes(b"releas")
    assert not proves_done(entry, source, out, "s1")
    (out / "a.png").unlink()
    assert not proves_done(entry, source, out, "s1")


def test_a_changed_input_is_done_again(done: tuple[Entry, Path, Path]) -> None:
    entry, source, out = done
    source.write_bytes(b"edited")
    assert not proves_done(entry, source, out, "s1")


def test_a_picture_without_regions_needs_no_output(done: tuple[Entry, Path, Path]) -> None:
    entry, source, out = done
    bare = replace(entry, status="no-region", output=None, sha256_out=None, regions=())
    assert proves_done(bare, source, out, "s1")


def run_of_five() -> Iterator[Entry]:
    """One win, one loss, one left alone, one without regions, one failure."""

    def two(naive: Answer, after: Answer, checked: Answer) -> tuple[Decision, ...]:
        return (
            Decision("searched", CAT, naive, after, after == CAT),
            Decision("checked", CAT, DOG, checked, checked == CAT, checked_only=True),
        )

    yield make_entry("win", decisions=two(DOG, CAT, CAT), queries=12)
    yield make_entry("loss", "not-kept", decisions=two(DOG, DOG, DOG), queries=40)
    yield make_entry("calm", "kept-naive", decisions=two(CAT, CAT, DOG), queries=2)
    yield make_entry("bare", "no-region", regions=(), decisions=())
    yield make_entry("bad", "failed", decisions=two(DOG, DOG, DOG), queries=7)


def test_a_summary_counts_searched_models_and_lists_all(tmp_path: Path) -> None:
    summary = summarize(run_of_five(), seconds=10, seed=3, version="1.2")
    path = tmp_path / "summary.json"
    write_summary(path, summary)
    assert json.loads(path.read_text("utf-8")) == {
        "images": 5,
        "failed": 1,
        "with_regions": 3,
        "changed_naive": 2,
        "changed_after": 1,
        "per_model": {
            "searched": {
                "n": 3,
                "changed_naive": 2,
                "changed_after": 1,
                "kept_of_flipped": 1,
                "agreement_all": pytest.approx(2 / 3),
                "agreement_flipped": 0.5,
                "checked_only": False,
            },
            "checked": {
                "n": 3,
                "changed_naive": 3,
                "changed_after": 2,
                "kept_of_flipped": 1,
                "agreement_all": pytest.approx(1 / 3),
                "agreement_flipped": pytest.approx(1 / 3),
                "checked_only": True,
            },
        },
        "seconds": 10,
        "images_per_second": 0.5,
        "seed": 3,
        "version": "1.2",
        "queries": 54,
        "queries_median": 12,
        "queries_most": 40,
    }
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_a_summary_of_nothing_divides_by_nothing() -> None:
    summary = summarize([], seconds=0, seed=0, version="1")
    assert summary.images_per_second == 0
    assert summary.to_dict()["per_model"] == {}
    calm = make_entry(decisions=(Decision("m", CAT, CAT, CAT, True),))
    found = summarize([calm], seconds=0, seed=0, version="1").per_model["m"]
    assert (found.agreement_all, found.agreement_flipped) == (1, None)


def test_a_release_not_kept_as_asked_counts_as_changed_even_with_the_same_class() -> None:
    top5_lost = make_entry(decisions=(Decision("m", CAT, CAT, CAT, False),))
    assert summarize([top5_lost], seconds=1, seed=0, version="1").changed_after == 1
