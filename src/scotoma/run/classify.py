"""Ask a classifier about releases and pictures: what a server does with what it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scotoma.core.errors import ScotomaError, SettingsError
from scotoma.images.ciphertext import RELEASE_SUFFIXES, decode_release, is_release
from scotoma.images.formats import PICTURE_SUFFIXES
from scotoma.images.read import decode_picture, read_file
from scotoma.images.walk import find_pictures
from scotoma.models.classifier import Classifier
from scotoma.run.entry import Answer

__all__ = ["Verdict", "classify"]


@dataclass(frozen=True)
class Verdict:
    """What a classifier says of one input.

    Args:
        input: The file; of a release of several pictures, with ``#`` and the picture's number.
        kind: ``release`` or ``picture``; None where it could not be read.
        answers: The most probable classes, best first; empty where it failed.
        error: Why it failed.
    """

    input: str
    kind: str | None
    answers: tuple[Answer, ...]
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "input": self.input,
            "kind": self.kind,
            "answers": [vars(answer) for answer in self.answers],
            "error": self.error,
        }


@dataclass(frozen=True, eq=False)
class _Read:
    name: str
    kind: str
    inputs: Tensor


def classify(
    inputs: Sequence[Path],
    classifier: Classifier,
    *,
    top: int = 1,
    batch_size: int = 16,
    on_verdict: Callable[[Verdict], None] | None = None,
) -> list[Verdict]:
    """Return what ``classifier`` says of every input, in order.

    Args:
        inputs: Release files, pictures, and folders of them.
        classifier: An adapted one reads releases of its own form, any other reads pictures.
        top: How many classes to name.
        batch_size: Inputs per network pass.
        on_verdict: Called with each verdict as it is reached.

    Raises:
        FileError: An input does not exist.
        SettingsError: ``top`` or ``batch_size`` below 1.

    Security:
        A release from outside is data: nothing in it is executed, and one that does not fit
        the model is refused before the network sees it. Whether its sender had the key is not
        known without the key.
    """
    if not (top >= 1 and batch_size >= 1):
        raise SettingsError(f"expected top and batch_size of at least 1, got {top}, {batch_size}")
    verdicts: list[Verdict] = []

    def settle(found: Sequence[Verdict]) -> None:
        for verdict in found:
            verdicts.append(verdict)
            if on_verdict:
                on_verdict(verdict)

    waiting: list[_Read] = []
    for path in _find(inputs):
        try:
            waiting += _read(path, classifier)
        except Exception as error:  # whatever is wrong with one input, the others are answered
            settle(_answers(waiting, classifier, top, batch_size))
            waiting = []
            known = isinstance(error, ScotomaError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            settle([Verdict(str(path), None, (), text or type(error).__name__)])
        if len(waiting) >= batch_size:
            settle(_answers(waiting, classifier, top, batch_size))
            waiting = []
    settle(_answers(waiting, classifier, top, batch_size))
    return verdicts


def _find(inputs: Sequence[Path]) -> Iterator[Path]:
    suffixes = PICTURE_SUFFIXES | RELEASE_SUFFIXES
    return (found.path for found in find_pictures(inputs, suffixes=suffixes))


def _read(path: Path, classifier: Classifier) -> list[_Read]:
    data = read_file(path)
    if path.suffix.lower() == ".safetensors" or is_release(data):
        release = decode_release(data, name=path.name)
        opened = classifier.open_release(release)
        many = len(opened) > 1
        names = [f"{path}#{number}" if many else str(path) for number in range(len(opened))]
        return [_Read(name, "release", one) for name, one in zip(names, opened, strict=True)]
    picture = decode_picture(data, name=path.name, keep_profile=True)
    return [_Read(str(path), "picture", classifier.read(picture.to_pil()))]


def _answers(
    waiting: Sequence[_Read], classifier: Classifier, top: int, batch_size: int
) -> list[Verdict]:
    """Return a verdict on each, those of one shape asked together, so many at once at most."""
    verdicts: dict[int, Verdict] = {}
    for shape in dict.fromkeys(tuple(read.inputs.shape) for read in waiting):
        places = [n for n, read in enumerate(waiting) if tuple(read.inputs.shape) == shape]
        # One release may hold more pictures than a network has room for.
        for start in range(0, len(places), batch_size):
            part = places[start : start + batch_size]
            found = _ask([waiting[n] for n in part], classifier, top)
            verdicts.update(zip(part, found, strict=True))
    return [verdicts[n] for n in range(len(waiting))]


def _ask(batch: Sequence[_Read], classifier: Classifier, top: int) -> list[Verdict]:
    try:
        logits = classifier.logits(torch.stack([read.inputs for read in batch]))
    except Exception as error:  # memory may not suffice for these, and still for the others
        known = isinstance(error, ScotomaError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        return [Verdict(read.name, read.kind, (), text) for read in batch]
    return [
        Verdict(read.name, read.kind, _top(row, classifier, top))
        for read, row in zip(batch, logits, strict=True)
    ]


def _top(logits: Tensor, classifier: Classifier, top: int) -> tuple[Answer, ...]:
    scores = logits.softmax(0)
    labels = logits.topk(min(top, len(logits))).indices.tolist()
    return tuple(
        Answer(label, classifier.class_name(label), round(float(scores[label]), 6))
        for label in labels
    )
