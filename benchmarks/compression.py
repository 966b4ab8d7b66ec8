"""Size against accuracy of compressed classifiers, each measured from the file as written.

Nothing is chosen on the pictures of the figures: what weights are worth, budgets and lessons
come from training pictures (CIFAR-10), or from the photos and half of the validation pictures
(ImageNet), whose other half gives the figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import rate
from benchmarks.page import percent, table
from benchmarks.pictures import IMAGENET, SHARED, SPECS
from benchmarks.record import Benchmark, Job, Measured, Options, Row

if TYPE_CHECKING:
    from torch import Tensor, nn

    from scotoma.compress.pictures import Pictures
    from scotoma.models.classifier import Classifier

__all__ = ["BENCHMARK"]

_CIFAR = SHARED / "data" / "cifar10"
_RESNETS = ("cifar10_resnet20", "cifar10_resnet32", "cifar10_resnet56")
_MOBILENET = "mobilenetv2_100"
_PLAIN: tuple[dict[str, Any], ...] = (
    {"bits": 8},
    {"bits": 8, "prune": 0.7},
)
_FINER: tuple[dict[str, Any], ...] = ({"bits": 6}, {"bits": 4})
_PRICES = {"cifar10": (1e-7, 3e-7, 1e-6), "mobilenetv2": (2e-9, 5e-9, 2e-8)}
_DEAREST = 3e-6
_SHARES = (1.0,)
_SMALLER_SHARES = (0.25,)
_CLOSELY = "cifar10_resnet20"
"""The network whose curves are drawn with more points than the others'."""
_BUDGETED = (_CLOSELY, _MOBILENET)
_TUNED: tuple[dict[str, Any], ...] = (
    {"bits": 8, "prune": 0.8},
    {"bits": 8, "prune": 0.9},
    {"price": 1e-6},
    {"price": 1e-6, "fractional": 1.0},
)
_PAPERS: dict[str, dict[str, Any]] = {
    "cifar10_resnet20": {"source": "FGFP 2025", "smaller": 0.852, "points": 1.52},
    _MOBILENET: {
        "source": "Llanza et al., SMC 2023 (MobileNetV3)",
        "smaller": 0.185,
        "points": 2.5,
    },
}
_EPOCHS = 3
_UNTUNED = 4000  # pictures that are read where nothing learns
_LESSONS = 20_000  # pictures of one epoch, so that a row takes minutes


def _jobs(options: Options) -> Iterator[Job]:
    for model in (*_RESNETS, _MOBILENET):
        paper = _PAPERS.get(model)
        finer = _FINER if model == _CLOSELY else ()
        chosen = [({}, 0), *(({**s}, 0) for s in (*_PLAIN, *finer, *_priced(model)))]
        if model == _CLOSELY:
            chosen += [({}, _EPOCHS), *(({**s}, _EPOCHS) for s in _TUNED)]
        for settings, epochs in chosen:
            config: dict[str, Any] = {"model": model, "settings": settings, "n": _count(options)}
            if epochs:
                config["tune"] = asdict(_tune_settings(options))
            what = f"{model}: {_words(settings)}{', fine-tuned' if epochs else ''}"
            measure = partial(_measure, model, settings, bool(epochs), options)
            yield Job(what, config, measure, paper)


def _priced(model: str) -> Iterator[dict[str, Any]]:
    """Yield ours: the budget a user would name, then a curve over prices."""
    if model in _BUDGETED:
        yield {"budget": 1.0}
    prices = _PRICES[model.partition("_")[0]]
    for price in (*prices, _DEAREST) if model == _CLOSELY else prices:
        yield {"price": price}
    for share in (*_SMALLER_SHARES, *_SHARES) if model == _CLOSELY else _SHARES:
        yield {"price": prices[1], "fractional": share}


def _count(options: Options) -> int:
    return options.count(5000, 200)


