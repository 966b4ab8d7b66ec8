"""``scotoma adapt``: a model that reads releases as it read pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scotoma.cli.cipher import (
    BlockOption,
    DatasetOption,
    InnerOption,
    KeyOption,
    NoiseOption,
    NoisePlanesOption,
    PassphraseOption,
    PeriodOption,
    SchemeOption,
    SubPatchesOption,
    open_key,
    read_settings,
)
from scotoma.cli.console import print_json, use_device

if TYPE_CHECKING:
    from scotoma.run.adapt import Agreement

__all__ = ["HELP", "command"]

HELP = """Rewrite a model's first layer so that it reads releases; its answers stay the same.

Compares the file as written with the plain model before it is put in place. Give scheme, key,
block and dataset as for scotoma encrypt. The file holds no key, but whoever also has the plain
weights can solve for the cipher: give it only to the server that may read the pictures.

Example: scotoma adapt --model timm:resnet18 --scheme orthogonal --key photos.key
-o resnet18.safetensors && scotoma classify released --model scotoma:resnet18.safetensors
"""


def command(
    model: Annotated[str, typer.Option(help="Model to adapt; see: scotoma list models.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write (.safetensors).")],
    scheme: SchemeOption,
    key: KeyOption = None,
    block: BlockOption = None,
    inner: InnerOption = None,
    period: PeriodOption = None,
    sub_patches: SubPatchesOption = None,
    noise: NoiseOption = None,
    noise_planes: NoisePlanesOption = None,
    dataset: DatasetOption = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write an ONNX file beside it.")] = False,
    passphrase_file: PassphraseOption = None,
    seed: Annotated[int, typer.Option(help="Of the random pictures that it is checked on.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Adapt, check, write."""
    settings = read_settings(
        scheme,
        block=block,
        dataset=dataset,
        inner=inner,
        period=period,
        sub_patches=sub_patches,
        noise=noise,
        noise_planes=noise_planes,
    )
    secret = open_key(settings, key, passphrase_file)
    use_device(device)

    from scotoma.models.spec import load_classifier
    from scotoma.run.adapt import adapt

    classifier = load_classifier(model, device=device)
    made = adapt(classifier, settings, out, key=secret, onnx=onnx, seed=seed)
    if json:
        print_json(made.to_dict())
        return
    typer.echo(f"{model} -> {made.path}, reads {made.reads}")
    typer.echo(f"  {_words(made.agreement)}")
    if made.onnx is not None and made.onnx_agreement is not None:
        typer.echo(f"  {made.onnx} in onnxruntime: {_words(made.onnx_agreement)}")


def _words(agreement: Agreement) -> str:
    return (
        f"logits differ by at most {agreement.max_difference:.1e} of the greatest, "
        f"{agreement.decisions_changed} of {agreement.pictures} decisions on random pictures change"
    )
