"""Detectors by name, built in or brought by a plugin.

A detector is made from :class:`~scotoma.images.regions.DetectorSettings` and answers as a
:class:`~scotoma.images.regions.RegionSource`. A plugin is three lines in its own package::

    [project.entry-points."scotoma.detectors"]
    plates = "my_package:PlateDetector"
"""

from __future__ import annotations

from collections.abc import Callable

from scotoma.core.registry import Registry
from scotoma.images.centerface import CenterFace
from scotoma.images.regions import DetectorSettings, RegionSource

__all__ = ["detectors"]

detectors: Registry[Callable[[DetectorSettings], RegionSource]] = Registry("detector")
detectors.register("faces")(CenterFace)
