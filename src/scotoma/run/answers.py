"""Files of answers: what a black box said of pictures whose search is not over."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scotoma.core.errors import FileError

__all__ = ["AnswerFile", "AnswerFolder"]

_HEAD = struct.Struct("<II")  # checksum of the question, number of answers


class AnswerFolder:
    """One file per picture under search; each goes when its picture is done.

    Args:
        folder: Made when the first answer comes.

    Security:
        Scores on the original are among the answers: the folder is the owner's, like the
        manifest, and no part of a release.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, *identity: str) -> AnswerFile:
        """Return the file of one picture under one run's settings."""
        name = hashlib.sha256("\0".join(identity).encode("utf-8", "replace")).hexdigest()[:32]
        return AnswerFile(self._folder / name)

    def close(self) -> None:
        """Remove the folder if nothing is left in it."""
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()


class AnswerFile:
    """The answers on one picture, in the order of asking.

    Args:
        path: Read as far as it is whole; the rest of a torn file is written anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._place = 0
        self._end: int | None = 0  # bytes recalled so far; None once there is nothing to recall

    def recall(self, question: int) -> list[Tensor] | None:
        """Return the answers to the next question, None where it was not asked before."""
        if self._place == len(self._known) or self._known[self._place][0] != question:
            self._known = self._known[: self._place]
            return None
        answers = self._known[self._place][1]
        self._place += 1
        self._end = (self._end or 0) + len(_pack(question, answers))
        return answers

    def keep(self, question: int, answers: Sequence[Tensor]) -> None:
        """Note answers down, in the system's hands when this returns.

        Raises:
            FileError: The disk does not take them.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                if self._end is not None:
                    file.truncate(self._end)
                    self._end = None
                file.write(_pack(question, answers))
        except OSError as error:
            raise FileError(
                f"could not note answers down in {self._path}: {error}; make room and run again"
            ) from error

    def forget(self) -> None:
        """Remove the file: the picture is done."""
        self._path.unlink(missing_ok=True)


def _pack(question: int, answers: Sequence[Tensor]) -> bytes:
    sizes = struct.pack(f"<{len(answers)}I", *(answer.numel() for answer in answers))
    values = [answer.float().numpy().astype("<f4").tobytes() for answer in answers]
    return b"".join([_HEAD.pack(question, len(answers)), sizes, *values])


def _read(path: Path) -> list[tuple[int, list[Tensor]]]:
    """Return questions and answers as far as the file is whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    found, place = [], 0
    while place + _HEAD.size <= len(data):
        question, count = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        if place + 4 * count > len(data):
            break
        sizes = struct.unpack_from(f"<{count}I", data, place)
        place += 4 * count
        if place + 4 * sum(sizes) > len(data):
            break
        answers = []
        for size in sizes:
            answers.append(torch.tensor(np.frombuffer(data, "<f4", size, place)))
            place += 4 * size
        found.append((question, answers))
    return found
