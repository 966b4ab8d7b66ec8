"""``scotoma train``: train the models that ship with Scotoma, or your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli import train_split
from scotoma.cli.console import given, print_json, progress_bar
from scotoma.cli.training import check_classes, check_folder, report_history, shower

__all__ = ["app"]

app = typer.Typer(help="Train models.", no_args_is_help=True)

CLASSIFIER_HELP = """Train a small ConvMixer on a folder or zip of class folders.

A run that is stopped goes on from FILE.checkpoint when started again.

Example: scotoma train classifier photos.zip --test test.zip -o model.safetensors
"""


@app.callback()
def _group() -> None:
    """Train models."""


@app.command("classifier", help=CLASSIFIER_HELP)
def classifier(
    data: Annotated[Path, typer.Argument(help="Folder or .zip laid out as CLASS/NAME.jpg.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file (.safetensors) to write.")],
    test: Annotated[
        Path | None, typer.Option(help="Pictures whose accuracy is reported, laid out alike.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step.")] = None,
    dim: Annotated[int | None, typer.Option(help="Channels of every block.")] = None,
    depth: Annotated[int | None, typer.Option(help="Number of blocks.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the history as JSON.")] = False,
) -> None:
    """Train, report, write."""
    from dataclasses import asdict, replace

    from scotoma.train.classifier import Epoch, Recipe, train
    from scotoma.train.data import load_class_folders

    recipe = replace(
        Recipe(seed=seed), **given(epochs=epochs, batch_size=batch_size, dim=dim, depth=depth)
    )
    check_folder(out)
    with progress_bar("reading") as bar:
        pictures = load_class_folders(data, recipe.preprocessing, on_progress=bar.update)
        known = load_class_folders(test, recipe.preprocessing) if test else None
        check_classes(pictures.classes, known.classes if known else pictures.classes)

    def show(epoch: Epoch) -> None:
        if not json:
            score = "" if epoch.test_accuracy is None else f", accuracy {epoch.test_accuracy:.4f}"
            typer.echo(f"epoch {epoch.number}/{recipe.epochs}: loss {epoch.loss:.4f}{score}")

    with progress_bar("training", unit="steps") as bar:
        history = train(
            pictures,
            out,
            recipe,
            test=known,
            checkpoint=out.with_name(out.name + ".checkpoint"),
            on_step=bar.update,
            on_epoch=show,
        )
    if json:
        print_json({"recipe": asdict(recipe), "history": [asdict(e) for e in history]})
    else:
        typer.echo(f"written to {out}")


PEVIT_HELP = """Train a vision transformer that reads shuffled or mixed pictures without a key.

A run that is stopped goes on from FILE.checkpoint when started again.

Example: scotoma train pevit cifar10/train.zip --test cifar10/test.zip --recipe cifar10
-o model.safetensors
"""


@app.command("pevit", help=PEVIT_HELP)
def pevit(
    data: Annotated[Path, typer.Argument(help="Folder or .zip laid out as CLASS/NAME.jpg.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file (.safetensors) to write.")],
    recipe: Annotated[
        str,
        typer.Option(help="cifar10, imagenet-small, imagenet-base, or a .toml file of your own."),
    ],
    test: Annotated[
        Path | None, typer.Option(help="Pictures whose accuracy is reported, laid out alike.")
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="What it will read: shuffle, mix, or plain.")
    ] = None,
    reference: Annotated[
        bool | None,
        typer.Option(help="Encode patches relative to a learned reference.", show_default=False),
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(help="Rounds in which patches look for their neighbours.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A timm ViT's or DeiT's weights to start from.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step, in all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all randomness.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one GPU each.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines that run this command.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that read pictures, a device.")] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print the history as JSON.")] = False,
) -> None:
    """Train, report, write."""
    from scotoma.train.hardware import Hardware
    from scotoma.train.pevit import Recipe, open_source, train
    from scotoma.train.recipe_files import load_recipe

    changes = given(
        release=release,
        reference=reference,
        neighbours=neighbours,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    chosen = load_recipe(Recipe, "pevit", recipe, **changes)
    check_folder(out)
    with progress_bar("reading") as bar:
        pictures = open_source(data, chosen, workers=workers, on_progress=bar.update)
        known = open_source(test, chosen, workers=workers) if test else None
        check_classes(pictures.classes, known.classes if known else pictures.classes)
    with progress_bar("training", unit="steps") as bar:
        history = train(
            pictures,
            out,
            chosen,
            test=known,
            weights=weights,
            checkpoint=out.with_name(out.name + ".checkpoint"),
            hardware=Hardware(accelerator, devices, nodes, workers),
            on_step=bar.update,
            on_epoch=None if json else shower(chosen.epochs, "accuracy"),
        )
    report_history(chosen, history, out, json)


PEYOLOS_HELP = """Train a detector that reads mixed (or shuffled) pictures without a key.

Shuffled pictures have no places: boxes of a detector that reads them say what there is, not
where. A run that is stopped goes on from FOLDER.checkpoint when started again.

Example: scotoma train peyolos train2017 --boxes instances_train2017.json --recipe coco
--weights yolos-tiny/model.safetensors -o detector
"""


@app.command("peyolos", help=PEYOLOS_HELP)
def peyolos(
    data: Annotated[Path, typer.Argument(help="Folder of pictures.")],
    boxes: Annotated[Path, typer.Option(help="What is in them, as COCO JSON.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write (transformers').")],
    recipe: Annotated[str, typer.Option(help="coco, train128, or a .toml file of your own.")],
    test: Annotated[
        Path | None, typer.Option(help="Folder of pictures whose precision is reported.")
    ] = None,
    test_boxes: Annotated[Path | None, typer.Option(help="What is in those.")] = None,
    release: Annotated[
        str | None, typer.Option(help="What it will read: mix, shuffle, or plain.")
    ] = None,
    reference: Annotated[
        bool | None,
        typer.Option(help="Encode patches relative to a learned reference.", show_default=False),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A YOLOS's weights to start from.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step, in all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all randomness.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one GPU each.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines that run this command.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that read pictures, a device.")] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print the history as JSON.")] = False,
) -> None:
    """Train, report, write."""
    from scotoma.core.errors import SettingsError
    from scotoma.train.detection_data import BoxSource, read_boxes
    from scotoma.train.hardware import Hardware
    from scotoma.train.peyolos import Recipe, train
    from scotoma.train.recipe_files import load_recipe

    if (test is None) != (test_boxes is None):
        raise SettingsError("expected both --test and --test-boxes or neither, got one of them")
    changes = given(
        release=release, reference=reference, epochs=epochs, batch_size=batch_size, seed=seed
    )
    chosen = load_recipe(Recipe, "peyolos", recipe, **changes)
    check_folder(out)
    pictures, classes = read_boxes(boxes, data)
    known = None
    if test and test_boxes:
        held_out, others = read_boxes(test_boxes, test)
        check_classes(classes, others)
        known = BoxSource(held_out, chosen.views, workers=workers)
    with progress_bar("training", unit="steps") as bar:
        history = train(
            BoxSource(pictures, chosen.views, workers=workers),
            classes,
            out,
            chosen,
            test=known,
            weights=weights,
            checkpoint=out.with_name(out.name + ".checkpoint"),
            hardware=Hardware(accelerator, devices, nodes, workers),
            on_step=bar.update,
            on_epoch=None if json else shower(chosen.epochs, "average precision"),
        )
    report_history(chosen, history, out, json)


app.command("split", help=train_split.HELP)(train_split.command)