def _tune_settings(options: Options) -> Any:
    from scotoma.train.compressed import TuneSettings

    steps = options.count(_LESSONS // 64, 4)
    return TuneSettings(epochs=options.count(_EPOCHS, 1), most_steps=steps, seed=options.seed)


def _measure(model: str, chosen: dict[str, Any], tuned: bool, options: Options) -> Measured:
    classifier, lessons, test, code = _load(model, options.quick, tuned)
    before = _right(_module(classifier), test)
    folder = options.cache / "compression"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{model}-{_words(chosen)}{'-tuned' if tuned else ''}".replace(" ", "-")
    if not chosen:
        return _reference(classifier, lessons, test, before, tuned, folder / name, options)
    from scotoma.compress.settings import CompressSettings
    from scotoma.models.compressed import load_compressed
    from scotoma.run.compress import compress
    from scotoma.train.compressed import fine_tune

    held_out = 325 if model == _MOBILENET else 2000
    settings = CompressSettings(
        **chosen,
        held_out=options.count(held_out, 100),
        fitting=options.count(1000, 50),
        tries=options.count(8, 2),
        seed=options.seed,
    )
    path, checkpoint = folder / f"{name}.scmp", folder / f"{name}.checkpoint"

    def tune(network: nn.Module, tensors: Any, pictures: Pictures, price: float) -> Any:
        lesson = _tune_settings(options)
        return fine_tune(network, tensors, pictures, price, lesson, checkpoint=checkpoint)

    made = compress(classifier, lessons, path, settings, tune=tune if tuned else None, code=code)
    written = load_compressed(f"compressed:{path.name}", str(path), "cpu", code=code)
    after = _right(_module(written), test)
    checkpoint.unlink(missing_ok=True)
    return Measured(
        len(test),
        {
            "bytes": made.size_bytes,
            "float_bytes": made.float_bytes,
            "accuracy": rate(int(after.sum()), len(test)),
            "lost": _gap(before, after),
            "lost_held_out": 100 * (made.accuracy_before - made.accuracy_after),
            "price": made.price,
            "within_budget": made.within_budget,
        },
    )


def _reference(
    classifier: Classifier,
    lessons: Pictures,
    test: Pictures,
    before: Tensor,
    tuned: bool,
    path: Path,
    options: Options,
) -> Measured:
    """Measure the float32 network, as it is or after the same lessons as the compressed ones."""
    import copy

    import torch

    from scotoma.models.fold import fold_batch_norm
    from scotoma.run.compress import float_bytes
    from scotoma.train.compressed import fine_tune_float

    network, after = _module(classifier), before
    if tuned:
        example = torch.zeros(1, *classifier.preprocessing.input_size)
        folded = copy.deepcopy(fold_batch_norm(network, example))
        start, checkpoint = options.count(2000, 100), path.with_suffix(".checkpoint")
        learned = fine_tune_float(
            folded, lessons.take(start), _tune_settings(options), checkpoint=checkpoint
        )
        folded.load_state_dict(learned, strict=False)
        after = _right(folded, test)
        checkpoint.unlink(missing_ok=True)
    size = float_bytes(network)
    values = {"bytes": size, "float_bytes": size, "accuracy": rate(int(after.sum()), len(test))}
    return Measured(len(test), {**values, "lost": _gap(before, after)})


@cache
def _load(model: str, quick: bool, tuned: bool) -> tuple[Classifier, Pictures, Pictures, Any]:
    """Return a classifier, pictures to choose and learn on, others, and what builds it."""
    from benchmarks.cifar_resnet import load_cifar_resnet, untrained_cifar_resnet
    from scotoma.compress.pictures import read_pictures
    from scotoma.models.blueprint import Blueprint
    from scotoma.models.compressed import PYTHON
    from scotoma.models.spec import load_classifier

    if model == _MOBILENET:
        classifier = load_classifier(SPECS["mobilenetv2"])
        validation = read_pictures(IMAGENET / "val.csv", classifier, seed=0)
        photos = read_pictures(IMAGENET / "samples.csv", classifier, seed=0)
        half = len(validation) // 2
        lessons = _together(validation.take(0, half), photos)
        test = validation.take(half)
        return classifier, lessons, test.take(0, 50) if quick else test, None
    plain = load_cifar_resnet(model)
    classifier = replace(plain, blueprint=Blueprint(PYTHON, model))
    # A seeded order: fewer pictures are the first of all.
    most = 400 if quick else None if tuned else _UNTUNED
    lessons = read_pictures(_CIFAR / "train.zip", classifier, seed=0, most=most)
    test = read_pictures(_CIFAR / "test.zip", classifier, seed=0, most=200 if quick else None)
    return classifier, lessons, test, partial(untrained_cifar_resnet, model)


def _together(first: Pictures, second: Pictures) -> Pictures:
    import torch

    return replace(
        first,
        images=torch.cat([first.images, second.images]),
        labels=torch.cat([first.labels, second.labels]),
    )


def _module(classifier: Classifier) -> Any:
    return classifier.network


def _right(network: nn.Module, pictures: Pictures) -> Tensor:
    """Return of which pictures the largest logit is the label's."""
    import torch

    with torch.no_grad():
        parts = [network(images).argmax(1) == labels for images, labels in pictures.batches()]
    return torch.cat(parts)


def _gap(before: Tensor, after: Tensor) -> dict[str, float]:
    """Return how many points are lost, with the 95 % interval of paired pictures."""
    less = before.double() - after.double()
    half = 1.959964 * float(less.std()) / math.sqrt(len(less))
    mean = float(less.mean())
    return {"points": 100 * mean, "low": 100 * (mean - half), "high": 100 * (mean + half)}


def _words(settings: dict[str, Any]) -> str:
    if not settings:
        return "float32"
    if "bits" in settings:
        pruned = f"{100 * settings['prune']:.0f} % pruned, " if "prune" in settings else ""
        return f"{pruned}int{settings['bits']}"
    share = settings.get("fractional")
    filters = f", {100 * share:.0f} % fractional" if share else ""
    if "budget" in settings:
        return f"ours, {settings['budget']:g} points{filters}"
    return f"ours, price {settings['price']:g}{filters}"


def _render(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        values = row["values"]
        lost, smaller = values["lost"], 1 - values["bytes"] / values["float_bytes"]
        lines.append(
            [
                row["what"],
                f"{values['bytes'] / 1000:.1f} kB",
                f"{100 * smaller:.1f} %",
                percent(values["accuracy"]),
                f"{lost['points']:.2f} [{lost['low']:.2f}, {lost['high']:.2f}]",
            ]
        )
    head = ["file", "size", "smaller", "accuracy", "points lost"]
    return "\n".join(
        [
            "## Compressed classifiers",
            "",
            "Whole files as `scotoma compress` writes them, against the float32 safetensors file "
            "of the same network; accuracy of the file, read back, on pictures that took no part. "
            "*Points lost* compares the same pictures with the float32 network as published, with "
            "the 95 % interval of paired differences; compare fine-tuned rows with float32 "
            "fine-tuned alike: the networks were trained on other pixels than these JPEG files', "
            "and lessons on them alone gain points. *int8*: a step for each output channel; "
            "*pruned*: the smallest weights by magnitude. All files are entropy coded. "
            "The marks: MobileNetV3 18.5 % smaller for 2.5 points (Llanza et al., SMC 2023); "
            "ResNet-20 85.2 % smaller for 1.52 points (FGFP, 2025).",
            "",
            table(head, lines),
        ]
    )


BENCHMARK = Benchmark("compression", _jobs, _render)
