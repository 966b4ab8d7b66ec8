"""What a classifier does to a picture before it looks at it.

A decision is what a model says through its own documented preprocessing. For
every classifier here that is timm's evaluation transform, built from the model's
configuration: resize with Pillow, centre crop, scale to [0, 1], normalize.
Detectors read the whole picture, in the middle of a grey square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from PIL import Image

from scotoma.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CROP_MODES = ("center", "squash", "border", "letterbox")
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """timm's evaluation transform as data.

    Args:
        input_size: ``(channels, height, width)`` that the network reads.
        mean: Per channel, subtracted after scaling to [0, 1].
        std: Per channel, divided by.
        interpolation: Pillow filter of the resize: one of bilinear, bicubic, nearest, lanczos.
        crop_pct: Side of the centre crop as a fraction of the resized shorter side; above 1
            the resized picture is smaller than the crop and gets a black border, as a few of
            timm's configurations ask.
        crop_mode: timm's crop mode: ``center``, ``squash`` or ``border``; or ``letterbox``,
            as detectors read pictures (:mod:`scotoma.models.letterbox`).

    Raises:
        ModelError: A value that timm's transform cannot take.
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        if len(self.input_size) != 3 or self.input_size[0] != 3 or min(self.input_size) < 1:
            raise ModelError(
                f"expected input_size (3, height, width), got {self.input_size}; "
                "only models of three colour channels can be used"
            )
        if len(self.mean) != 3 or not all(math.isfinite(value) for value in self.mean):
            raise ModelError(f"expected mean as three finite numbers, got {self.mean}")
        if len(self.std) != 3 or not all(0 < value < math.inf for value in self.std):
            raise ModelError(f"expected std as three positive numbers, got {self.std}")
        if self.interpolation not in _INTERPOLATIONS:
            raise ModelError(
                f"expected interpolation in {_INTERPOLATIONS}, got {self.interpolation!r}"
            )
        if not 0 < self.crop_pct < math.inf:
            raise ModelError(f"expected crop_pct above 0, got {self.crop_pct}")
        if self.crop_mode not in _CROP_MODES:
            raise ModelError(f"expected crop_mode in {_CROP_MODES}, got {self.crop_mode!r}")
        if self.is_letterbox and self.input_size[1] != self.input_size[2]:
            raise ModelError(f"expected a square to put pictures into, got {self.input_size}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Read the fields from a timm configuration (``pretrained_cfg`` or a JSON file's content).

        A nested ``pretrained_cfg`` is looked into; missing fields keep their defaults.

        Raises:
            ModelError: A field of the wrong type or out of range.
        """
        try:
            config = config.get("pretrained_cfg", config)
            known: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list | tuple) else value
                for name, value in config.items()
                if name in cls.__dataclass_fields__ and value is not None
            }
            return cls(**known)
        except (TypeError, AttributeError) as error:
            raise ModelError(
                "expected preprocessing like {'input_size': [3, 224, 224], 'mean': [...], "
                f"'std': [...], 'interpolation': 'bilinear', 'crop_pct': 0.875}}, got: {error}"
            ) from error

    @classmethod
    def from_timm(cls, model: Any) -> Preprocessing:
        """Return what timm's ``resolve_data_config`` says of a model timm created."""
        from timm.data.config import resolve_data_config

        return cls.from_config(resolve_data_config(model=model))  # type: ignore[no-untyped-call]

    def to_config(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_config` reads back."""
        return asdict(self)

    def in_unit_range(self) -> Preprocessing:
        """Return the same without normalization: pictures stay in [0, 1]."""
        return replace(self, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    @property
    def is_letterbox(self) -> bool:
        """Whether pictures are put into a grey square, whole."""
        return self.crop_mode == "letterbox"

    @cached_property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """``timm.data.create_transform`` for evaluation: RGB picture to ``(3, H, W)`` float32."""
        if self.is_letterbox:
            return self._read_letterbox
        from timm.data.transforms_factory import create_transform

        made: Callable[[Image.Image], Tensor] = create_transform(**asdict(self), is_training=False)
        return made

    def _read_letterbox(self, picture: Image.Image) -> Tensor:
        import torch

        from scotoma.models.letterbox import Letterbox

        mean, std = (torch.tensor(part).view(3, 1, 1) for part in (self.mean, self.std))
        pixels, _ = Letterbox(self.input_size[1]).read(picture)
        return (pixels - mean) / std
