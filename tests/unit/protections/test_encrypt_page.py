"""The page on encryption: its examples run, and no scheme is left out."""

from __future__ import annotations

import doctest
from pathlib import Path

from scotoma.protections.encrypt.schemes import schemes

PAGE = Path(__file__).resolve().parents[3] / "docs" / "encryption.md"


def test_the_examples_give_what_the_page_says() -> None:
    results = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert results.attempted > 10
    assert results.failed == 0


def test_every_scheme_has_its_row_and_its_weakness() -> None:
    table, weaknesses = PAGE.read_text("utf-8").split("## What this does not protect against")
    for name in schemes.names():
        assert f"\n| `{name}` |" in table
        assert f"`{name}`" in weaknesses
