"""PEYOLOS and its plain twin: do all parts learn? They overfit 128 COCO pictures.

Precision is measured on the training pictures themselves, and on nothing else: it says that
a detector of releases can be trained, not how well one detects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.page import table
from benchmarks.pictures import SHARED
from benchmarks.record import Benchmark, Job, Measured, Options, Row

__all__ = ["BENCHMARK"]

_PICTURES = SHARED / "data" / "coco" / "train128"
_RECIPE = "train128"
_VARIANTS = (("plain", "plain twin, on plain pictures"), ("mix", "MI, on mixed pictures"))


def _jobs(options: Options) -> Iterator[Job]:
    from dataclasses import asdict

    from scotoma.train.peyolos import Recipe
    from scotoma.train.recipe_files import load_recipe

    quick = {"epochs": 1, "warmup_epochs": 0.0} if options.quick else {}
    for name, what in _VARIANTS:
        recipe = load_recipe(Recipe, "peyolos", _RECIPE, release=name, **quick, seed=options.seed)
        folder = options.cache / "peyolos" / name
        yield Job(
            f"{what}, {_RECIPE}",
            {"variant": name, "recipe": asdict(recipe)},
            partial(_measure, folder, recipe),
        )


def _measure(folder: Path, recipe: Any) -> Measured:
    import json

    from scotoma.models.peyolos import PEYOLOS
    from scotoma.train.detection_data import BoxSource, read_boxes
    from scotoma.train.hardware import Hardware, start
    from scotoma.train.peyolos import precision, train

    pictures, classes = read_boxes(_PICTURES / "instances.json", _PICTURES / "images")
    history = folder.with_suffix(".json")
    hardware = Hardware("cpu")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        epochs = train(
            BoxSource(pictures, recipe.views, workers=1),
            classes,
            folder,
            recipe,
            checkpoint=folder.with_suffix(".checkpoint"),
            hardware=hardware,
        )
        history.write_text(json.dumps([(e.loss, e.seconds) for e in epochs]), "utf-8")
    # What is measured is what was written: the folder as transformers reads it.
    network = PEYOLOS.from_pretrained(folder)
    fabric = start(hardware, bfloat16=False)
    losses, seconds = zip(*json.loads(history.read_text("utf-8")), strict=True)
    values = {
        "precision": precision(network, BoxSource(pictures, recipe.views), recipe, fabric),
        "parameters": sum(p.numel() for p in network.parameters()),
        "losses": [round(loss, 3) for loss in losses],
        "seconds": round(sum(seconds)),
    }
    return Measured(len(pictures), values)


def _render(rows: Sequence[Row]) -> str:
    names = dict(_VARIANTS)
    lines = [
        [
            names[row["config"]["variant"]],
            str(row["n"]),
            f"{row['values']['precision']:.3f}",
            f"{row['values']['losses'][0]:.2f} → {row['values']['losses'][-1]:.2f}",
            str(row["config"]["recipe"]["epochs"]),
            f"{row['values']['seconds'] / 60:.0f} min",
            f"{row['values']['parameters'] / 1e6:.2f} M",
        ]
        for row in rows
    ]
    head = ["network", "n", "AP on its training pictures", "loss", "epochs", "time", "parameters"]
    return "\n".join(
        [
            "## PEYOLOS on 128 COCO pictures",
            "",
            "Overfitting, as a check that every part learns: detectors of pictures 96 pixels high, "
            "from nothing (`peyolos-train128`), written, loaded, and asked about the same 128 "
            "pictures. AP is COCO's, IoU 0.5 to 0.95. It says nothing of other pictures.",
            "",
            table(head, lines),
        ]
    )


BENCHMARK = Benchmark("peyolos", _jobs, _render)
