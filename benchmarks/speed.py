"""Pictures per second, beside the same job written with other libraries, and beside the floor.

All of it in one process, in turns, several times; ratios are of medians. The job: read 96
files, fill the centre, bring the decision back, write PNG files, check.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from benchmarks.figures import rate
from benchmarks.floor import measure_floor
from benchmarks.jobs import classifier, describe_search
from benchmarks.page import number, percent, table
from benchmarks.pictures import pick, validation
from benchmarks.reader import Resize, open_reader
from benchmarks.record import Benchmark, Job, Measured, Options, Row
from benchmarks.rival_job import BATCH, SIDE, STEP_SIZES, Bench, plan_rival, run_rival
from benchmarks.rivals import LIBRARIES, Inside

if TYPE_CHECKING:
    from scotoma.protections.anonymize.settings import SearchSettings

__all__ = ["BENCHMARK", "count_kept", "describe", "open_bench", "search_for"]

CASES = (
    ("center:0.3", True),
    ("center:0.3", False),
    ("center:0.05", True),
    ("center:0.05", False),
)
"""Regions, and whether the others are given more than their documentation gives."""
TESTS = ("as written", "as written and at ±10 %")
_GOAL_RIVAL, _GOAL_FLOOR = 5.0, 1.5


def _jobs(options: Options) -> Iterator[Job]:

    for regions, favoured in CASES:
        for model in ("mobilenetv2", "squeezenet1_1"):
            for test in TESTS:
                config = {
                    "count": options.count(64, 6),
                    "favoured": favoured,
                    "step_sizes": list(STEP_SIZES),
                    "most_steps": options.count(24, 12),
                    "repeats": options.count(3, 1),
                    "seed": options.seed,
                    **describe(model, regions, test),
                }
                others = "others favoured" if favoured else "others as documented"
                yield Job(
                    f"pictures per second: {model}, {regions}, kept {test}, {others}",
                    config,
                    partial(_measure, config, options),
                )


def describe(model: str, regions: str, test: str) -> dict[str, Any]:
    """Return what every speed row's configuration says of the job."""
    return {
        "pictures": f"imagenet/val scaled to {SIDE}x{SIDE}",
        "regions": regions,
        "fill": "solid",
        "format": "png",
        "model": model,
        "test": test,
        "batch": BATCH,
        "search": describe_search(search_for(test)),
    }


def search_for(test: str) -> SearchSettings:
    """Return our settings for a success test: no lead and no resized copies for the bare one."""
    from scotoma.protections.anonymize.settings import SearchSettings

    default = SearchSettings()
    return replace(default, margin=0.0, views=()) if test == TESTS[0] else default


def _measure(config: dict[str, Any], options: Options) -> Measured:
    bench, most = open_bench(config, options), config["most_steps"]
    before = open_reader(bench.model).labels(bench.paths)
    runners: dict[str, Callable[[], None]] = {"ours": partial(_run_ours, bench)}
    runners["ours"]()
    kept = {"ours": count_kept(bench, "ours", before)}
    plans: dict[str, dict[str, Any]] = {}
    for library in LIBRARIES:
        # Both take the same steps up to rounding: the second tries the first one's best size.
        sizes = [plan["step"] for plan in plans.values()] or STEP_SIZES
        plan = plans[library] = plan_rival(bench, library, sizes, kept["ours"], most)
        runners[library] = partial(run_rival, bench, library, plan)
        runners[library]()
        kept[library] = count_kept(bench, library, before)
        while kept[library] < kept["ours"] and plan["steps"] < most:
            plan["steps"] += 1
            runners[library]()
            kept[library] = count_kept(bench, library, before)
        plan["reached"] = kept[library] >= kept["ours"]
        print(f"    {library}: {plan}, kept {kept[library]} (ours {kept['ours']})", flush=True)
    seconds = _race(runners, bench, config["repeats"])
    floor = measure_floor(bench.classifier, bench.settings, bench.paths)
    return Measured(len(bench.paths), _figures(len(bench.paths), kept, plans, seconds, floor))


def _figures(
    n: int,
    kept: dict[str, int],
    plans: dict[str, dict[str, Any]],
    seconds: dict[str, list[float]],
    floor: dict[str, Any],
) -> dict[str, Any]:
    medians = {name: median(times) for name, times in seconds.items()}
    return {
        "kept": {name: rate(count, n) for name, count in kept.items()},
        "plans": plans,
        "seconds": {name: [round(t, 3) for t in times] for name, times in seconds.items()},
        "pictures_per_second": {name: round(n / t, 3) for name, t in medians.items()},
        "times_faster_than": {lib: round(medians[lib] / medians["ours"], 2) for lib in LIBRARIES},
        "floor": floor,
        "over_floor": round(medians["ours"] / floor["seconds"], 3),
    }


def _race(
    runners: dict[str, Callable[[], None]], bench: Bench, repeats: int
) -> dict[str, list[float]]:
    """Time every runner ``repeats`` times, each round starting with another one."""
    names = list(runners)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            shutil.rmtree(bench.folder(name), ignore_errors=True)
            begun = time.perf_counter()
            runners[name]()
            seconds[name].append(time.perf_counter() - begun)
            print(f"    round {turn + 1}: {name} {seconds[name][-1]:.1f} s", flush=True)
    return seconds


