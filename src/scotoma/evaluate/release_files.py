"""An attack on release files, with no owner in the process: no key, no oracle, no judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scotoma.core.errors import FileError, ModelError, ReleaseError, SettingsError, UnknownNameError
from scotoma.core.protocols import GRANTS, Attack, Knowledge, Release, TrainableAttack
from scotoma.evaluate.exhibits import encode_png
from scotoma.evaluate.judge import check_guesses
from scotoma.evaluate.subjects import Encrypted
from scotoma.evaluate.threat_models import simulator
from scotoma.images.ciphertext import RELEASE_SUFFIXES, is_release, read_release
from scotoma.images.picture_sets import open_picture_set
from scotoma.images.read import decode_picture
from scotoma.images.walk import Found, find_pictures, output_path
from scotoma.images.write import write_atomically
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.spec import load_classifier
from scotoma.ops.generators import seeded_generator
from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = ["Attacked", "attack_files"]

_READING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


@dataclass(frozen=True)
class Attacked:
    """What came of one release file.

    Args:
        input: The file.
        outputs: Guesses as written, relative to the output folder; several where only an
            oracle could choose among candidates.
    """

    input: str
    outputs: tuple[str, ...]


def attack_files(
    paths: Sequence[Path],
    out: Path,
    attack: Attack | TrainableAttack,
    grants: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Attacked]:
    """Attack release files together where they share key and settings; write guesses as PNG.

    Args:
        paths: Release files and folders of them.
        out: Output folder; mirrors the input tree.
        attack: What to try.
        grants: What the attacker has besides: ``auxiliary`` and a folder or zip of pictures,
            ``pairs`` and ``PICTURES,RELEASES`` (two folders of the same names),
            ``adapted_model`` or ``public_model`` and a model SPEC. ``simulate`` needs no file.
        seed: Of the attack's randomness.
        checkpoint: Where an attack that learns keeps its state.
        on_step: Called with (steps done, steps in all) while it learns.

    Returns:
        One entry per file, in the order of the files.

    Raises:
        FileError: No release there, or one that cannot be read.
        ReleaseError: A damaged release.
        UnknownNameError: A grant that does not exist.
        NotGrantedError: The attack reads what was not granted.
        NotApplicableError: It has no hold on these releases.
    """
    granted = dict(grants or {})
    for name in granted:
        if name not in GRANTS:
            raise UnknownNameError("grant", name, GRANTS)
        if name in ("protect", "simulate"):
            raise SettingsError(
                f"expected no file for {name!r}: simulate is always there, and nobody but the "
                "key's holder answers for protect"
            )
    found: dict[Found, Release] = {}
    for one in find_pictures(paths, exclude=out, suffixes=RELEASE_SUFFIXES):
        if is_release(_head(one.path)):
            found[one] = read_release(one.path)
    if not found:
        raise FileError(f"expected releases in {', '.join(map(str, paths))}, got none")
    results: dict[Found, Attacked] = {}
    for number, group in enumerate(_alike(found)):
        release = Release(torch.cat([found[one].data for one in group]), found[group[0]].metadata)
        knowledge = _know(release, granted)
        generator = seeded_generator(f"attack/{seed}/{number}".encode())
        if isinstance(attack, TrainableAttack):
            path = checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{number}")
            ready = attack.fit(knowledge, generator=generator, checkpoint=path, on_step=on_step)
        else:
            ready = attack
        guesses = ready.run(release, knowledge, generator=generator)
        shape = torch.empty(len(release.data), 3, *_plain_size(release))
        results |= _write(group, found, check_guesses(guesses, shape), out)
    return [results[one] for one in found]


def _alike(found: Mapping[Found, Release]) -> Iterator[list[Found]]:
    """Yield files whose releases share all metadata and their shape."""
    groups: dict[str, list[Found]] = {}
    for one, release in found.items():
        name = f"{sorted(release.metadata.items())} {tuple(release.data.shape[1:])}"
        groups.setdefault(name, []).append(one)
    yield from groups.values()


def _know(release: Release, granted: Mapping[str, str]) -> Knowledge:
    preprocessing = _preprocessing_of(release)
    known: dict[str, Any] = {}
    settings = EncryptSettings.from_metadata(release.metadata)
    known["simulate"] = simulator(Encrypted(settings, preprocessing))
    if "auxiliary" in granted:
        known["auxiliary"] = _pictures(Path(granted["auxiliary"]), preprocessing)
    if "pairs" in granted:
        known["pairs"] = _pairs(granted["pairs"], preprocessing, release)
    for name in ("adapted_model", "public_model"):
        if name in granted:
            network = load_classifier(granted[name]).network
            if not isinstance(network, nn.Module):
                raise ModelError(f"expected a model with weights for {name}, got scores only")
            known[name] = network
    return Knowledge(**known)


def _pairs(text: str, preprocessing: Preprocessing, release: Release) -> tuple[Tensor, Release]:
    plain, comma, protected = text.partition(",")
    if not comma:
        raise SettingsError(f"expected pairs=PICTURES,RELEASES, got {text!r}")
    pictures = {
        Path(entry.path).stem: place
        for place, entry in enumerate(open_picture_set(Path(plain)).entries)
    }
    made, places = [], []
    for one in find_pictures([Path(protected)], suffixes=RELEASE_SUFFIXES):
        if one.path.stem in pictures and is_release(_head(one.path)):
            made.append(read_release(one.path))
            places.append(pictures[one.path.stem])
    if not made:
        raise FileError(f"expected releases in {protected} named as pictures in {plain}, got none")
    for pair in made:
        if pair.metadata != release.metadata:
            raise ReleaseError(
                "expected pairs protected like the attacked releases, under the same key, "
                f"got {pair.metadata.get('scheme')!r} under {pair.metadata.get('key_id')!r}"
            )
    images = _pictures(Path(plain), preprocessing, places)
    return images, Release(torch.cat([pair.data for pair in made]), release.metadata)


def _pictures(
    source: Path, preprocessing: Preprocessing, places: Sequence[int] | None = None
) -> Tensor:
    found = open_picture_set(source)
    contents = found.contents(places)
    chosen = range(len(found.entries)) if places is None else places
    return torch.stack(
        [
            preprocessing.in_unit_range()
            .transform(
                decode_picture(content, name=found.entries[place].path, keep_profile=True).to_pil()
            )
            .clamp(0, 1)
            for place, content in zip(chosen, contents, strict=True)
        ]
    )


def _preprocessing_of(release: Release) -> Preprocessing:
    metadata = release.metadata
    missing = [name for name in _READING if metadata.get(name) is None]
    if missing:
        raise ReleaseError(
            f"expected a release that says how pictures were read, got none of {missing}; "
            "encrypt with scotoma encrypt"
        )
    return Preprocessing.from_config({name: metadata[name] for name in _READING})


def _plain_size(release: Release) -> tuple[int, int]:
    _, height, width = release.metadata["input_size"]
    return int(height), int(width)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise FileError(f"expected a readable release at {path}, got: {error}") from error


def _write(
    group: Sequence[Found], found: Mapping[Found, Release], candidates: Tensor, out: Path
) -> dict[Found, Attacked]:
    made, first = {}, 0
    for one in group:
        names = []
        count = len(found[one].data)
        for number, candidate in enumerate(candidates):
            for place in range(count):
                path = output_path(one, out, ".png")
                parts = [str(place)] * (count > 1) + [f"c{number}"] * (len(candidates) > 1)
                path = path.with_name(".".join([path.stem, *parts, "png"]))
                write_atomically(path, encode_png(candidate[first + place]))
                names.append(path.relative_to(out).as_posix())
        first += count
        made[one] = Attacked(one.path.as_posix(), tuple(names))
    return made
