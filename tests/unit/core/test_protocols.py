"""A release holds public plain data only."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from torch import Tensor, nn

from scotoma.core.errors import SettingsError
from scotoma.core.keys import Key
from scotoma.core.protocols import Protection, Release

DATA = torch.zeros(1, 3, 8, 8)


def test_metadata_is_what_a_file_would_give_back() -> None:
    metadata = {"scheme": "permute", "input_size": (3, 8, 8), "mean": None, "nested": {"a": 1.5}}
    release = Release(DATA, metadata)
    assert release.metadata == json.loads(json.dumps(metadata))
    metadata["nested"]["a"] = 2.0  # type: ignore[index]
    assert release.metadata["nested"] == {"a": 1.5}, "a copy"


@pytest.mark.parametrize(
    "secret",
    [Key.from_bytes(bytes(32)), b"secret", torch.ones(2), float("nan")],
    ids=["key", "bytes", "tensor", "nan"],
)
def test_what_is_not_plain_data_is_refused(secret: object) -> None:
    with pytest.raises(SettingsError, match="expected metadata of strings"):
        Release(DATA, {"settings": {"hidden": secret}})


def test_a_release_travels() -> None:
    release = Release(DATA, {"format": 1})
    for copied in (pickle.loads(pickle.dumps(release)), copy.deepcopy(release)):
        assert torch.equal(copied.data, DATA)
        assert copied.metadata == release.metadata


def test_repr_shows_no_pixels() -> None:
    assert repr(Release(DATA, {"format": 1})) == "Release((1, 3, 8, 8), {'format': 1})"


def test_the_protocol_is_about_form() -> None:
    class Nothing:
        keyed = False

        def protect(self, images: Tensor) -> Release:
            return Release(images, {})

        def adapt(self, model: nn.Module) -> nn.Module:
            return model

    assert isinstance(Nothing(), Protection)
    assert not isinstance(nn.Identity(), Protection)
