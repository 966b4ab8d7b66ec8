"""The package's front door: light, complete, and true to what it names."""

from __future__ import annotations

import pytest

import scotoma


@pytest.mark.parametrize("name", scotoma.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(scotoma, name).__name__ == name
    assert getattr(scotoma, name).__doc__


def test_nothing_is_promised_that_is_not_listed() -> None:
    assert sorted(scotoma._HOMES) == sorted(scotoma.__all__)
    with pytest.raises(AttributeError, match="no attribute 'anonymise'"):
        scotoma.anonymise  # noqa: B018
