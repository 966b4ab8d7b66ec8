"""Measured figures as readers want them: named, rounded, never flattered."""

from __future__ import annotations

import math

from scotoma.evaluate.metrics.registry import MEASURES
from scotoma.evaluate.records import Figure

__all__ = ["is_rate", "label", "show_interval", "show_value", "strength"]

_LABELS = {
    "agreement": "decisions kept",
    "auc_linkage": "linkage AUC",
    "auc_reid": "recognition AUC",
    "bd_rate": "BD-rate",
    "bits_per_pixel": "size per pixel",
    "block_brightness_correlation": "block brightness",
    "decision_changes": "decisions changed",
    "edge_psnr_db": "edge PSNR",
    "latency_ms": "adapted model",
    "latency_plain_ms": "plain model",
    "linkage_rank1": "linked to the original",
    "logit_error": "largest logit error",
    "lpips": "LPIPS",
    "luma_correlation": "pixel brightness",
    "map": "mAP",
    "ms_ssim": "MS-SSIM",
    "neighbour_accuracy": "neighbours right",
    "protect_ms": "to protect",
    "psnr_db": "PSNR",
    "redetection": "detected again",
    "reid_rank1": "people recognized",
    "ssim": "SSIM",
    "top1": "top-1",
    "top1_plain": "top-1, plain",
    "top5": "top-5",
    "top5_plain": "top-5, plain",
}
_RATES = {
    "agreement",
    "chance_linkage_rank1",
    "chance_reid_rank1",
    "decision_changes",
    "linkage_rank1",
    "neighbour_accuracy",
    "redetection",
    "reid_rank1",
    "top1",
    "top1_plain",
    "top5",
    "top5_plain",
}


def label(name: str) -> str:
    """Return the words for a metric."""
    return _LABELS.get(name, name.replace("_", " "))


def is_rate(name: str) -> bool:
    """Whether a metric is a share, which is shown in percent."""
    return name in _RATES


def strength(name: str, value: float) -> float:
    """Return a number that grows with what a figure gives away; of no figure it is -∞."""
    if math.isnan(value):
        return -math.inf
    known = MEASURES.get(name)
    return -value if known is not None and known.better == "lower" else value


def show_value(name: str, figure: Figure) -> str:
    """Return a figure with its unit.

    Example:
        >>> show_value("agreement", Figure(0.9999, 0.99, 1, 10_000))
        '>99.9 %'
        >>> show_value("psnr_db", Figure(21.347, 20, 22, 9, "dB"))
        '21.3 dB'
    """
    if is_rate(name) and math.isfinite(figure.value):
        return _percent(figure.value)
    text = _number(figure.value)
    return f"{text} {figure.unit}" if figure.unit else text


def show_interval(name: str, figure: Figure) -> str:
    """Return the ends of the 95 % interval; nothing where there is none."""
    if not (math.isfinite(figure.low) and math.isfinite(figure.high)):
        return ""
    if is_rate(name):
        return f"{100 * figure.low:.1f}–{100 * figure.high:.1f} %"
    dash = " to " if figure.low < 0 else "–"
    return f"{_number(figure.low)}{dash}{_number(figure.high)}"


def _percent(rate: float) -> str:
    value = 100 * rate
    if 0 < value < 0.1:
        return "<0.1 %"
    if 99.9 < value < 100:
        return ">99.9 %"
    return f"{value:.1f}".removesuffix(".0") + " %"


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size and size < 5e-3:
        return f"{value:.1e}"
    text = f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return text.replace("-", "−")
