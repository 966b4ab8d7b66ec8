"""What a user is told who asks for a method whose library is not there."""

from __future__ import annotations

import sys

import pytest

from scotoma.core.errors import MissingExtraError
from scotoma.optimize.bounds import Bounds
from scotoma.optimize.search import Search


@pytest.mark.parametrize(
    ("name", "package", "command"),
    [
        ("cma-es", "cma", "pip install 'scotoma[optimize]'"),
        ("de", "scipy.optimize", "pip install 'scotoma[optimize]'"),
        ("pso", "nevergrad", "'scotoma[optimize]' && pip install --no-deps nevergrad"),
    ],
)
def test_the_way_to_install_is_named(
    name: str, package: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        Search(name, Bounds.cube(2, -1.0, 1.0), budget=50).ask()
    assert str(caught.value).endswith(command)
