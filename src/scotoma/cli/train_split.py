"""``scotoma train split``: train the private bottleneck of a split network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.console import given, progress_bar
from scotoma.cli.training import check_classes, check_folder, report_history, shower

__all__ = ["HELP", "command"]

HELP = """Train what stands between the camera's half of a network and the server's.

The network stays as it is. A run that is stopped goes on from FILE.checkpoint when started
again.

Example: scotoma train split --model embedded --at blocks.1 --data photos.zip --test test.zip
--recipe private -o split.safetensors
"""


def command(
    model: Annotated[
        str, typer.Option(help="Model SPEC, see scotoma list models; or yolov5:FILE[@SIDE].")
    ],
    at: Annotated[str, typer.Option(help="Where it is cut, see scotoma list splits.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Folder or .zip laid out as CLASS/NAME.jpg; where the recipe learns from the "
            "network's answers, any folder of pictures."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Split file (.safetensors) to write.")],
    recipe: Annotated[
        str, typer.Option(help="A recipe of scotoma's (split-*), or a .toml file of your own.")
    ] = "private",
    test: Annotated[
        Path | None, typer.Option(help="Pictures whose accuracy is reported, laid out alike.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Of the latent; 0: a third.")] = None,
    rate: Annotated[float | None, typer.Option(help="Weight of the latent's bits.")] = None,
    reconstruction: Annotated[
        float | None, typer.Option(help="Weight of what the adversaries get.")
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
    from scotoma.models.detectors import is_detector, load_detector
    from scotoma.models.spec import load_classifier
    from scotoma.train.hardware import Hardware
    from scotoma.train.recipe_files import load_recipe
    from scotoma.train.split import Recipe, open_source, train

    changes = given(
        channels=channels,
        rate=rate,
        reconstruction=reconstruction,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    chosen = load_recipe(Recipe, "split", recipe, **changes)
    check_folder(out)
    classifier = load_detector(model) if is_detector(model) else load_classifier(model)
    with progress_bar("reading") as bar:
        pictures = open_source(
            data, classifier.preprocessing, chosen, workers=workers, on_progress=bar.update
        )
        known = None
        if test:
            known = open_source(test, classifier.preprocessing, chosen, workers=workers)
            check_classes(pictures.classes, known.classes)
    with progress_bar("training", unit="steps") as bar:
        history = train(
            classifier,
            at,
            pictures,
            out,
            chosen,
            test=known,
            checkpoint=out.with_name(out.name + ".checkpoint"),
            hardware=Hardware(accelerator, devices, nodes, workers),
            on_step=bar.update,
            on_epoch=None if json else shower(chosen.alone_epochs + chosen.epochs, "accuracy"),
        )
    report_history(chosen, history, out, json)
