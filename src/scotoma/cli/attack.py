"""``scotoma attack``: what somebody gets out of releases without the key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scotoma.cli.console import print_json, progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HELP", "command"]

HELP = """Try an attack on release files, as somebody would who has no key.

Releases of one key and settings are attacked together. What else the attacker has is granted by
name: auxiliary=FOLDER of similar pictures, pairs=PICTURES,RELEASES (two folders of the same
names), adapted_model=SPEC, public_model=SPEC. Writes guesses as PNG below OUT; where an attack
leaves several, only somebody who knows the picture could choose. To measure, not look: scotoma
evaluate.

Example: scotoma attack released --attack pca --grant auxiliary=photos -o guesses
"""


def command(
    releases: Annotated[list[Path], typer.Argument(help="Releases and folders of releases.")],
    attack: Annotated[str, typer.Option(help="Attack; see: scotoma list attacks.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")],
    grant: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE; may be given several times.")
    ] = None,
    set: Annotated[  # noqa: A002 - the option's name
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the attack's settings.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the attack's randomness.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Attack; guesses are not judged."""
    grants = dict(_pairs(grant or [], "--grant NAME=FILE"))
    settings = {name: _value(text) for name, text in _pairs(set or [], "--set NAME=VALUE")}

    from scotoma.evaluate.config import open_attack
    from scotoma.evaluate.release_files import attack_files

    opened = open_attack(attack, settings)
    with progress_bar("attacking", unit="steps") as bar:
        found = attack_files(releases, out, opened, grants, seed=seed, on_step=bar.update)
    if json:
        print_json({one.input: list(one.outputs) for one in found})
        return
    for one in found:
        typer.echo(f"{one.input}: {', '.join(one.outputs)}")


def _pairs(words: Sequence[str], form: str) -> list[tuple[str, str]]:
    from scotoma.core.errors import SettingsError

    pairs = []
    for word in words:
        name, sign, value = word.partition("=")
        if not (name and sign and value):
            raise SettingsError(f"expected {form}, got {word!r}")
        pairs.append((name.replace("-", "_"), value))
    return pairs


def _value(text: str) -> Any:
    """Read a value as TOML would, and what is none as text."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
