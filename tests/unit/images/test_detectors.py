"""The registry of detectors, and a plugin brought by a package of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scotoma.core.errors import SettingsError
from scotoma.images.centerface import CenterFace
from scotoma.images.detectors import detectors
from scotoma.images.region_sources import open_regions
from scotoma.images.regions import DetectorSettings

PLUGIN = """
from scotoma.images.regions import Region

class PlateDetector:
    def __init__(self, settings):
        self.settings = settings

    def find(self, pixels, relative):
        return [Region((0, 0, 2, 1), label="plate", score=self.settings.threshold)]
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "plates_of_a_test.py").write_text(PLUGIN)
    info = tmp_path / "plates_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plates-of-a-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[scotoma.detectors]\nplates = plates_of_a_test:PlateDetector\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(detectors, "_plugins", None)
    return info / "entry_points.txt"


def test_faces_is_built_in() -> None:
    assert "faces" in detectors.names()
    source = open_regions("faces", DetectorSettings(threshold=0.7))
    assert source == CenterFace(DetectorSettings(threshold=0.7))


def test_a_plugin_answers_by_its_name_with_the_settings_given(plugin: Path) -> None:
    assert detectors.names() == ["faces", "plates"]
    source = open_regions("plates", DetectorSettings(threshold=0.4))
    (region,) = source.find(np.zeros((5, 5, 3), np.uint8), Path("a.png"))
    assert (region.label, region.score) == ("plate", 0.4)


def test_a_plugin_cannot_take_a_built_in_name(plugin: Path) -> None:
    plugin.write_text("[scotoma.detectors]\nfaces = plates_of_a_test:PlateDetector\n")
    with pytest.raises(SettingsError, match="two detectors are named 'faces'"):
        open_regions("faces")
