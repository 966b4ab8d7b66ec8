"""What decides an anonymization run besides its pictures and models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from scotoma import __version__
from scotoma.core.errors import UnknownNameError
from scotoma.images.regions import DetectorSettings
from scotoma.images.write import Encoding
from scotoma.models.classifier import Classifier
from scotoma.ops.fills import DEFAULT_FILL, fills
from scotoma.protections.anonymize.settings import SearchSettings

__all__ = ["AnonymizeSettings", "detector_settings"]


@dataclass(frozen=True)
class AnonymizeSettings:
    """Everything that decides a run besides its pictures and models.

    Args:
        regions: Region SPEC: ``faces``, ``center:F``, ``box:...``, a COCO file, ``none``, ...
        detector: Threshold and growth of detected boxes.
        fill: Name of the naive fill.
        adapt: ``gradient`` searches the decisions back, ``none`` only reports them.
        search: Settings of that search.
        encoding: Format and quality of the written files.
        keep_metadata: Names of metadata that may survive.
        copy_unchanged: Write pictures without a region too, metadata stripped.
        seed: Of everything random.

    Raises:
        UnknownNameError: No such fill or adaptation; the message suggests the nearest.
    """

    regions: str = "faces"
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    fill: str = DEFAULT_FILL
    adapt: str = "gradient"
    search: SearchSettings = field(default_factory=SearchSettings)
    encoding: Encoding = field(default_factory=Encoding)
    keep_metadata: frozenset[str] = frozenset()
    copy_unchanged: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        fills.get(self.fill)
        if self.adapt not in ("gradient", "none"):
            raise UnknownNameError("adaptation", self.adapt, ["gradient", "none"])

    def effective_search(self) -> SearchSettings:
        """Return the search settings, with no steps where no adaptation was asked for."""
        return self.search if self.adapt == "gradient" else replace(self.search, max_steps=0)

    def fingerprint(self, models: Sequence[Classifier], observers: Sequence[Classifier]) -> str:
        """Return 16 hexadecimal digits that change with anything that could change a result."""
        plain = asdict(self)
        plain["keep_metadata"] = sorted(self.keep_metadata)
        plain["search"]["keep"] = self.search.keep.text
        plain["models"] = [model.spec for model in models]
        plain["observers"] = [model.spec for model in observers]
        plain["version"] = __version__
        text = json.dumps(plain, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def detector_settings(threshold: float | None, grow: float | None) -> DetectorSettings:
    """Return detector settings with the defaults where None is given."""
    given = {"threshold": threshold, "grow": grow}
    return DetectorSettings(**{name: value for name, value in given.items() if value is not None})
