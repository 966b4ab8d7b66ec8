"""Configurations and limits: what is wrong is said, all of it, with what would be right."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from support.evaluation import write_groups
from test_records import RECORD

from scotoma.core.errors import FileError, SettingsError, UnknownNameError
from scotoma.evaluate.config_reader import parse_config, read_config
from scotoma.evaluate.limits import check_limits, parse_limit
from scotoma.evaluate.records import Choice, Figure
from scotoma.evaluate.table import list_cells

GOOD = """
[run]
seed = 4
metrics = ["psnr_db"]
[data.some]
path = "pictures"
pictures = 3
[models.embedded]
[protections.rotation]
name = "orthogonal"
block = 8
[protections.none]
[attacks.look]
protections = ["none"]
[attacks.norm-thumbnail]
threat_models = ["one-release", "many-releases:5"]
[[paper]]
protection = "rotation"
attack = "norm-thumbnail"
metric = "psnr_db"
value = 9.5
source = "Somebody 2023"
"""
BAD = """
[run]
sed = 3
metrics = ["psnr"]
[modles.x]
[data.gone]
path = "nowhere"
[data.some]
path = "pictures"
pictures = "many"
[protections.ortogonal]
[protections.pixelate]
blok = 3
[protections.orthogonal]
block = 1
[attacks.norm-thumbnai]
[attacks.look]
threat_models = ["one-releas"]
protections = ["orthogonol"]
[[paper]]
protection = "x"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_groups(tmp_path / "pictures", 2, 2)
    return tmp_path


def test_a_configuration_becomes_cells(folder: Path) -> None:
    config = parse_config(GOOD, folder=folder)
    assert config.run.seed == 4
    assert config.data["some"].settings.path == folder / "pictures"
    assert config.papers_of("rotation", "norm-thumbnail")["psnr_db"].value == 9.5
    assert [cell.title for cell in list_cells(config)] == [
        "rotation × utility × embedded × some",
        "rotation × norm-thumbnail × one-release × embedded × some",
        "rotation × norm-thumbnail × many-releases:5 × embedded × some",
        "none × utility × embedded × some",
        "none × look × many-releases × embedded × some",
        "none × norm-thumbnail × one-release × embedded × some",
        "none × norm-thumbnail × many-releases:5 × embedded × some",
    ]


def test_every_mistake_is_named_at_once(folder: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_config(BAD, folder=folder, name="bad.toml")
    text = str(caught.value)
    assert text.startswith("12 mistakes in bad.toml:")
    for right in ("'models'", "'seed'", "'psnr_db'", "'orthogonal'", "'norm-thumbnail'"):
        assert f"did you mean {right}?" in text
    for part in ("nowhere", "a whole number", "blok", "at least 2", "'one-release'", "metric"):
        assert part in text


def test_what_holds_no_cells_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_config("", folder=folder)
    for section in ("data", "protections", "attacks"):
        assert f"[{section}.LABEL]" in str(caught.value)
    with pytest.raises(SettingsError, match="expected TOML"):
        parse_config("[run", folder=folder)
    with pytest.raises(FileError, match="expected a configuration"):
        read_config(folder / "none.toml")


def test_limits_are_held_to_values_or_to_intervals() -> None:
    figures = {"ssim": Figure(0.2, 0.1, 0.4, 9), "agreement": Figure(0.99, 0.9, 1.0, 9)}
    record = replace(RECORD, metrics=figures)
    limits = [parse_limit("--max-ssim", "0.3"), parse_limit("--min-agree", "0.95")]
    assert check_limits([record], limits) == []
    assert [b.metric for b in check_limits([record], limits, strict=True)] == ["ssim", "agreement"]
    broken = check_limits([record], [parse_limit("--max-ssim", "0.1")])
    assert [breach.metric for breach in broken] == ["ssim"]
    assert "0.2, expected at most 0.1" in broken[0].reason


def test_what_is_not_a_number_breaks_its_limit() -> None:
    record = replace(RECORD, metrics={"ssim": Figure(math.nan, math.nan, math.nan, 9)})
    for option in ("--max-ssim", "--min-ssim"):
        assert len(check_limits([record], [parse_limit(option, "0.5")])) == 1


def test_a_cell_that_failed_breaks_all_limits_and_none_protects_nothing() -> None:
    limit = [parse_limit("--max-psnr_db", "20")]
    failed = replace(RECORD, status="failed", reason="a bug", metrics={})
    assert [breach.reason for breach in check_limits([RECORD, failed], limit)] == [
        "could not be measured: a bug"
    ]
    plain = replace(
        RECORD, protection=Choice("none"), metrics={"psnr_db": Figure(math.inf, 1, 1, 1)}
    )
    assert check_limits([RECORD, plain], limit) == []
    assert len(check_limits([RECORD, plain], limit, protections=["none"])) == 1


@pytest.mark.parametrize(
    ("option", "value", "kind", "match"),
    [
        ("--max-lpips", "1", UnknownNameError, "no metric in these records named 'lpips'"),
        ("--max-p", "1", SettingsError, "which begins"),
        ("--most-ssim", "1", SettingsError, "expected --max-METRIC"),
        ("--max-ssim", "x", SettingsError, "expected a number"),
        ("--max-ssim", "nan", SettingsError, "got NaN"),
    ],
)
def test_limits_that_cannot_be_checked_are_errors(
    option: str, value: str, kind: type[Exception], match: str
) -> None:
    figures = {"psnr_db": Figure(1, 1, 1, 1), "purity": Figure(1, 1, 1, 1)}
    with pytest.raises(kind, match=match):
        check_limits([replace(RECORD, metrics=figures)], [parse_limit(option, value)])


def test_nothing_to_check_is_an_error() -> None:
    with pytest.raises(SettingsError, match="expected limits"):
        check_limits([RECORD], [])
    with pytest.raises(SettingsError, match="expected measurements"):
        check_limits([], [parse_limit("--max-ssim", "1")])
    with pytest.raises(UnknownNameError, match="did you mean 'rotation'"):
        check_limits([RECORD], [parse_limit("--max-ssim", "1")], protections=["rotatin"])
