"""A private bottleneck for a detector, on 128 pictures: half to learn from, half to be tested on.

YOLOv5n behind layer 4, where the literature cuts it, on letterboxed pictures of 320 pixels.
The detector was trained on all of these pictures, so precision is no measure of the detector,
only of what the bottleneck takes from it. ``--recipe paper`` on COCO is the paper's setting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from benchmarks.page import table
from benchmarks.pictures import MODELS, SHARED
from benchmarks.record import Benchmark, Job, Measured, Options, Row
from benchmarks.split_steps import attack, attack_steps, bits, encoded, prepared, psnr

if TYPE_CHECKING:
    from benchmarks.split_pictures import Pictures
    from scotoma.models.classifier import Classifier
    from scotoma.ops.average_precision import Boxes

__all__ = ["BENCHMARK"]

_AT = "model.4"
_SIDE = 320
_STEPS = 600
_COCO = SHARED / "data" / "coco" / "train128"
_PAPER = {
    "source": "TIP 2024, YOLOv5m at 512 px, COCO: mAP and the attacker's PSNR in dB",
    "plain": "43.7, 20.3",
    "bottleneck": "42.9, 21.9",
    "paper": "w_rec 0.5: 42.8, 18.7; 2: 42.2, 17.6",
}
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
_VARIANTS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "bottleneck": {**_PAPERS, **_NO_RIVALS},
    "paper": _PAPERS,
    "rate": _NO_RIVALS,
    "private": {},
}


@dataclass(frozen=True, eq=False)
class _Detection:
    """The detector as what can be cut, its pictures, and what is annotated in those tested."""

    classifier: Classifier
    pictures: Pictures
    annotated: list[Boxes]


def _jobs(options: Options) -> Iterator[Job]:
    from dataclasses import asdict

    from scotoma.train.recipe_files import load_recipe
    from scotoma.train.split import Recipe

    base = load_recipe(Recipe, "split", "private-few", seed=options.seed)
    for name, changes in _VARIANTS.items():
        recipe = None if changes is None else replace(base, **changes, shift=0)
        if recipe is not None and options.quick:
            recipe = replace(recipe, alone_epochs=1, epochs=1)
        steps = attack_steps(options.count(_STEPS, 10))
        config = {
            "model": "yolov5n",
            "at": _AT,
            "side": _SIDE,
            "variant": name,
            "recipe": recipe and asdict(recipe),
            "attackers": steps,
        }
        measure = partial(_measure, name, recipe, steps, options)
        yield Job(f"yolov5n at {_AT}, {name}", config, measure, _PAPER)


def _measure(variant: str, recipe: Any, steps: dict[str, int], options: Options) -> Measured:
    detection = _open()
    classifier, pictures = detection.classifier, detection.pictures
    folder = options.cache / "split" / f"yolov5n-{_AT}-seed{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    model = prepared(classifier, _AT, recipe, pictures, folder / f"{variant}.safetensors")
    images = pictures.normalized(pictures.test)
    places = encoded(model, images)
    found = {
        name: attack(
            name,
            model,
            pictures,
            count,
            folder / f"{variant}-{name}.checkpoint",
            batch_size=8,
        )
        for name, count in steps.items()
    }
    strongest = max(found, key=lambda name: found[name]["psnr_db"])
    values = {
        "precision": _precision(detection, model.answer, places),
        "plain_precision": _precision(detection, classifier.network, images),
        "latent": list(model.latent_shape),
        "bits_per_pixel": bits(model, places, images),
        "mean_picture_db": psnr(pictures.train.float().mean(0, keepdim=True) / 255, pictures),
        "attackers": found,
        "strongest": {"name": strongest, **found[strongest]},
    }
    return Measured(len(images), values)


def _precision(detection: _Detection, network: Any, inputs: Any) -> dict[str, float]:
    """Return AP and AP50 of what a network finds."""
    import torch

    from scotoma.models.yolov5_pictures import find_boxes
    from scotoma.ops.average_precision import average_precision

    anchors = detection.classifier.network.anchors  # type: ignore[attr-defined]
    found = [
        boxes for part in torch.split(inputs, 8) for boxes in find_boxes(network, part, anchors)
    ]
    return {
        "ap": average_precision(found, detection.annotated),
        "ap50": average_precision(found, detection.annotated, thresholds=(0.5,)),
    }


@cache
def _open() -> _Detection:
    import torch
    from PIL import Image

    from benchmarks.split_pictures import Pictures
    from scotoma.models.detectors import load_detector
    from scotoma.models.letterbox import Letterbox
    from scotoma.ops.average_precision import Boxes
    from scotoma.train.detection_data import read_boxes

    classifier = load_detector(f"yolov5:{MODELS / 'yolov5n.safetensors'}@{_SIDE}")
    letterbox = Letterbox(_SIDE)
    images, annotated = [], []
    for picture in read_boxes(_COCO / "instances.json", _COCO / "images")[0]:
        pixels, placement = letterbox.read(Image.open(picture.path))
        images.append((pixels * 255).round().byte())
        annotated.append(placement.to_canvas(Boxes(picture.corners, picture.labels)))
    whole = torch.stack(images)
    labels = torch.zeros(len(whole), dtype=torch.int64)
    learned, tested = slice(0, None, 2), slice(1, None, 2)
    pictures = Pictures(
        whole[learned],
        labels[learned],
        whole[tested],
        labels[tested],
        ("picture",),
        classifier.preprocessing,
    )
    return _Detection(classifier, pictures, annotated[tested])


def _render(rows: Sequence[Row]) -> str:
    plain = next((row["values"] for row in rows if row["config"]["variant"] == "plain"), None)
    lines = []
    for row in rows:
        values = row["values"]
        strongest = values["strongest"]
        lines.append(
            [
                row["config"]["variant"],
                f"{100 * values['precision']['ap']:.1f}",
                f"{100 * values['precision']['ap50']:.1f}",
                "×".join(map(str, values["latent"])),
                f"{values['bits_per_pixel']:.2f}",
                f"{strongest['psnr_db']:.2f} ({strongest['name']})",
                "–"
                if plain is None
                else f"{plain['strongest']['psnr_db'] - strongest['psnr_db']:.2f}",
                f"{strongest['edge_psnr_db']:.2f}",
                f"{strongest['ms_ssim']:.3f}",
                f"{values['mean_picture_db']:.2f}",
            ]
        )
    head = ["variant", "AP", "AP50", "latent", "bits a pixel", "attacker, dB", "below plain, dB"]
    head += ["edges, dB", "MS-SSIM", "mean picture, dB"]
    whole = 100 * rows[0]["values"]["plain_precision"]["ap"]
    return "\n".join(
        [
            "## Private bottlenecks of a detector",
            "",
            f"YOLOv5n behind layer 4 at {_SIDE} pixels, on {rows[0]['n']} pictures of COCO's "
            "train2017; as many others were learned from, which is very few. The detector was "
            f"trained on all of them; whole and in float32 it has AP {whole:.1f} here. Variants "
            "as above.",
            "",
            table(head, lines),
        ]
    )


BENCHMARK = Benchmark("split_detection", _jobs, _render)
