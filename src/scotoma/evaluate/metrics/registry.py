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
_OURS = "this project"
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
        _OURS,
        f"{_HERE}.brightness:block_brightness_correlation",
    ),
    Metric(
        "luma_correlation",
        "",
        "higher",
        "correlation of the pixels' brightness, without its sign",
        _OURS,
        f"{_HERE}.brightness:luma_correlation",
    ),
    Metric(
        "signed_block_brightness_correlation",
        "",
        "higher",
        "correlation of the blocks' mean brightness; of a negative it is -1",
        _OURS,
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
    Metric("agreement", "", "higher", "share of decisions that stay", _OURS),
    Metric("decision_changes", "", "lower", "share of decisions that change", _OURS),
    Metric("logit_error", "", "lower", "largest change of a logit, of the largest logit", _OURS),
    Metric("top1", "", "higher", "share of releases whose label comes first", _OURS),
    Metric("top5", "", "higher", "share of releases whose label is among five", _OURS),
    Metric("top1_plain", "", "higher", "the same of pictures and the plain model", _OURS),
    Metric("top5_plain", "", "higher", "the same of pictures and the plain model", _OURS),
    Metric("map", "", "higher", "mean average precision of boxes", "COCO; faster-coco-eval"),
    Metric("bits_per_pixel", "bit", "lower", "size per pixel of the original", _OURS),
    Metric("bd_rate", "%", "lower", "mean size at equal quality", "Bjontegaard 2001; bjontegaard"),
    Metric("latency_ms", "ms", "lower", "time of the adapted model per picture", _OURS),
    Metric("latency_plain_ms", "ms", "lower", "time of the plain model per picture", _OURS),
    Metric("protect_ms", "ms", "lower", "time to protect a picture", _OURS),
    Metric("reid_rank1", "", "higher", "people recognized by other pictures of them", _OURS),
    Metric("chance_reid_rank1", "", "higher", "the same by chance", _OURS),
    Metric("auc_reid", "", "higher", "how well same and other people part; chance 0.5", _OURS),
    Metric("linkage_rank1", "", "higher", "people recognized by the originals", _OURS),
    Metric("chance_linkage_rank1", "", "higher", "the same by chance", _OURS),
    Metric("auc_linkage", "", "higher", "how well the originals tell people apart", _OURS),
    Metric("redetection", "", "higher", "objects that a detector still finds", _OURS),
)

MEASURES: dict[str, Metric] = {metric.name: metric for metric in (*_PICTURES, *_OTHERS)}
"""All that records may hold: metrics of guesses, and rates of whole sets."""
