"""Latents coded, beside pictures coded: bits against accuracy, speed, and memory over a video.

Codecs of pictures get just what the network reads, at its size, and their files are read back by
the plain network. Latents are coded as one stream of all test pictures, its header included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.coding_curves import (
    FEATURE_CURVES,
    PICTURE_CURVES,
    measure_curve,
    measure_memory,
    measure_speed,
    trained_split,
)
from benchmarks.page import number, percent, table
from benchmarks.record import Benchmark, Job, Measured, Options, Row
from scotoma.core.errors import ScotomaError

__all__ = ["BENCHMARK"]

_SETTINGS = (("cifar10_resnet20", "layer2"), ("mobilenetv2", "blocks.2"))
_PLAIN = "plain"
_TRAINED = {"rate": "bottleneck bound by its rate", "private": "private bottleneck"}
_CODECS = ("entropy", "hevc", "av1")
_POINTS_LOST = 0.01
_ANCHOR = "webp"


def _jobs(options: Options) -> Iterator[Job]:
    for model, at in _SETTINGS:
        count = options.count(325 if model == "mobilenetv2" else 500, 20)
        for codec, settings in PICTURE_CURVES.items():
            kept = settings[::4] if options.quick else settings
            config = _config(model, at, "picture", codec, list(kept), count)
            measure = partial(measure_curve, config, None, options)
            yield Job(f"{model}: pictures as {codec}", config, measure)
        for codec, quantizers in FEATURE_CURVES.items():
            some = quantizers[::4] if options.quick else quantizers
            config = _config(model, at, _PLAIN, codec, list(some), count)
            measure = partial(measure_curve, config, None, options)
            yield Job(f"{model}: plain features at {at} by {codec}", config, measure)
        yield _speed_job(model, at, _PLAIN, None, options)
        for variant, what in _TRAINED.items():
            path = trained_split(model, at, variant, options)
            if not path.is_file():
                continue
            for codec in _CODECS:
                finer = [q for q in FEATURE_CURVES[codec] if q is None or q < 16]
                config = _config(model, at, variant, codec, finer, count)
                measure = partial(measure_curve, config, path, options)
                yield Job(f"{model}: {what} at {at} by {codec}", config, measure)
            yield _speed_job(model, at, variant, path, options)
    for every in (350,) if options.quick else (140, 14, 1):
        config = {"video": "people.mp4", "model": "embedded", "at": "blocks.1", "every": every}
        yield Job(
            f"memory: one of {every} frames of a video",
            config,
            partial(measure_memory, config, options),
        )


def _config(
    model: str, at: str, subject: str, codec: str, settings: list[int | None], count: int
) -> dict[str, Any]:
    return {
        "model": model,
        "at": at,
        "subject": subject,
        "codec": codec,
        "settings": settings,
        "count": count,
    }


def _speed_job(model: str, at: str, subject: str, path: Path | None, options: Options) -> Job:
    config = {"model": model, "at": at, "subject": subject, "kind": "speed"}
    measure = partial(_speed, config, path, options)
    return Job(f"{model}: speed of {subject} at {at}", config, measure)


def _speed(config: dict[str, Any], path: Path | None, options: Options) -> Measured:
    return measure_speed(config, path, options)


def _render(rows: Sequence[Row]) -> str:
    curves = [row for row in rows if "points" in row["values"]]
    speeds = [row for row in rows if row["config"].get("kind") == "speed"]
    memory = [row for row in rows if "peak_mib" in row["values"]]
    parts = [
        "## Bits against accuracy, by codec",
        "",
        "Test pictures at the network's own size. *Fewest bits*: of the settings measured, the "
        "least rate at which at most 1 point of accuracy is lost against the plain network on "
        "uncoded pictures; a dash where none is. *BD-rate* is against WebP pictures, over accuracy "
        "in points; a dash where the curves share too little or are not monotonic. Files of "
        "32-pixel pictures are mostly headers.",
        "",
        _curve_table(curves),
    ]
    if speeds:
        parts += [
            "",
            "## Speed of splitting, for one picture",
            "",
            "Medians in ms, one thread: the whole network, the camera's half, coding losslessly, "
            "reading, the server's half.",
            "",
            _speed_table(speeds),
        ]
    if memory:
        parts += [
            "",
            "## Memory of encoding a video",
            "",
            "`scotoma encode` of `people.mp4` (1,394 frames, 768×432) with the embedded network "
            "cut at `blocks.1`: peak memory of the process.",
            "",
            table(
                ["frames", "peak", "stream, MB", "seconds"],
                [
                    [
                        f"{row['n']:,}",
                        f"{row['values']['peak_mib']:,.0f} MiB",
                        number(row["values"]["stream_bytes"] / 1e6, 2),
                        number(row["values"]["seconds"]),
                    ]
                    for row in memory
                ],
            ),
        ]
    return "\n".join(parts)


def _curve_table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        points, plain = row["values"]["points"], row["values"]["plain_accuracy"]["rate"]
        good = [p for p in points if p["accuracy"]["rate"] >= plain - _POINTS_LOST]
        best = min(good, key=lambda p: p["bits_per_pixel"], default=None)
        most = max(points, key=lambda p: p["bits_per_pixel"])
        lines.append(
            [
                row["what"],
                str(row["n"]),
                f"{100 * plain:.1f} %",
                number(best["bits_per_pixel"], 3) if best else "–",
                percent(best["accuracy"]) if best else "–",
                str(best["setting"] if best["setting"] is not None else "lossless")
                if best
                else "–",
                f"{number(most['bits_per_pixel'], 2)}, {100 * most['accuracy']['rate']:.1f} %",
                _bd_rate(row, rows),
            ]
        )
    head = ["what is sent", "n", "plain network", "fewest bits per pixel", "accuracy there"]
    head += ["setting", "finest measured", "BD-rate"]
    return table(head, lines)


def _bd_rate(row: Row, rows: Sequence[Row]) -> str:
    from scotoma.evaluate.metrics.coding import bd_rate

    for other in rows:
        config = other["config"]
        same = config["model"] == row["config"]["model"]
        if same and config["subject"] == "picture" and config["codec"] == _ANCHOR:
            try:
                return f"{bd_rate(_curve(other), _curve(row)):+.0f} %"
            except ScotomaError:
                return "–"
    return "–"


def _curve(row: Row) -> list[tuple[float, float]]:
    return [
        (point["bits_per_pixel"], 100 * point["accuracy"]["rate"])
        for point in row["values"]["points"]
    ]


def _speed_table(rows: Sequence[Row]) -> str:
    names = list(FEATURE_CURVES)
    lines = []
    for row in rows:
        values = row["values"]
        lines.append(
            [
                row["what"],
                "×".join(map(str, values["latent"])),
                number(values["full_ms"]),
                number(values["head_encode_ms"]),
                number(values["decode_tail_ms"]),
                *(
                    f"{number(values[name]['code_ms'])} / {number(values[name]['read_ms'])}"
                    for name in names
                ),
            ]
        )
    head = ["what", "latent", "whole network", "camera", "server"]
    return table([*head, *(f"{name}: code / read" for name in names)], lines)


BENCHMARK = Benchmark("coding", _jobs, _render)
