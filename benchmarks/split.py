"""Private bottlenecks: accuracy, bits, and what the strongest fresh attacker gets.

A row trains its bottleneck (a stopped one goes on where it was), writes and loads it, codes the
test pictures as a stream, and attacks that with networks of other architectures than any that
the bottleneck was trained against. *Plain* is the same cut without a bottleneck, quantized,
coded and attacked alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from benchmarks.figures import rate
from benchmarks.page import percent, table
from benchmarks.record import Benchmark, Job, Measured, Options, Row
from benchmarks.split_steps import (
    ATTACKERS,
    BATCH,
    CODED,
    attack,
    attack_steps,
    bits,
    encoded,
    prepared,
    psnr,
)

if TYPE_CHECKING:
    from torch import Tensor

    from scotoma.models.classifier import Classifier
    from scotoma.models.split_model import SplitModel

__all__ = ["BENCHMARK"]

_PAPER = {
    "source": "TIP 2024, YOLOv5m after layer 4, COCO: mAP and the attacker's PSNR in dB",
    "plain": "43.7, 20.3",
    "bottleneck": "42.9, 21.9",
    "paper": "w_rec 0.5: 42.8, 18.7; 2: 42.2, 17.6",
}


@dataclass(frozen=True)
class _Setting:
    """A model, a cut, the recipe that its variants change, and which of them are measured."""

    model: str
    at: str
    recipe: str
    attack_steps: int
    attack_batch: int
    variants: tuple[str, ...]


_GOALS = ("plain", "rate", "private")
_ALL = ("plain", "bottleneck", "paper", "population", "rate", "private", "tight", "loose")
_SETTINGS = (
    _Setting("cifar10_resnet20", "layer2", "private-cifar10", 1200, 32, _ALL),
    _Setting("embedded", "blocks.1", "private-cifar10", 1200, 32, _GOALS),
    _Setting("cifar10_resnet32", "layer2", "private-cifar10", 1200, 32, ("plain", "private")),
    _Setting("cifar10_resnet56", "layer2", "private-cifar10", 1200, 32, ("plain", "private")),
    _Setting("mobilenetv2", "blocks.2", "private-few", 600, 8, ("plain", "paper", *_GOALS[1:])),
    _Setting("mobilenetv2", "blocks.3", "private-few", 600, 8, _GOALS),
)
_NO_RIVALS: dict[str, Any] = {"adversaries": (), "reconstruction": 0.0, "restart_epochs": 0}
_PAPERS: dict[str, Any] = {
    "channels": 0,
    "hidden": 0,
    "stride": 1,
    "step": 0.0,
    "rate": 0.0,
    "restart_epochs": 0,
    "compressibility": 1.0,
    "adversaries": ("recnet",),
}
_VARIANTS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "plain": ("plain features", None),
    "bottleneck": ("the paper's bottleneck, no adversary", {**_PAPERS, **_NO_RIVALS}),
    "paper": ("the paper's bottleneck and adversary", _PAPERS),
    "population": (
        "the paper's bottleneck, our population",
        {**_PAPERS, "adversaries": ("recnet", "shuffle", "dense"), "restart_epochs": 1},
    ),
    "rate": ("bound by its rate, no adversary", _NO_RIVALS),
    "private": ("bound by its rate, and our population", {}),
    "tight": ("private, rate × 4", {"rate": 4.0}),
    "loose": ("private, rate / 4", {"rate": 0.25}),
}
_SCALED = ("tight", "loose")


def _jobs(options: Options) -> Iterator[Job]:
    from dataclasses import asdict, replace

    from scotoma.train.recipe_files import load_recipe
    from scotoma.train.split import Recipe

    for setting in _SETTINGS:
        base = load_recipe(Recipe, "split", setting.recipe, seed=options.seed)
        for name in setting.variants:
            what, changes = _VARIANTS[name]
            recipe = None
            if changes is not None:
                changed = dict(changes)
                if name in _SCALED:
                    changed["rate"] = base.rate * changed["rate"]
                if options.quick:
                    changed |= {"alone_epochs": 1, "epochs": 1}
                recipe = replace(base, **changed)
            steps = attack_steps(options.count(setting.attack_steps, 20))
            config = {
                "model": setting.model,
                "at": setting.at,
                "variant": name,
                "recipe": recipe and asdict(recipe),
                "attackers": steps,
            }
            label = f"{setting.model} at {setting.at}, {name}: {what}"
            measure = partial(_measure, setting, name, recipe, steps, options)
            yield Job(label, config, measure, _PAPER)


def _measure(
    setting: _Setting, variant: str, recipe: Any, steps: dict[str, int], options: Options
) -> Measured:
    from benchmarks.split_pictures import open_pictures

    classifier = _classifier(setting.model)
    pictures = open_pictures(setting.model, classifier.preprocessing, quick=options.quick)
    folder = options.cache / "split" / f"{setting.model}-{setting.at}-seed{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    model = prepared(classifier, setting.at, recipe, pictures, folder / f"{variant}.safetensors")
    images = pictures.normalized(pictures.test)
    places = encoded(model, images)
    right = _decided(model, places) == pictures.test_labels
    plain_right = classifier_decisions(classifier, images) == pictures.test_labels
    values: dict[str, Any] = {
        "accuracy": rate(int(right.sum()), len(right)),
        "plain_accuracy": rate(int(plain_right.sum()), len(right)),
        "points_lost": _gap(plain_right, right),
        "latent": list(model.latent_shape),
        "bits_per_pixel": bits(model, places, images),
        "mean_picture_db": psnr(pictures.train.float().mean(0, keepdim=True) / 255, pictures),
        "attackers": {
            name: attack(
                name,
                model,
                pictures,
                count,
                folder / f"{variant}-{name}.checkpoint",
                batch_size=setting.attack_batch,
            )
            for name, count in steps.items()
        },
    }
    strongest = max(values["attackers"], key=lambda name: values["attackers"][name]["psnr_db"])
    values["strongest"] = {"name": strongest, **values["attackers"][strongest]}
    return Measured(len(right), values)


@cache
def _classifier(name: str) -> Classifier:
    from benchmarks.cifar_resnet import load_cifar_resnet
    from benchmarks.pictures import SPECS
    from scotoma.models.spec import load_classifier

    if name.startswith("cifar10_"):
        return load_cifar_resnet(name)
    return load_classifier(SPECS.get(name, name))


def _decided(model: SplitModel, places: Tensor) -> Tensor:
    import torch

    with torch.no_grad():
        return torch.cat([model.answer(part).argmax(1) for part in torch.split(places, BATCH)])


def classifier_decisions(classifier: Classifier, images: Tensor) -> Tensor:
    """Return the plain network's decisions."""
    import torch

    return torch.cat([classifier.logits(part).argmax(1) for part in torch.split(images, BATCH)])


