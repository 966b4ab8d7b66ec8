"""Peak memory of the command over ever more files: it must not grow with them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.generated import generated_model, write_pictures
from benchmarks.jobs import run_measured
from benchmarks.page import number, table
from benchmarks.record import Benchmark, Job, Measured, Options, Row

__all__ = ["BENCHMARK"]

_MEBI = 2**20


def _jobs(options: Options) -> Iterator[Job]:
    for count in (4, 8) if options.quick else (100, 1_000, 10_000):
        config = {
            "pictures": "generated, 96x96, JPEG",
            "count": count,
            "model": _model(options).partition(":")[0],
            "regions": "center:0.3",
            "fill": "solid",
            "format": "png",
            "seed": options.seed,
        }
        yield Job(f"peak memory: {count} files", config, partial(_measure, config, options))


def _measure(config: dict[str, Any], options: Options) -> Measured:
    folder = options.cache / "memory"
    pictures = write_pictures(
        folder / f"pictures-{config['count']}", config["count"], seed=options.seed
    )
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    code, peak = run_measured(
        [
            *("anonymize", pictures, "-o", out, "--model", _model(options)),
            *("--regions", config["regions"], "--fill", config["fill"]),
            *("--seed", config["seed"]),
        ],
        folder / "log.txt",
    )
    seconds = time.perf_counter() - begun
    if code not in (0, 3):
        raise RuntimeError(f"scotoma ended with {code}; see {folder / 'log.txt'}")
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    shutil.rmtree(out)
    return Measured(
        config["count"],
        {
            "peak_mib": round(peak / _MEBI, 1),
            "seconds": round(seconds, 1),
            "images": summary["images"],
            "failed": summary["failed"],
            "changed_naive": summary["changed_naive"],
            "changed_after": summary["changed_after"],
        },
    )


def _model(options: Options) -> str:
    return generated_model(options.cache / "memory" / "convmixer.safetensors", seed=options.seed)


def _render(rows: Sequence[Row]) -> str:
    first = rows[0]["values"]["peak_mib"]
    lines = [
        [
            f"{row['n']:,} files",
            f"{row['values']['peak_mib']:,.0f} MiB",
            f"{row['values']['peak_mib'] / first:.3f}×",
            str(row["values"]["failed"]),
            f"{row['values']['changed_naive']} → {row['values']['changed_after']}",
            number(row["values"]["images"] / row["values"]["seconds"], 1),
        ]
        for row in rows
    ]
    head = ["input", "peak", "of the first row", "failed", "changed: fill → release", "pictures/s"]
    text = (
        "Peak resident memory of one `scotoma anonymize` process, start of Python, report and all, "
        "over generated 96×96 JPEG files (`center:0.3`, solid fill, PNG)."
    )
    return "\n".join(["## Memory", "", text, "", table(head, lines)])


BENCHMARK = Benchmark("memory", _jobs, _render)
