"""Decode bitstreams and answer with a split network's tail: what the server does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scotoma.core.errors import BitstreamError, ModelError, ScotomaError, SettingsError
from scotoma.images.bitstream import STREAM_SUFFIX, LatentReader
from scotoma.images.walk import find_pictures
from scotoma.run.entry import Answer
from scotoma.run.found_boxes import FoundBox, find_objects

if TYPE_CHECKING:
    from scotoma.core.keys import KeyRing
    from scotoma.models.split_model import SplitModel

__all__ = ["LEAST_SCORE", "STREAM_SUFFIXES", "Decoder", "FrameAnswer", "decode"]

STREAM_SUFFIXES = frozenset({STREAM_SUFFIX})
"""What counts in a folder."""

LEAST_SCORE = 0.25
"""Boxes that a detector is less sure of are left out."""


@dataclass(frozen=True)
class FrameAnswer:
    """What the network says of one frame.

    Args:
        input: The stream.
        frame: Number of the frame; of an error, how many frames came before it.
        answers: The most probable classes, or all that a detector found, best first; empty
            where it failed.
        error: Why the stream ends here.
    """

    input: str
    frame: int
    answers: tuple[Answer | FoundBox, ...]
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "input": self.input,
            "frame": self.frame,
            "answers": [vars(answer) for answer in self.answers],
            "error": self.error,
        }


def decode(
    streams: Sequence[Path],
    model: SplitModel,
    *,
    split_digest: str,
    ring: KeyRing | None = None,
    top: int = 1,
    least_score: float = LEAST_SCORE,
    batch_size: int = 16,
    device: str = "cpu",
) -> Iterator[FrameAnswer]:
    """Yield what the network says of each frame of each stream, as soon as it is read.

    A stream that is damaged somewhere is answered up to there; its last line has the error.

    Args:
        streams: Stream files, and folders of them.
        model: Decoder and tail are used.
        split_digest: Of the split; a stream of another is refused.
        ring: Holds the keys that sealed them; None for open ones.
        top: How many classes to name.
        least_score: Of a detector's boxes, from 0 to 1.
        batch_size: Frames per network pass.
        device: Where the network lies.

    Raises:
        FileError: An input does not exist.
        SettingsError: ``top`` or ``batch_size`` below 1, or ``least_score`` outside [0, 1].
    """
    decoder = Decoder(
        model,
        split_digest=split_digest,
        ring=ring,
        top=top,
        least_score=least_score,
        batch_size=batch_size,
        device=device,
    )
    found = find_pictures(streams, suffixes=STREAM_SUFFIXES)
    return (answer for each in found for answer in decoder.answer_file(each.path))


class Decoder:
    """Answers streams of one split.

    Args:
        model: Decoder and tail are used.
        split_digest: Of the split.
        ring: Holds the keys that sealed the streams; None for open ones.
        top: How many classes to name.
        least_score: Of a detector's boxes, from 0 to 1.
        batch_size: Frames per network pass.
        device: Where the network lies.

    Raises:
        SettingsError: ``top`` or ``batch_size`` below 1, or ``least_score`` outside [0, 1].
    """

    def __init__(
        self,
        model: SplitModel,
        *,
        split_digest: str,
        ring: KeyRing | None = None,
        top: int = 1,
        least_score: float = LEAST_SCORE,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        if not (top >= 1 and batch_size >= 1):
            raise SettingsError(
                f"expected top and batch_size of at least 1, got {top}, {batch_size}"
            )
        if not 0 <= least_score <= 1:
            raise SettingsError(f"expected least_score in [0, 1], got {least_score}")
        self._model = model.to(device)
        self._digest = split_digest
        self._ring = ring
        self._top = top
        self._least_score = least_score
        self._batch_size = batch_size
        self._device = device

    def answer_file(self, path: Path) -> Iterator[FrameAnswer]:
        """Yield the answers of a stream file, the error last where there is one."""
        done = 0
        try:
            with path.open("rb") as source:
                for answer in self.answer(source, str(path)):
                    yield answer
                    done += 1
        except Exception as error:  # whatever is wrong with one stream, the others are answered
            known = isinstance(error, ScotomaError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            yield FrameAnswer(str(path), done, (), text or type(error).__name__)

    def answer(self, source: BinaryIO, name: str) -> Iterator[FrameAnswer]:
        """Yield the answers of a stream; ``batch_size`` frames are in memory at a time.

        Raises:
            BitstreamError: Damaged, reordered, cut off, of another split, or no bitstream.
            CipherKeyError: Sealed with a key that is not there.
        """
        reader = LatentReader(
            source,
            name=Path(name).name,
            key=self._ring,
            model=self._model.coder,
            shape=self._model.latent_shape,
        )
        found = reader.metadata.get("split")
        if found != self._digest:
            raise BitstreamError(
                f"{Path(name).name}: expected a stream of the split {self._digest}, got one of "
                f"{found}; name the split file that it was encoded with"
            )
        number = 0
        for batch, error in _batches(iter(reader), self._batch_size):
            for answers in self._ask(batch, reader.metadata):
                yield FrameAnswer(name, number, answers)
                number += 1
            if error is not None:
                raise error

    def _ask(
        self, batch: Sequence[NDArray[np.uint8]], metadata: Mapping[str, Any]
    ) -> Sequence[tuple[Answer | FoundBox, ...]]:
        """Return what the tail says of each of some frames."""
        if not batch:
            return []
        places = torch.from_numpy(np.stack(batch)).to(self._device)
        if self._model.anchors is not None:
            return list(find_objects(self._model, places, metadata, least_score=self._least_score))
        with torch.no_grad():
            logits = self._model.answer(places)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise ModelError(
                f"expected logits of a classifier, got a {type(logits).__name__}; read the stream "
                "with scotoma.images.bitstream.LatentReader and ask the tail yourself"
            )
        return [self._best(each) for each in logits.float().cpu()]

    def _name(self, label: int) -> str:
        classes = self._model.description.classes
        return classes[label] if classes else str(label)

    def _best(self, logits: Tensor) -> tuple[Answer, ...]:
        scores = logits.softmax(0)
        labels = logits.topk(min(self._top, len(logits))).indices.tolist()
        return tuple(
            Answer(label, self._name(label), round(float(scores[label]), 6)) for label in labels
        )


def _batches(
    frames: Iterator[NDArray[np.uint8]], size: int
) -> Iterator[tuple[list[NDArray[np.uint8]], Exception | None]]:
    """Yield frames by the batch, and after the last whole ones what went wrong, if anything."""
    while True:
        batch: list[NDArray[np.uint8]] = []
        try:
            for frame in islice(frames, size):
                batch.append(frame)
        except Exception as error:
            yield batch, error
            return
        if not batch:
            return
        yield batch, None