def _gap(plain: Tensor, other: Tensor) -> dict[str, float]:
    """Return how many points less accurate ``other`` is, with the interval of paired pictures."""
    less = plain.double() - other.double()
    half = 1.959964 * float(less.std()) / math.sqrt(len(less))
    mean = float(less.mean())
    return {"points": 100 * mean, "low": 100 * (mean - half), "high": 100 * (mean + half)}


def _render(rows: Sequence[Row]) -> str:
    plain = {_place(row): row for row in rows if row["config"]["variant"] == "plain"}
    lines = []
    for row in rows:
        values, base = row["values"], plain.get(_place(row))
        gap, strongest = values["points_lost"], values["strongest"]
        bits, decibels = values["bits_per_pixel"], strongest["psnr_db"]
        learning = ", still learning" if strongest["notes"] else ""
        less = saved = None
        if base is not None:
            less = base["values"]["strongest"]["psnr_db"] - decibels
            saved = 1 - bits / base["values"]["bits_per_pixel"]
        lines.append(
            [
                f"{row['config']['model']} at `{row['config']['at']}`, {row['config']['variant']}",
                percent(values["accuracy"], interval=False),
                f"{gap['points']:.1f} [{gap['low']:.1f}, {gap['high']:.1f}]",
                "×".join(map(str, values["latent"])),
                f"{bits:.2f}",
                "–" if saved is None else f"{100 * saved:.0f} %",
                f"{decibels:.2f} ({strongest['name']}{learning})",
                "–" if less is None else f"{less:.2f}",
                f"{strongest['edge_psnr_db']:.2f}",
                f"{strongest.get('ms_ssim', strongest.get('ssim')):.3f}",
                f"{values['mean_picture_db']:.2f}",
            ]
        )
    head = ["network, cut, variant", "accuracy", "points lost", "latent", "bits a pixel"]
    head += ["bits saved", "attacker, dB", "below plain, dB", "edges, dB", "(MS-)SSIM"]
    head += ["mean picture, dB"]
    variants = "; ".join(f"*{name}* {what}" for name, (what, _) in _VARIANTS.items())
    return "\n".join(
        [
            "## Private bottlenecks",
            "",
            f"Variants: {variants}. *Points lost* against the plain network on the same pictures, "
            "with the 95 % interval of paired differences. Bits are those of a stream of "
            f"{CODED} test pictures by the entropy coder. The attacker is the strongest of "
            f"{', '.join(ATTACKERS)}, trained afresh by squared errors on latents as decoded. "
            "*Mean picture* is the guess that needs no release. Goals: at most 1 point lost, at "
            "least 3 dB below plain, at least 30 % of bits saved. The pictures of CIFAR-10 here "
            "are JPEG, to which a bottleneck trained on them adapts: hold it against *bottleneck*, "
            "too. `mobilenetv2` has 521 pictures to learn from and 325 to be tested on.",
            "",
            table(head, lines),
        ]
    )


def _place(row: Row) -> tuple[str, str]:
    return row["config"]["model"], row["config"]["at"]


BENCHMARK = Benchmark("split", _jobs, _render)