def _run_ours(bench: Bench) -> None:
    from scotoma.run.anonymize import anonymize

    out = bench.folder("ours")
    shutil.rmtree(out, ignore_errors=True)
    anonymize(bench.paths, out, [bench.classifier], bench.settings)


def open_bench(config: dict[str, Any], options: Options) -> Bench:
    """Return the job that a row's configuration describes, its pictures scaled once."""
    from copy import deepcopy

    from scotoma.images.region_sources import open_regions
    from scotoma.run.settings import AnonymizeSettings

    model = classifier(config["model"])
    paths = pick(validation(), config["count"], seed=config["seed"])
    paths = [_scaled(path, options.cache / "speed" / "pictures") for path in paths]
    size = model.preprocessing.input_size[1]
    crop = (SIDE - size) // 2
    region = open_regions(config["regions"]).find(np.zeros((SIDE, SIDE, 3), np.uint8), Path())[0]
    x0, y0, x1, y1 = (side - crop for side in region.box)
    mask = torch.zeros(1, 1, size, size)
    mask[..., y0:y1, x0:x1] = 1
    network: Any = deepcopy(model.network)
    preprocessing = model.preprocessing
    if config["favoured"]:
        network = network.to(memory_format=torch.channels_last)
    inside = Inside(network, mask, preprocessing.mean, preprocessing.std)
    inside.eval().requires_grad_(False)
    settings = AnonymizeSettings(
        regions=config["regions"],
        fill=config["fill"],
        search=search_for(config["test"]),
        seed=config["seed"],
    )
    out = options.cache / "speed" / config["model"]
    return Bench(paths, model, config["model"], settings, inside, crop, out, config["favoured"])


def _scaled(path: Path, folder: Path) -> Path:
    """Return a lossless copy that the models' preprocessing need not resample."""
    target = folder / f"{path.stem}.png"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            scaled = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        part = target.with_suffix(".part")
        scaled.save(part, "PNG")
        part.replace(target)
    return target


def count_kept(bench: Bench, name: str, before: Sequence[int]) -> int:
    """Count the decisions that a stranger finds kept in the written files."""
    files = [bench.folder(name) / f"{path.stem}.png" for path in bench.paths]
    changes = [None, *(Resize(s, Image.Resampling.BICUBIC) for s in bench.settings.search.views)]
    reader = open_reader(bench.model)
    said = [reader.labels(files, change) for change in changes]
    return sum(len(set(labels)) == 1 for labels in zip(before, *said, strict=True))


def _render(rows: Sequence[Row]) -> str:
    head = ["who", "kept", "steps", "seconds", "pictures/s", "ours is faster by"]
    text = (
        "The same job, files in to files out, in one process, in turns; the median of the rounds "
        f"counts. The pictures are {SIDE}×{SIDE} so that the preprocessing resamples nothing, "
        "which lets the libraries work on the network's input. They run targeted PGD, batch "
        f"{BATCH}, with frozen weights, at the step size and the smallest fixed number of steps "
        "that keep as "
        "many decisions as ours; these were searched before, outside the clock. *Favoured*, they "
        "attack only what the fill flips, with channels-last memory; *as documented*, every "
        "picture, with tensors as they come. All have the same mask, model and test of "
        "success: the decision of the written file, or of the file and of its copies at 90 % and "
        "110 %. For the second test ours aims, as by default, at a lead of 2 logits. The floor is "
        "the forward and gradient passes that our pictures needed, at the speed of such passes "
        f"measured here (batch {BATCH}, channels-last, folded). Goals: at least {_GOAL_RIVAL:g}× "
        f"either library, at most {_GOAL_FLOOR:g}× the floor."
    )
    parts = ["## Speed", "", text, ""]
    for row in rows:
        parts += [f"**{row['what']}**, {row['n']} pictures", "", table(head, _lines(row))]
    return "\n".join(parts)


def _lines(row: Row) -> Iterator[list[str]]:
    values = row["values"]
    for name, per_second in values["pictures_per_second"].items():
        plan = values["plans"].get(name)
        steps, faster = "as many as each needs", "–"
        if plan is not None:
            short = "" if plan["reached"] else ", not enough"
            steps = f"{plan['steps']} of {plan['step']}/255{short}"
            faster = f"{values['times_faster_than'][name]:.1f}×"
        kept = percent(values["kept"][name])
        seconds = number(median(values["seconds"][name]), 1)
        yield [name, kept, steps, seconds, number(per_second, 2), faster]
    floor = values["floor"]
    passes = (
        f"{floor['looks']} forward at {floor['look_ms']:.1f} ms, "
        f"{floor['pulls']} gradient at {floor['pull_ms']:.1f} ms"
    )
    seconds = number(floor["seconds"], 1)
    over = f"ours takes {values['over_floor']:.2f}× as long"
    yield ["floor", "–", passes, seconds, number(row["n"] / floor["seconds"], 2), over]


BENCHMARK = Benchmark("speed", _jobs, _render)
