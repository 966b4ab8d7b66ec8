"""Detectors by name, for what cuts networks in two: ``yolov5:FILE`` or ``yolov5:FILE@SIDE``."""

from __future__ import annotations

from pathlib import Path

from scotoma.core.errors import SettingsError
from scotoma.models.blueprint import Blueprint
from scotoma.models.classifier import Classifier
from scotoma.models.coco_names import COCO_NAMES
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.yolov5 import STRIDES, load_yolov5

__all__ = ["is_detector", "load_detector", "parse_detector"]

_SCHEME = "yolov5:"
_SIDE = 640


def is_detector(spec: str) -> bool:
    """Return whether a SPEC names a detector."""
    return spec.startswith(_SCHEME)


def parse_detector(spec: str) -> tuple[str, int]:
    """Return a detector's file (or size ``n``, ``s``, ``m``), and the side of what it reads.

    Raises:
        SettingsError: A side that no detector reads.
    """
    target = spec.removeprefix(_SCHEME)
    name, marked, side = target.rpartition("@")
    if not marked or not side.isdecimal():
        return target, _SIDE
    if not (int(side) > 0 and int(side) % STRIDES[-1] == 0):
        raise SettingsError(f"expected a side that is a multiple of {STRIDES[-1]}, got {side}")
    return name, int(side)


def load_detector(spec: str, *, device: str = "cpu") -> Classifier:
    """Return a detector with how it reads pictures; it answers maps instead of logits.

    Args:
        spec: ``yolov5:FILE``, at 640 pixels, or ``yolov5:FILE@SIDE``.
        device: Where the network is put.

    Raises:
        ModelError: Missing, damaged, or not weights of YOLOv5 n, s or m.
        SettingsError: A side that is no multiple of 32.
    """
    target, side = parse_detector(spec)
    network = load_yolov5(Path(target).expanduser(), device=device)
    config = network.config
    return Classifier(
        spec=spec,
        name=f"yolov5{config.size}",
        network=network,
        preprocessing=Preprocessing(
            (3, side, side), (0.0,) * 3, (1.0,) * 3, "bilinear", 1.0, "letterbox"
        ),
        classes=COCO_NAMES if config.classes == len(COCO_NAMES) else None,
        differentiable=True,
        device=device,
        blueprint=Blueprint("scotoma", "yolov5", {"size": config.size, "classes": config.classes}),
    )
