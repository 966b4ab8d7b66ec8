"""Decisions kept by scores alone: how many, for how many queries, and by which search.

Every classifier of ``../shared`` is exported to ONNX and asked through onnxruntime; the files
that come of it are judged by :mod:`.reader`, which asks the original networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.blackbox_page import PAPER, SHOWN_AT, render
from benchmarks.decisions import changed_places
from benchmarks.figures import rate, spread
from benchmarks.jobs import Run, classifier, describe_search
from benchmarks.pictures import (
    IMAGENET,
    SPECS,
    face_settings,
    find_faces,
    imagenet,
    pick,
    validation,
)
from benchmarks.reader import open_reader
from benchmarks.record import Benchmark, Job, Measured, Options, fingerprint_of, sources_digest

if TYPE_CHECKING:
    from torch import nn

    from scotoma.models.classifier import Classifier
    from scotoma.run.settings import AnonymizeSettings

__all__ = ["BENCHMARK"]

REGIONS = ("center:0.3", "faces")
_QUICKEST = "mobilenetv1_050"
_HARDEST = ("mobilenetv2", "squeezenet1_1")
_OPTIMIZERS = ("patchwork", "linear", "fda", "fda-lines", "cma-es", "de", "pso", "random")
_CONTENTS = (("dct", 30), ("dct", 75), ("dct", 150), ("dct", 300), ("cells", 75), ("cells", 150))


def _jobs(options: Options) -> Iterator[Job]:
    for regions in REGIONS:
        for model in SPECS:
            yield _job("kept", model, regions, options, None)
    few = options.subset
    yield _job("kept", _QUICKEST, REGIONS[0], options, few, "labels alone", labels_only=True)
    for model in (_QUICKEST, *_HARDEST):
        yield _job("kept", model, REGIONS[0], options, few, "exemplars", exemplars=True)
    for model in _HARDEST:
        others = [name for name in SPECS if name != model]
        yield _job("kept", model, REGIONS[0], options, few, "surrogates", surrogates=others)
    for model in SPECS:
        yield _job("speed", model, REGIONS[0], options, few // 4)
    for name in _OPTIMIZERS:
        yield _job("optimizer", _QUICKEST, REGIONS[0], options, few, name, optimizer=name)
    for basis, count in _CONTENTS:
        changes = {"optimizer": "linear", "basis": basis, "coefficients": count}
        text = f"{basis}, {count} numbers"
        yield _job("content", _QUICKEST, REGIONS[0], options, few, text, **changes)


def _job(
    kind: str,
    model: str,
    regions: str,
    options: Options,
    subset: int | None,
    variant: str = "",
    **changes: Any,
) -> Job:
    from scotoma.protections.anonymize.settings import BlackBox, SearchSettings

    exemplars = changes.pop("exemplars", False)
    surrogates = changes.pop("surrogates", [])
    config: dict[str, Any] = {
        "kind": kind,
        "model": model,
        "regions": regions,
        "subset": 8 if options.quick else subset,
        "variant": variant,
        # An exemplar is never the picture itself; here it is not even of the same set.
        "pictures": "imagenet/val" if exemplars else "imagenet/val + imagenet/samples",
        "exemplars": "imagenet/samples" if exemplars else None,
        "blackbox": asdict(replace(BlackBox(seed=options.seed), **changes)),
        "search": describe_search(SearchSettings()),
    }
    if surrogates:
        config["surrogates"] = surrogates
    if regions == "faces":
        config["detector"] = face_settings()
    text = ", ".join(part for part in (kind, regions, model, variant) if part)
    measure = _measure_speed if kind == "speed" else _measure
    return Job(f"black box: {text}", config, partial(measure, config, options), PAPER)


def _measure(config: Mapping[str, Any], options: Options) -> Measured:
    """Search by scores; judge the files by the network itself."""
    pictures, regions = _pictures(config, options)
    model = config["model"]
    surrogates = [classifier(name) for name in config.get("surrogates", [])]
    run = _run(pictures, _exported(model, options), _settings(config, regions), options, surrogates)
    files = [run.output(path) for path in pictures]
    released = [path for path, file in zip(pictures, files, strict=True) if file]
    before = {model: open_reader(model).labels(released)}
    lost = changed_places([model], before, [file for file in files if file])
    entries = [run.entries[path.as_posix()] for path in released]
    queries = [entry.queries for entry in entries]
    flipped = [entry.decisions[0].changed_naive for entry in entries]
    kept = [place not in lost for place in range(len(released))]
    count = len(pictures)
    return Measured(
        count,
        {
            "failed": count - len(released),
            "kept_naive": rate(flipped.count(False), count),
            "kept": rate(kept.count(True), count),
            "kept_of_flipped": rate(
                sum(k for k, f in zip(kept, flipped, strict=True) if f), sum(flipped)
            ),
            "kept_by_queries": {
                str(most): rate(
                    sum(k and q <= most for k, q in zip(kept, queries, strict=True)), count
                )
                for most in SHOWN_AT
            },
            "manifest_differs": sum(
                entry.decisions[0].kept != k for entry, k in zip(entries, kept, strict=True)
            ),
            "queries": spread(queries),
            "queries_of_flipped": spread([q for q, f in zip(queries, flipped, strict=True) if f]),
            "pictures_per_second": round(run.done / run.seconds, 3) if run.done else None,
        },
    )


def _measure_speed(config: Mapping[str, Any], options: Options) -> Measured:
    """Time three ways on the same pictures, one after the other, none resumed."""
    import shutil
    import time

    pictures, regions = _pictures(config, options)
    model = config["model"]
    network, plain = _exported(model, options), classifier(model)
    settings = _settings(config, regions)
    ways = {
        "gradient": ("gradient", plain),
        "blackbox_same_network": ("blackbox", plain),
        "blackbox": ("blackbox", network),
    }
    values: dict[str, Any] = {}
    for name, (adapt, used) in ways.items():
        way = replace(settings, adapt=adapt)
        shutil.rmtree(_folder(pictures, used, way, options), ignore_errors=True)
        begun = time.perf_counter()
        run = _run(pictures, used, way, options)
        values[name] = {
            "seconds_per_picture": round((time.perf_counter() - begun) / len(pictures), 4),
            "kept": rate(
                sum(run.entries[p.as_posix()].decisions[0].kept for p in pictures), len(pictures)
            ),
        }
    slower = values["blackbox"]["seconds_per_picture"] / values["gradient"]["seconds_per_picture"]
    return Measured(len(pictures), {**values, "times_gradient": round(slower, 3)})


def _pictures(config: Mapping[str, Any], options: Options) -> tuple[list[Path], str]:
    """Return the pictures of a row and their regions."""
    pictures, regions = imagenet(), config["regions"]
    if config["exemplars"]:
        pictures = validation()
    if regions == "faces":
        coco, having = find_faces(options)
        # Pictures without a face are released as they are: decisions on them are kept for sure.
        pictures, regions = having, str(coco)
    if config["subset"] is not None:
        pictures = pick(pictures, config["subset"], seed=options.seed)
    return pictures, regions


def _settings(config: Mapping[str, Any], regions: str) -> AnonymizeSettings:
    from scotoma.protections.anonymize.settings import BlackBox
    from scotoma.run.settings import AnonymizeSettings

    return AnonymizeSettings(
        regions=regions,
        adapt="blackbox",
        blackbox=BlackBox(**config["blackbox"]),
        exemplars=IMAGENET / "samples" if config["exemplars"] else None,
        seed=config["blackbox"]["seed"],
    )


def _exported(model: str, options: Options) -> Classifier:
    """Return the ONNX export of a network of ``../shared``, made once."""
    from scotoma.models.onnx_export import export_onnx
    from scotoma.models.spec import load_classifier

    path = options.cache / "onnx" / f"{model}.onnx"
    if not path.is_file():
        plain = classifier(model)
        network = cast("nn.Module", plain.network)  # all of ../shared are
        path.parent.mkdir(parents=True, exist_ok=True)
        described = {**plain.preprocessing.to_config(), "classes": plain.classes}
        unfinished = path.with_suffix(".part")
        export_onnx(unfinished, network, plain.preprocessing.input_size, described)
        unfinished.rename(path)
    return load_classifier(f"onnx:{path}")


def _folder(
    paths: Sequence[Path],
    model: Classifier,
    settings: AnonymizeSettings,
    options: Options,
    surrogates: Sequence[Classifier] = (),
) -> Path:
    identity = {
        "settings": settings.fingerprint([model], [], surrogates),
        "paths": [path.as_posix() for path in paths],
        "sources": sources_digest(),
    }
    return options.cache / "runs" / fingerprint_of(identity)


def _run(
    paths: Sequence[Path],
    model: Classifier,
    settings: AnonymizeSettings,
    options: Options,
    surrogates: Sequence[Classifier] = (),
) -> Run:
    """Anonymize; what an earlier run of the same sources finished is kept."""
    from scotoma.run.anonymize import Progress, anonymize
    from scotoma.run.manifest import latest

    out, done = _folder(paths, model, settings, options, surrogates), 0

    def count(progress: Progress) -> None:
        nonlocal done
        done += not progress.skipped
        if not progress.skipped and done % 50 == 0:
            print(f"    {done} of {len(paths)}", flush=True)

    summary = anonymize(paths, out, [model], settings, surrogates=surrogates, on_progress=count)
    entries = latest(out / "manifest.jsonl")
    return Run(out, {p.as_posix(): entries[p.as_posix()] for p in paths}, done, summary.seconds)


BENCHMARK = Benchmark("blackbox", _jobs, render)
