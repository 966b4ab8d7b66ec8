"""Settings: what can be asked for, and what a release says of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from scotoma.core.errors import ReleaseError, SettingsError, UnknownNameError
from scotoma.protections.encrypt.schemes import Scheme, schemes
from scotoma.protections.encrypt.settings import EncryptSettings

NAMES = [
    "block-shuffle",
    "hardened",
    "mix",
    "orthogonal",
    "orthogonal-per-block",
    "permute",
    "shuffle",
]


def test_the_names_are_those_of_the_command_line() -> None:
    assert schemes.names() == NAMES
    keyed = [name for name in NAMES if schemes.get(name).keyed]
    assert keyed == [name for name in NAMES if name not in ("mix", "shuffle")]
    with pytest.raises(UnknownNameError, match="did you mean 'orthogonal'"):
        EncryptSettings("ortogonal")


@pytest.mark.parametrize("name", NAMES)
def test_schemes_read_options_that_there_are(name: str) -> None:
    scheme = schemes.get(name)
    assert scheme.name == name
    assert scheme.options <= {field.name for field in fields(EncryptSettings)}


def test_listing_schemes_loads_nothing_heavy() -> None:
    code = (
        "import sys; from scotoma.protections.encrypt.settings import EncryptSettings as S;"
        "S('mix'); print(*[m for m in ('torch', 'timm', 'cryptography') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"block": 0}, "block as a whole number"),
        ({"block": 2.0}, "block as a whole number"),
        ({"block": True}, "block as a whole number"),
        ({"block": float("nan")}, "block as a whole number"),
        ({"scheme": "orthogonal", "block": 1}, "at least 2 .* everyone would see the picture"),
        ({"scheme": "permute", "block": 1}, "at least 2"),
        ({"scheme": "orthogonal-per-block", "block": 1}, "at least 2"),
        ({"dataset": None}, "dataset as text"),
        ({"scheme": "orthogonal-per-block", "period": (0, 2)}, "period as a whole number"),
        ({"scheme": "orthogonal-per-block", "period": 2}, r"period \(down, across\)"),
        ({"scheme": "orthogonal", "period": (2, 2)}, "no period for scheme 'orthogonal'"),
        ({"scheme": "permute", "inner": "permute"}, "no inner for scheme 'permute'"),
        ({"scheme": "block-shuffle", "inner": "rotate"}, "no inner cipher named"),
        ({"scheme": "mix", "sub_patches": 3}, "a square number"),
        ({"scheme": "mix", "sub_patches": 1}, "a square number"),
        ({"scheme": "mix", "sub_patches": 9}, "3×3 sub-patches divide"),
        ({"scheme": "shuffle", "sub_patches": 9}, "no sub_patches for scheme 'shuffle'"),
        ({"scheme": "mix", "dataset": "a"}, "no dataset label for the key-less"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EncryptSettings(**values)


@pytest.mark.parametrize(
    "settings",
    [
        EncryptSettings(),
        EncryptSettings("permute", 7, dataset="holidays"),
        EncryptSettings("orthogonal-per-block", 8),
        EncryptSettings("orthogonal-per-block", 8, period=(3, 4)),
        EncryptSettings("block-shuffle", inner="permute"),
        EncryptSettings("mix", 18, sub_patches=9),
        EncryptSettings("shuffle"),
    ],
    ids=str,
)
def test_settings_come_back_from_metadata(settings: EncryptSettings) -> None:
    metadata = {
        "scheme": settings.scheme,
        "settings": settings.to_config(),
        "dataset": settings.dataset or None,
    }
    read = EncryptSettings.from_metadata(json.loads(json.dumps(metadata)))
    assert read == settings


def test_metadata_name_only_what_the_scheme_reads() -> None:
    assert EncryptSettings("mix").to_config() == {"block": 16, "sub_patches": 4}
    assert EncryptSettings("permute").to_config() == {"block": 16}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"scheme": "permute", "settings": None, "dataset": None},
        {"scheme": "none", "settings": {"block": 16}, "dataset": None},
        {"scheme": "permute", "settings": {"block": -1}, "dataset": None},
        {"scheme": "permute", "settings": {"block": 16, "strength": 2}, "dataset": None},
        {"scheme": ["permute"], "settings": {"block": 16}, "dataset": None},
    ],
    ids=str,
)
def test_foreign_metadata_are_an_error(metadata: dict[str, Any]) -> None:
    with pytest.raises(ReleaseError, match="release of a known scheme"):
        EncryptSettings.from_metadata(metadata)


def test_a_scheme_is_keyed_or_not() -> None:
    with pytest.raises(SettingsError, match="either derive"):
        Scheme("neither", "", "")
