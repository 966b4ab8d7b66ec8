"""What attackers get of ``hardened``, part by part, and what it costs.

Every attack knows how the scheme works, and an oracle takes its best component and sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.hardened_measures import attack, cost, group, learn, recognize, repeat, solve
from benchmarks.hardened_page import render
from benchmarks.hardened_releases import STAGES
from benchmarks.record import Benchmark, Job, Options

__all__ = ["BENCHMARK"]

CURVES = (
    (224, 8, (1, 10, 100, 1000)),
    (64, 8, (100, 800)),
    (32, 4, (1, 10, 100, 200, 500, 1000, 2000, 10000)),
)
"""Side of the pictures, side of a block, pictures under one key."""
PAIRS = ((224, 8, (1, 10, 100, 1000)), (32, 4, (1, 10, 100, 200, 500, 1000, 2000)))


def _jobs(options: Options) -> Iterator[Job]:
    quick = options.quick
    for stage in STAGES:
        config = {"part": "ablation", "stage": stage, "side": 224, "block": 8}
        config |= {"pictures": 10 if quick else 100, "seed": options.seed}
        yield Job(f"attacks on {stage}", config, partial(attack, config))
    for stage in ("whitened, noise, values moved only", "hardened"):
        config = {"part": "grouping", "stage": stage, "side": 32, "block": 4}
        config |= {"pictures": 100 if quick else 3000, "seed": options.seed}
        yield Job(f"blocks put together from {stage}", config, partial(group, config))
    for part, kinds, measure in (("curve", CURVES, attack), ("pairs", PAIRS, learn)):
        for side, block, counts in kinds:
            for count in counts:
                if quick and count > 100:
                    continue
                config = {"part": part, "stage": "hardened", "side": side, "block": block}
                config |= {"pictures": count, "seed": options.seed}
                what = "pictures under one key" if part == "curve" else "known pairs"
                yield Job(f"{count} {what}, {side} pixels", config, partial(measure, config))
    for stage in ("orthogonal", "hardened", "nothing but noise"):
        config = {"part": "faces", "stage": stage, "side": 112, "block": 4}
        config |= {"people": 4 if quick else 28, "each": 5, "seed": options.seed}
        yield Job(f"faces recognized from {stage}", config, partial(recognize, config))
    config = {"part": "repeat", "stage": "hardened", "side": 224, "block": 8}
    config |= {"pictures": 10 if quick else 100, "seed": options.seed}
    yield Job("the same picture released twice", config, partial(repeat, config))
    config = {"part": "server", "side": 64, "block": 8, "pictures": 4, "seed": options.seed}
    yield Job("the server with the public checkpoint", config, partial(solve, config))
    for stage in ("orthogonal", "hardened"):
        config = {"part": "cost", "stage": stage, "side": 224, "block": 8}
        config |= {"pictures": 4 if quick else 100, "seed": options.seed}
        yield Job(f"what {stage} costs", config, partial(cost, config))


BENCHMARK = Benchmark("hardened", _jobs, render)
