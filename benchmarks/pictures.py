"""The pictures and models that lie beside the checkout, and where the faces are in them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, Options
from scotoma.core.errors import FileError

__all__ = [
    "IMAGENET",
    "MODELS",
    "SPECS",
    "find_faces",
    "imagenet",
    "pick",
    "untouched",
    "validation",
]

SHARED = ROOT.parent / "shared"
IMAGENET = SHARED / "data" / "imagenet"
MODELS = SHARED / "models"

SPECS = {
    "mobilenetv2": f"timm:local-dir:{MODELS / 'mobilenetv2_100'}",
    "squeezenet1_1": f"torchvision:squeezenet1_1@{MODELS / 'squeezenet1_1.safetensors'}",
    "mobilenetv1_075": f"exported:{MODELS / 'mobilenetv1_075' / 'model.pt2'}",
    "mobilenetv1_050": f"exported:{MODELS / 'mobilenetv1_050' / 'model.pt2'}",
}
"""Short name to model SPEC."""


def imagenet() -> list[Path]:
    """Return the 650 validation pictures and the 196 full-size photos.

    Raises:
        FileError: They are not there.
    """
    return [*validation(), *_pictures("samples")]


def validation() -> list[Path]:
    """Return the validation pictures, 227×227 each.

    Raises:
        FileError: They are not there.
    """
    return _pictures("val")


def untouched(paths: Sequence[Path]) -> list[Path]:
    """Return those of the paths that no trial looked at when the settings were chosen.

    Trials looked at every sixteenth validation picture, at those drawn with seed 0 for the
    smaller rows, and at faces drawn the same way.
    """
    everything = imagenet()
    seen = set(validation()[::16])
    for pool in (everything, validation()):
        for count in (48, 64, 144, 160):
            seen.update(pick(pool, count, seed=0))
    return [path for path in paths if path not in seen]


def pick(paths: Sequence[Path], count: int, *, seed: int) -> list[Path]:
    """Return ``count`` of the paths (or all), drawn once for a seed, in their given order."""
    if count >= len(paths):
        return list(paths)
    drawn = sorted(random.Random(seed).sample(range(len(paths)), count))
    return [paths[place] for place in drawn]


def find_faces(options: Options) -> tuple[Path, list[Path]]:
    """Detect faces once with the library's own detector.

    Returns:
        A COCO file to give as regions, and the pictures that have a face in it.

    Raises:
        FileError: The pictures are not there.
        MissingExtraError: The detector's packages are not installed.
    """
    from scotoma.run.detect import detect

    coco = options.cache / "faces.json"
    paths = imagenet()
    if options.quick:
        paths = pick(paths, 60, seed=options.seed)
    if not coco.is_file():
        coco.parent.mkdir(parents=True, exist_ok=True)
        detect(paths, coco, "faces")
    found = json.loads(coco.read_text("utf-8"))
    having = {annotation["image_id"] for annotation in found["annotations"]}
    names = {entry["file_name"] for entry in found["images"] if entry["id"] in having}
    return coco, [path for path in paths if path.relative_to(IMAGENET).as_posix() in names]


def face_settings() -> dict[str, Any]:
    """Return the detector's settings, which decide the regions of the rows with faces."""
    from dataclasses import asdict

    from scotoma.images.regions import DetectorSettings

    return asdict(DetectorSettings())


def _pictures(folder: str) -> list[Path]:
    paths = sorted((IMAGENET / folder).glob("*.jpg"))
    if not paths:
        raise FileError(
            f"expected ImageNet pictures in {IMAGENET / folder}, found none; this benchmark needs "
            "the folder shared beside the checkout"
        )
    return paths
