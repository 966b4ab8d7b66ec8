"""What the benchmarks publish: right figures, whole rows, and a page that is up to date."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the installed package

from benchmarks.architectures import examine  # noqa: E402
from benchmarks.architectures_page import LIST, render_list  # noqa: E402
from benchmarks.architectures_page import render as render_sweep  # noqa: E402
from benchmarks.figures import quantile, rate, spread, wilson  # noqa: E402
from benchmarks.page import NAMES, PAGE, render_page, table  # noqa: E402
from benchmarks.readme import README, render_readme  # noqa: E402
from benchmarks.readme_encode import splits  # noqa: E402
from benchmarks.record import RESULTS, Book, Job, Measured, fingerprint_of  # noqa: E402
from benchmarks.rivals import Trace, steps_needed  # noqa: E402

FILES = sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
    ids=str,
)
def test_wilson_gives_the_published_examples(count: int, n: int, low: float, high: float) -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, Table I
    assert wilson(count, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_solves_its_own_equation() -> None:
    for count, n in [(3, 7), (40, 41), (1, 846)]:
        for bound in wilson(count, n):
            z = (count / n - bound) / math.sqrt(bound * (1 - bound) / n)
            assert abs(z) == pytest.approx(1.959964, rel=1e-6)


def test_rate_of_nothing_claims_nothing() -> None:
    assert rate(0, 0)["rate"] is None
    assert spread([])["median"] is None


def test_quantile_is_a_value_that_occurred() -> None:
    assert quantile([5, 1, 9, 3], 0.5) == 3
    assert quantile(list(range(1, 101)), 0.95) == 95
    assert quantile([4], 0.95) == 4


def test_steps_needed_counts_over_all_batches() -> None:
    traces = [Trace(2, [0, 1, 2]), Trace(3, [1, 3])]
    assert steps_needed(traces, 4, 10) == 1
    assert steps_needed(traces, 5, 10) == 2
    # The last count of a batch that never got all right stands for no later step.
    assert steps_needed([Trace(3, [1, 2, 2])], 2, 10) == 1
    assert steps_needed([Trace(3, [1, 2, 2])], 3, 10) is None


def _job(number: int) -> Job:
    return Job(f"row {number}", {"number": number}, lambda: Measured(1, {}))


def test_rows_are_kept_and_ordered_and_not_measured_twice(tmp_path: Path) -> None:
    jobs = [_job(number) for number in range(3)]
    book = Book("sample", tmp_path)
    for job in reversed(jobs):
        assert not book.has(job)
        book.enter(job, Measured(7, {"rate": rate(2, 7)}), seed=3, seconds=0.1)
    again = Book("sample", tmp_path)
    assert all(again.has(job) for job in jobs)
    again.arrange(jobs)
    assert [row["what"] for row in Book("sample", tmp_path).rows] == ["row 0", "row 1", "row 2"]


def test_a_measured_row_replaces_the_earlier_one(tmp_path: Path) -> None:
    book = Book("sample", tmp_path)
    book.enter(_job(1), Measured(1, {"x": 1}), seed=0, seconds=0)
    book.enter(_job(1), Measured(1, {"x": 2}), seed=0, seconds=0)
    assert [row["values"] for row in Book("sample", tmp_path).rows] == [{"x": 2}]


def test_rows_of_no_job_go_once_the_others_are_there(tmp_path: Path) -> None:
    book = Book("sample", tmp_path)
    book.enter(_job(9), Measured(1, {}), seed=0, seconds=0)
    book.arrange([_job(0)])
    assert len(book.rows) == 1, "nothing has taken its place yet"
    book.enter(_job(0), Measured(1, {}), seed=0, seconds=0)
    book.arrange([_job(0)])
    assert [row["what"] for row in book.rows] == ["row 0"]


def test_table_lines_have_equal_columns() -> None:
    lines = table(["a", "b"], [["1", "2"], ["3", "4"]]).splitlines()
    assert [line.count("|") for line in lines] == [3, 3, 3, 3]


def test_page_is_what_the_rows_say() -> None:
    assert PAGE.read_text("utf-8") == render_page(), "run: python -m benchmarks render"


def test_list_of_architectures_is_what_the_rows_say() -> None:
    rows = Book("architectures").rows
    if not rows:
        pytest.skip("the sweep over architectures has not been run")
    assert LIST.read_text("utf-8") == render_list(rows), "run: python -m benchmarks render"


def test_sweep_examines_a_model_that_depends_on_its_stem() -> None:
    values = examine("test_vit", seed=0)
    assert (values["adapts"], values["stem"], values["block"]) == (True, "patches", 16)
    assert values["error"] < 1e-5
    assert values["contrast"] > 0.1, "the answers must depend on the picture"
    refused = examine("crossvit_tiny_240", seed=0)
    assert refused["adapts"] is False
    assert "resizes the picture" in refused["reason"]


def test_sweep_counts_what_adapts_exactly() -> None:
    common = {"family": "a", "kernel": [7, 7], "stride": [2, 2], "stem": "overlapping"}
    common |= {"decisions_changed": 0, "adapts": True, "block": 16, "input_size": [3, 8, 8]}
    found = [
        {**common, "error": 1e-6},
        {**common, "error": 1e-3, "error_rounding": 1e-4, "error_double": 1e-12},
        {"family": "b", "adapts": False, "reason": "a resized picture"},
        {"family": "b", "adapts": None, "reason": "too large"},
    ]
    rows = [
        {"what": f"model{number}", "n": number + 1, "values": values}
        for number, values in enumerate(found)
    ]
    page = render_sweep(rows)
    assert "Of the 3 largest outputs, 0 changed" in page  # of models 0 and 1: one and two
    assert "3 could be built" in page
    assert "2 of these adapt (66.7 %), 1 with" in page
    assert "| model1 | 1.0e-03 | 1.0e-04 | 1.0e-12 |" in page
    assert "a resized picture" in page
    assert "too large" in page
    assert "b: 0 of 2" in render_list(rows)


def test_readme_table_is_what_the_rows_say() -> None:
    text = README.read_text("utf-8")
    assert text == render_readme(text), "run: python -m benchmarks render"
    assert "results: begin" in text


def _rows() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in FILES:
        for row in json.loads(path.read_text("utf-8"))["rows"]:
            yield path.stem, row


def test_results_are_of_known_benchmarks() -> None:
    assert {path.stem for path in FILES} <= set(NAMES)


def test_every_row_is_a_whole_record() -> None:
    needed = {"scotoma", "torch", "timm", "python", "threads", "cpu", "date"}
    for name, row in _rows():
        assert row["what"], name
        assert row["fingerprint"] == fingerprint_of(row["config"]), f"{name}: {row['what']}"
        assert isinstance(row["n"], int), f"{name}: {row['what']}"
        assert isinstance(row["seed"], int), f"{name}: {row['what']}"
        assert row["values"], f"{name}: {row['what']}"
        assert needed <= row["environment"].keys(), f"{name}: {row['what']}"


def test_rows_name_no_place_on_a_machine() -> None:
    for path in FILES:
        text = path.read_text("utf-8")
        for place in (str(ROOT), str(ROOT.parent), str(Path.home())):
            assert place + "/" not in text, f"{path.name} names {place}"


def test_the_readme_takes_no_bottleneck_that_lost_the_task_for_the_best() -> None:
    def row(variant: str, points: float, psnr_db: float, bits: float) -> dict[str, object]:
        return {
            "config": {"model": "m", "at": "cut", "variant": variant},
            "n": 9,
            "values": {
                "points_lost": {"points": points, "low": points, "high": points},
                "strongest": {"psnr_db": psnr_db, "notes": ["rising"]},
                "bits_per_pixel": bits,
            },
        }

    plain = row("plain", 0.0, 25.0, 10.0)
    (line,) = splits([plain, row("blind", 40.0, 12.0, 0.1), row("seeing", 0.5, 21.0, 5.0)])
    assert "*seeing*" in line[0]
    assert "21.0 dB**, still learning, 50 %" in line[2]
    assert line[3].endswith("✓")
    (line,) = splits([plain, row("blind", 40.0, 12.0, 0.1)])
    assert line[3].endswith("missed")
    assert not list(splits([plain]))
