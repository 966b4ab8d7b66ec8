"""What the commands around split networks share: the split file, and the key of streams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scotoma.core.keys import KeyRing
    from scotoma.models.split_model import SplitModel

__all__ = ["PlainOption", "SplitOption", "StreamKeyOption", "open_optional_ring", "open_split_file"]

SplitOption = Annotated[
    Path, typer.Option(help="Split network, as scotoma train split wrote it (.safetensors).")
]
PlainOption = Annotated[
    str | None, typer.Option(help="The plain model, for a split file that does not hold it.")
]
StreamKeyOption = Annotated[
    Path | None, typer.Option(help="Key file that seals the streams; see: scotoma keygen.")
]


def open_split_file(path: Path, plain: str | None, device: str) -> tuple[SplitModel, str]:
    """Return a split network and the name that its streams know it by.

    Raises:
        ModelError: Missing, damaged, no split network, or its plain network is missing.
    """
    from torch import nn

    from scotoma.core.errors import ModelError
    from scotoma.models.spec import load_classifier
    from scotoma.models.split_model import load_split
    from scotoma.run.manifest import sha256_of

    network: nn.Module | None = None
    if plain is not None:
        found = load_classifier(plain, device=device).network
        network = found if isinstance(found, nn.Module) else None
        if network is None:
            raise ModelError(
                f"expected a network with weights, got {plain}, which gives scores alone; name "
                "the model that it was exported from"
            )
    model = load_split(path, network=network)
    return model, sha256_of(path)[:16]


def open_optional_ring(key_file: Path | None, passphrase_file: Path | None) -> KeyRing | None:
    """Return all keys of a key file, or None where none is named.

    Raises:
        KeyFileError: No key file, or a damaged one.
        CipherKeyError: A wrong passphrase, or none.
    """
    from scotoma.cli.cipher import open_ring

    return None if key_file is None else open_ring(key_file, passphrase_file)
