"""What a split model is, besides its weights: the header of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scotoma.core.errors import ModelError
from scotoma.models.blueprint import Blueprint
from scotoma.models.bottleneck import LEVELS, BottleneckSettings
from scotoma.models.preprocessing import Preprocessing

__all__ = ["FORMAT", "SplitDescription"]

FORMAT = 3


@dataclass(frozen=True)
class SplitDescription:
    """What a split model is, besides its weights.

    Args:
        name: Of the plain model, for tables.
        at: Where it is cut; a name that ``scotoma list splits`` prints.
        preprocessing: How pictures are read.
        classes: Name of each logit, where known.
        bottleneck: Its shape; None sends the plain features.
        levels: Values that an element of the latent can have.
        blueprint: How to build the plain network anew; None where only its owner can.
        plain_digest: Of the plain network's weights, so that no other is taken for it.
    """

    name: str
    at: str
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    bottleneck: BottleneckSettings | None
    levels: int = LEVELS
    blueprint: Blueprint | None = None
    plain_digest: str = ""

    def to_config(self) -> dict[str, Any]:
        """Return the file's header."""
        return {
            "format": FORMAT,
            "name": self.name,
            "at": self.at,
            "preprocessing": self.preprocessing.to_config(),
            "classes": None if self.classes is None else list(self.classes),
            "bottleneck": self.bottleneck and self.bottleneck.to_config(),
            "levels": self.levels,
            "blueprint": self.blueprint and self.blueprint.to_config(),
            "plain_digest": self.plain_digest,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], path: Path) -> SplitDescription:
        """Read what :meth:`to_config` wrote.

        Raises:
            ModelError: Another format, or a damaged header.
        """
        if config.get("format") != FORMAT:
            raise ModelError(
                f"expected a split model (format {FORMAT}) in {path}, got format "
                f"{config.get('format')}; make one with: scotoma train split"
            )
        try:
            classes, shape, blueprint = (
                config[name] for name in ("classes", "bottleneck", "blueprint")
            )
            return cls(
                name=str(config["name"]),
                at=str(config["at"]),
                preprocessing=Preprocessing.from_config(config["preprocessing"]),
                classes=None if classes is None else tuple(str(name) for name in classes),
                bottleneck=None if shape is None else BottleneckSettings.from_config(shape),
                levels=int(config["levels"]),
                blueprint=None if blueprint is None else Blueprint.from_config(blueprint),
                plain_digest=str(config["plain_digest"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the header of {path} is damaged: {error!r}") from error
