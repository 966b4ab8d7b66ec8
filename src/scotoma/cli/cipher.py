"""What the commands around encryption share: scheme options, keys, and one line per failure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scotoma.cli.console import given

if TYPE_CHECKING:
    from scotoma.core.keys import Key, KeyRing
    from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = [
    "BlockOption",
    "DatasetOption",
    "InnerOption",
    "KeyOption",
    "NoiseOption",
    "NoisePlanesOption",
    "PassphraseOption",
    "PeriodOption",
    "SchemeOption",
    "SubPatchesOption",
    "open_key",
    "open_ring",
    "read_settings",
]

SchemeOption = Annotated[str, typer.Option(help="Scheme; see: scotoma list protections.")]
KeyOption = Annotated[
    Path | None, typer.Option(help="Key file, for a keyed scheme; see: scotoma keygen.")
]
PassphraseOption = Annotated[
    Path | None, typer.Option(help="File whose only line is the key file's passphrase.")
]
BlockOption = Annotated[
    int | None, typer.Option(help="Side of a block, in pixels of what the model reads.")
]
DatasetOption = Annotated[
    str | None,
    typer.Option(help="Label of these pictures; each label gives a cipher of its own."),
]
InnerOption = Annotated[
    str | None, typer.Option(help="block-shuffle: also within blocks: none, orthogonal, permute.")
]
PeriodOption = Annotated[
    str | None,
    typer.Option(help="orthogonal-per-block: maps repeat every DOWNxACROSS blocks, as 2x2."),
]
SubPatchesOption = Annotated[
    int | None, typer.Option(help="mix: parts of a patch that are averaged, a square number.")
]
NoiseOption = Annotated[
    float | None, typer.Option(help="hardened: how many times stronger than the picture noise is.")
]
NoisePlanesOption = Annotated[
    int | None, typer.Option(help="hardened: planes that a release has more than the picture.")
]


def read_settings(
    scheme: str,
    *,
    block: int | None,
    dataset: str | None,
    inner: str | None,
    period: str | None,
    sub_patches: int | None,
    noise: float | None,
    noise_planes: int | None,
) -> EncryptSettings:
    """Return the settings that options name.

    Raises:
        UnknownNameError: No such scheme; the message suggests the nearest.
        SettingsError: An option out of range, or one that the scheme does not read.
    """
    from scotoma.protections.encrypt.settings import EncryptSettings

    options = given(
        block=block,
        dataset=dataset,
        inner=inner,
        period=None if period is None else _read_period(period),
        sub_patches=sub_patches,
        noise=noise,
        noise_planes=noise_planes,
    )
    return EncryptSettings(scheme, **options)


def open_key(
    settings: EncryptSettings, key_file: Path | None, passphrase_file: Path | None
) -> Key | None:
    """Return the current key of a key file, or None for a key-less scheme.

    Raises:
        CipherKeyError: A keyed scheme without a key file, or a key-less one with one.
        KeyFileError: No key file, or a damaged one.
    """
    from scotoma.core.errors import CipherKeyError
    from scotoma.protections.encrypt.schemes import schemes

    if not schemes.get(settings.scheme).keyed:
        if key_file is not None:
            raise CipherKeyError(
                f"expected no --key for scheme {settings.scheme!r}, which has none and would "
                f"protect nothing more with {key_file}; leave it out, or choose a keyed scheme: "
                "scotoma list protections"
            )
        return None
    if key_file is None:
        raise CipherKeyError(
            f"expected --key KEYFILE for scheme {settings.scheme!r}, got none; "
            "make one: scotoma keygen KEYFILE"
        )
    return open_ring(key_file, passphrase_file).current


def open_ring(key_file: Path, passphrase_file: Path | None) -> KeyRing:
    """Return all keys of a key file; a passphrase is asked for where it is sealed.

    Raises:
        KeyFileError: No key file, or a damaged one.
        CipherKeyError: A wrong passphrase, or none.
    """
    from scotoma.cli.passphrases import find_passphrase
    from scotoma.core.key_files import read_key_file

    return read_key_file(key_file, find_passphrase(passphrase_file))


def _read_period(text: str) -> tuple[int, int]:
    from scotoma.core.errors import SettingsError

    down, cross, across = text.partition("x")
    if not (cross and down.isdecimal() and across.isdecimal()):
        raise SettingsError(f"expected a period DOWNxACROSS in blocks, as 2x2, got {text!r}")
    return int(down), int(across)
