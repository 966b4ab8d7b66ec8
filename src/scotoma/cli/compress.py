"""``scotoma compress``: a classifier as a small file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scotoma.cli.console import given, print_json, progress_bar, use_device

if TYPE_CHECKING:
    from torch import nn

    from scotoma.compress.pictures import Pictures
    from scotoma.run.compress import Tensors, Tune

__all__ = ["HELP", "command"]

HELP = """Write a classifier as a small file, and measure what it loses.

BatchNorms are folded, weights rounded to whole numbers at one price for every bit, and coded.
The loss is measured on pictures held out, from the file as written. --budget searches the
smallest file that loses no more; --bits rounds all weights alike. Use the file as a model:
compressed:FILE.

Example: scotoma compress --model timm:local-dir:mobilenetv2 --data photos --budget 1 -o small.scmp
"""


def command(
    model: Annotated[str, typer.Option(help="Model to compress; see: scotoma list models.")],
    data: Annotated[
        Path, typer.Option(help="Pictures: a folder or .zip of class folders, or a .csv.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    budget: Annotated[
        float | None, typer.Option(help="Points of accuracy that may be lost; 1 if nothing else.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="What a bit costs instead, in nats a picture.")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Of every weight instead, 2 to 16.")] = None,
    prune: Annotated[
        float | None, typer.Option(help="With --bits: share of weights that become zero.")
    ] = None,
    fractional: Annotated[
        float | None, typer.Option(help="Share of kernels that become fractional filters.")
    ] = None,
    epochs: Annotated[
        int, typer.Option(help="Fine-tune each file tried, so many passes over the pictures.")
    ] = 0,
    held_out: Annotated[
        int | None, typer.Option(help="Pictures on which the loss is measured.")
    ] = None,
    most: Annotated[int | None, typer.Option(help="Pictures that are read at most.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write an ONNX file beside it.")] = False,
    seed: Annotated[int, typer.Option(help="Of the pictures' order.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Compress, measure, write."""
    from scotoma.compress.settings import CompressSettings

    if budget is None and price is None and bits is None:
        budget = 1.0
    settings = CompressSettings(
        seed=seed,
        **given(
            budget=budget,
            price=price,
            bits=bits,
            prune=prune,
            fractional=fractional,
            held_out=held_out,
        ),
    )
    use_device(device)

    from scotoma.compress.pictures import read_pictures
    from scotoma.models.spec import load_classifier
    from scotoma.run.compress import compress

    classifier = load_classifier(model, device=device)
    with progress_bar("reading") as bar:
        pictures = read_pictures(data, classifier, seed=seed, most=most, on_progress=bar.update)
    with progress_bar("compressing", unit="files tried") as bar:
        made = compress(
            classifier,
            pictures,
            out,
            settings,
            tune=_tuner(epochs, seed) if epochs else None,
            onnx=onnx,
            on_try=lambda tries, size, lost: bar.update(
                tries, settings.tries, f"{size / 1000:.1f} kB, {lost:+.2f} points lost"
            ),
        )
    if json:
        print_json(made.to_dict())
    else:
        share = 100 * made.size_bytes / made.float_bytes
        meaning = "accuracy" if made.are_labelled else "agreement"
        typer.echo(f"{model} -> {made.path}")
        typer.echo(f"  {made.size_bytes:,} bytes, {share:.1f} % of float32's {made.float_bytes:,}")
        typer.echo(
            f"  {meaning} {100 * made.accuracy_before:.2f} % before, "
            f"{100 * made.accuracy_after:.2f} % after, on {made.held_out} pictures held out"
        )
    if made.within_budget is False:
        typer.echo(
            f"scotoma: expected a file within {budget} points, found none down to the finest "
            "steps; it was written all the same, allow more or hold out more pictures",
            err=True,
        )
        raise typer.Exit(3)


def _tuner(epochs: int, seed: int) -> Tune:
    from scotoma.train.compressed import TuneSettings, fine_tune

    settings = TuneSettings(epochs=epochs, seed=seed)

    def tune(network: nn.Module, tensors: Tensors, pictures: Pictures, price: float) -> Tensors:
        return fine_tune(network, tensors, pictures, price, settings)

    return tune
