"""Records: whole lines that come back as they were, and a rerun that knows what is done."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from scotoma.core.errors import FileError, SettingsError
from scotoma.evaluate.records import (
    RECORDS,
    Choice,
    Figure,
    Paper,
    Record,
    RecordBook,
    fingerprint_of,
    read_records,
)

RECORD = Record(
    kind="attack",
    protection=Choice("orthogonal", {"block": 8, "period": [2, 2]}, "rotation"),
    attack=Choice("pca"),
    threat_model="many-releases",
    model="embedded",
    data="orl",
    n=12,
    seed=3,
    pictures_per_key=4,
    keys=3,
    metrics={"psnr_db": Figure(12.5, 11.0, 13.0, 12, "dB")},
    trivial={"psnr_db": Figure(9.0, 8.0, 10.0, 12, "dB")},
    paper={"psnr_db": Paper(10.0, "Somebody 2023, Table 1")},
    oracle=True,
    candidates=5,
    notes=("one", "two"),
    fingerprint="f1",
)


def test_a_record_comes_back_as_it_was() -> None:
    assert Record.from_json(RECORD.to_json()) == RECORD
    utility = replace(RECORD, kind="utility", attack=None)
    assert Record.from_json(utility.to_json()) == utility
    assert "\n" not in RECORD.to_json()
    assert RECORD.to_json().isascii()


def test_what_is_no_number_comes_back_as_none_and_infinity_as_infinity() -> None:
    figures = {"a": Figure(math.inf, math.nan, -math.inf, 2)}
    record = Record.from_json(replace(RECORD, metrics=figures).to_json())
    found = record.metrics["a"]
    assert (found.value, found.high) == (math.inf, -math.inf)
    assert math.isnan(found.low)
    json.loads(record.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_versions_are_noted() -> None:
    assert {"scotoma", "torch", "python"} <= RECORD.versions.keys()


@pytest.mark.parametrize(
    "changes", [{"kind": "other"}, {"status": "fine"}, {"status": "failed", "reason": ""}], ids=str
)
def test_what_is_no_record_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        replace(RECORD, **changes)


def test_a_rerun_skips_what_is_done_and_tries_failures_again(tmp_path: Path) -> None:
    with RecordBook(tmp_path / "out") as book:
        book.append(RECORD)
        book.append(replace(RECORD, fingerprint="f2", status="failed", reason="a bug"))
        book.append(replace(RECORD, fingerprint="f3", status="not-applicable", reason="no hold"))
        assert book.has("f1")
    with RecordBook(tmp_path / "out") as book:
        assert [book.has(name) for name in ("f1", "f2", "f3", "f4")] == [True, False, True, False]
        book.append(replace(RECORD, fingerprint="f2", n=99))
        assert book.has("f2")
    found = {record.fingerprint: record for record in read_records(tmp_path / "out")}
    assert len(found) == 3
    assert (found["f2"].status, found["f2"].n) == ("ok", 99)


def test_a_torn_last_line_is_no_record_and_no_obstacle(tmp_path: Path) -> None:
    with RecordBook(tmp_path) as book:
        book.append(RECORD)
    with (tmp_path / RECORDS).open("ab") as file:
        file.write(b'{"kind": "att')
    assert read_records(tmp_path) == [RECORD]
    with RecordBook(tmp_path) as book:
        book.append(replace(RECORD, fingerprint="f2"))
    assert [record.fingerprint for record in read_records(tmp_path)] == ["f1", "f2"]


def test_a_whole_line_that_is_no_record_is_an_error(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text('{"kind": "attack"}\n')
    with pytest.raises(FileError, match="expected a record"):
        RecordBook(tmp_path)


def test_where_nothing_can_be_written_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileError, match="choose another output folder"):
        RecordBook(tmp_path / "out")
    book = RecordBook(tmp_path / "other")
    book.close()
    with pytest.raises(FileError, match="already closed"):
        book.append(RECORD)


def test_fingerprints_change_with_every_fact() -> None:
    facts = {"seed": 1, "attack": {"name": "pca", "steps": 3}}
    changed = [{**facts, "seed": 2}, {**facts, "attack": {"name": "pca", "steps": 4}}]
    found = {fingerprint_of(**one) for one in (facts, *changed)}
    assert len(found) == 3
    assert fingerprint_of(**facts) == fingerprint_of(**dict(reversed(facts.items())))
