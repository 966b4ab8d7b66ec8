"""``scotoma encrypt``: pictures that only an adapted model can read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from scotoma.cli.console import use_device
from scotoma.cli.conversion import convert_and_report

__all__ = ["HELP", "command"]

_COARSE_ENOUGH = 8

HELP = """Encrypt pictures so that only a model adapted with the key reads them.

What is encrypted is what the model would see: resized, cropped, normalized. Writes OUT/ (the
input tree anew), OUT/manifest.jsonl and OUT/summary.json. Started again, it skips what is done.
The releases may be handed out; the manifest, which names your pictures, stays with you. Exit
code 3: a picture could not be encrypted; the manifest says why.

Example: scotoma encrypt photos -o released --scheme orthogonal --key photos.key
"""


def command(
    inputs: Annotated[list[Path], typer.Argument(help="Pictures and folders of pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")],
    scheme: SchemeOption,
    key: KeyOption = None,
    model: Annotated[
        str, typer.Option(help="Model that will read the releases; its preprocessing is used.")
    ] = "embedded",
    block: BlockOption = None,
    inner: InnerOption = None,
    period: PeriodOption = None,
    sub_patches: SubPatchesOption = None,
    noise: NoiseOption = None,
    noise_planes: NoisePlanesOption = None,
    dataset: DatasetOption = None,
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option(help="safetensors, or png: 8 bits per value.")
    ] = "safetensors",
    dtype: Annotated[str, typer.Option(help="float32 or float16, of safetensors.")] = "float32",
    passphrase_file: PassphraseOption = None,
    seed: Annotated[int, typer.Option(help="Of fresh randomness: orders, noise.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Encrypt; exit 3 when a picture failed."""
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
    from scotoma.images.ciphertext import CipherEncoding
    from scotoma.images.walk import find_pictures

    CipherEncoding("safetensors", dtype)  # names a mistake before a passphrase is asked for
    found = find_pictures(inputs, exclude=out)
    secret = open_key(settings, key, passphrase_file)
    if secret is not None and settings.block < _COARSE_ENOUGH:
        typer.echo(
            f"note: in blocks of {settings.block} pixels outlines stay visible and a wrong key "
            f"does better than chance; --block {_COARSE_ENOUGH} or more hides better: "
            "see docs/encryption.md",
            err=True,
        )
    use_device(device)

    from scotoma.models.spec import load_classifier
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.run.encrypt import encrypt
    from scotoma.run.scaling import scaling_for

    preprocessing = load_classifier(model).preprocessing
    most = open_protection(settings, preprocessing).most_pictures(preprocessing.input_size)
    if most is not None:
        count = sum(1 for _ in find_pictures(inputs, exclude=out))
        if count > most:
            typer.echo(
                f"note: {count} pictures under one key and label, which hide {most} well; give "
                "every part of them a --dataset of its own, and adapt a model for each: see "
                "docs/hardened.md",
                err=True,
            )
    encoding = CipherEncoding(format, dtype, scaling_for(settings, preprocessing))
    convert_and_report(
        "encrypting",
        found,
        lambda show: encrypt(
            inputs,
            out,
            settings,
            preprocessing,
            key=secret,
            encoding=encoding,
            seed=seed,
            device=device,
            on_progress=show,
        ),
        out=out,
        json=json,
    )
