"""``scotoma train``: train the models that ship with Scotoma, or your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scotoma.cli.console import given, print_json, progress_bar

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

    from scotoma.core.errors import FileError
    from scotoma.train.classifier import Epoch, Recipe, train
    from scotoma.train.data import load_class_folders

    recipe = replace(
        Recipe(seed=seed), **given(epochs=epochs, batch_size=batch_size, dim=dim, depth=depth)
    )
    if not out.parent.is_dir():
        raise FileError(f"expected an existing folder to write {out.name} to, got {out.parent}")
    with progress_bar("reading") as bar:
        pictures = load_class_folders(data, recipe.preprocessing, on_progress=bar.update)
        known = load_class_folders(test, recipe.preprocessing) if test else None
        if known is not None and known.classes != pictures.classes:
            raise FileError(
                f"expected the same classes in {test} as in {data}, got {known.classes} and "
                f"{pictures.classes}"
            )

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
