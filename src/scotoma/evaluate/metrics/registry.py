"""The metrics by name: what each measures, in which unit, and who wants more of it.

Names and summaries are here so that they can be listed without torch; a metric's module is
imported when somebody computes it. A plugin is an entry point in the group
``scotoma.metrics`` that names a :class:`Metric`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, cast

from scotoma.core.errors import SettingsError
from scotoma.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MEASURES", "Metric", "PictureMetric", "metrics"]

PictureMetric = Callable[["Tensor", "Tensor", Mapping[str, Any]], "Tensor"]
"""``(guesses, originals, context) -> (B,)`` float64.

Pictures are ``(B, 3, H, W)`` float32 in [0, 1]. ``context`` is what may be known of the
release: ``metadata``, and ``block``, the side of its blocks in pixels or None. Raises
:class:`~scotoma.core.errors.NotApplicableError` where it says nothing of such pictures.
"""


@dataclass(frozen=True)
class Metric:
    """One way to judge.

    Args:
        name: As in configurations and records.
        unit: As ``dB``; empty for a pure number.
        better: ``higher`` or ``lower``: what whoever gains from it wants. Of a guess that is
            the attacker; of what a model still says, the owner.
        summary: One line.
        source: Whose it is, and which library computes it.
        home: ``"module:function"``, see :data:`PictureMetric`.

    Raises:
        SettingsError: ``better`` is something else.
    """

    name: str
    unit: str
    better: str
    summary: str
    source: str
    home: str = ""

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise SettingsError(f"expected better as 'higher' or 'lower', got {self.better!r}")

    @property
    def function(self) -> PictureMetric:
        """What computes it; imported on the first use."""
        return cast("PictureMetric", EntryPoint(self.name, self.home, "scotoma.metrics").load())


_HERE = "scotoma.evaluate.metrics"
_PICTURES = (
    Metric(
        "psnr_db",
        "dB",
        "higher",
        "peak signal-to-noise ratio",
        "torchmetrics",
        f"{_HERE}.pictures:psnr_db",
    ),
    Metric(
        "ssim",
        "",
        "higher",
        "structural similarity",
        "Wang et al., IEEE TIP 2004; scikit-image",
        f"{_HERE}.pictures:ssim",
    ),
    Metric(
        "ms_ssim",
        "",
        "higher",
        "structural similarity over five scales",
        "Wang et al., Asilomar 2003; torchmetrics",
        f"{_HERE}.pictures:ms_ssim",
    ),
    Metric(
        "edge_psnr_db",
        "dB",
        "higher",
        "peak signal-to-noise ratio of the lengths of Sobel gradients",
        "Azizian and Bajić, PCS 2022",
        f"{_HERE}.pictures:edge_psnr_db",
    ),
    Metric(
        "lpips",
        "",
        "lower",
        "learned perceptual distance, SqueezeNet",
        "Zhang et al., CVPR 2018; lpips",
        f"{_HERE}.perceptual:lpips",
    ),
    Metric(
        "block_brightness_correlation",
        "",
        "higher",
        "correlation of the blocks' mean brightness, without its sign",
        "this project",
        f"{_HERE}.brightness:block_brightness_correlation",
    ),
    Metric(
        "luma_correlation",
        "",
        "higher",
        "correlation of the pixels' brightness, without its sign",
        "this project",
        f"{_HERE}.brightness:luma_correlation",
    ),
    Metric(
        "signed_block_brightness_correlation",
        "",
        "higher",
        "correlation of the blocks' mean brightness; of a negative it is -1",
        "this project",
        f"{_HERE}.brightness:signed_block_brightness_correlation",
    ),
    Metric(
        "neighbour_accuracy",
        "",
        "higher",
        "share of neighbouring patches that are neighbours in the guess, too",
        "Cho, Avidan, Freeman, CVPR 2010; this project",
        f"{_HERE}.jigsaw:neighbour_accuracy",
    ),
)

metrics: Registry[Metric] = Registry("metric")
"""Metrics of one guess against one original."""

for _metric in _PICTURES:
    metrics.register(_metric.name)(_metric)

_OTHERS = (
    Metric("agreement", "", "higher", "share of decisions that stay", "this project"),
    Metric("decision_changes", "", "lower", "share of decisions that change", "this project"),
    Metric("top1", "", "higher", "share of pictures whose label comes first", "this project"),
    Metric("top5", "", "higher", "share whose label is among the first five", "this project"),
    Metric("map", "", "higher", "mean average precision of boxes", "COCO; faster-coco-eval"),
    Metric("bits_per_pixel", "bit", "lower", "size per pixel of the original", "this project"),
    Metric("bd_rate", "%", "lower", "mean size at equal quality", "Bjontegaard 2001; bjontegaard"),
    Metric("latency_ms", "ms", "lower", "median time of one call", "this project"),
    Metric("reid_rank1", "", "higher", "share whose person is recognized first", "this project"),
    Metric("reid_auc", "", "higher", "how well same and other people part", "scikit-learn"),
    Metric("redetection", "", "higher", "share in which the detector fires", "this project"),
)

MEASURES: dict[str, Metric] = {metric.name: metric for metric in (*_PICTURES, *_OTHERS)}
"""All that records may hold: metrics of guesses, and rates of whole sets."""
