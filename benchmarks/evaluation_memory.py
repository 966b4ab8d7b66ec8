"""Peak memory of ``scotoma evaluate`` over ever more pictures: it must not grow with them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.jobs import run_measured
from benchmarks.page import table
from benchmarks.pictures import SHARED
from benchmarks.record import Benchmark, Job, Measured, Options, Row

__all__ = ["BENCHMARK"]

_MEBI = 2**20
_PICTURES = SHARED / "data" / "cifar10" / "test.zip"
_CONFIGURATION = """
[run]
seed = {seed}
pictures_per_key = 40
metrics = ["block_brightness_correlation", "psnr_db"]

[data.cifar10]
path = "{path}"
size = [64, 64]
pictures = {count}
auxiliary = 100

[protections.orthogonal]
block = 8

[attacks.norm-thumbnail]

[attacks.pca]
"""


def _jobs(options: Options) -> Iterator[Job]:
    for count in (40, 80) if options.quick else (100, 1_000, 4_000):
        config = {"pictures": "cifar10/test at 64 pixels", "count": count, "seed": options.seed}
        yield Job(
            f"evaluation memory: {count} pictures", config, partial(_measure, config, options)
        )


def _measure(config: dict[str, Any], options: Options) -> Measured:
    folder = options.cache / "evaluation_memory"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "evaluation.toml"
    path.write_text(
        _CONFIGURATION.format(seed=config["seed"], path=_PICTURES, count=config["count"]), "utf-8"
    )
    begun = time.perf_counter()
    code, peak = run_measured(["evaluate", path, "-o", folder / "out"], folder / "log.txt")
    seconds = time.perf_counter() - begun
    if code != 0:
        raise RuntimeError(f"scotoma ended with {code}; see {folder / 'log.txt'}")
    return Measured(
        config["count"], {"peak_mib": round(peak / _MEBI, 1), "seconds": round(seconds, 1)}
    )


def _render(rows: Sequence[Row]) -> str:
    first = rows[0]["values"]["peak_mib"]
    lines = [
        [
            f"{row['n']:,} pictures",
            f"{row['values']['peak_mib']:,.0f} MiB",
            f"{row['values']['peak_mib'] / first:.3f}×",
        ]
        for row in rows
    ]
    text = (
        "Peak resident memory of one `scotoma evaluate` process: two attacks on `orthogonal`, 40 "
        "pictures of 64 pixels to a key, read from a zip as they are needed."
    )
    head = ["pictures", "peak", "of the first row"]
    return "\n".join(["## Memory of evaluations", "", text, "", table(head, lines)])


BENCHMARK = Benchmark("evaluation_memory", _jobs, _render)
