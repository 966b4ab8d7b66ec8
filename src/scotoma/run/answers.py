"""Files of answers: what a black box said of pictures whose search is not over."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scotoma.core.errors import FileError

__all__ = ["AnswerFile", "AnswerFolder"]

_HEAD = struct.Struct("<QI")  # checksum of the question, number of scores


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
    """The answers on one picture.

    Args:
        path: Read as far as it is whole; the rest of a torn file is written anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known, self._whole = _read(path)

    def recall(self, question: int) -> Tensor | None:
        """Return an earlier run's answer, once; None where there is none."""
        return self._known.pop(question, None)

    def keep(self, question: int, answer: Tensor) -> None:
        """Note an answer down; it is in the system's hands when this returns.

        Raises:
            FileError: The disk does not take it.
        """
        values = answer.float().numpy().astype("<f4").tobytes()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                if self._whole is not None:
                    file.truncate(self._whole)
                    self._whole = None
                file.write(_HEAD.pack(question, answer.numel()) + values)
        except OSError as error:
            raise FileError(
                f"could not note answers down in {self._path}: {error}; make room and run again"
            ) from error

    def forget(self) -> None:
        """Remove the file: the picture is done."""
        self._path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[int, Tensor], int | None]:
    """Return the answers by question, as far as the file is whole, and how far that is."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}, 0
    found, place = dict[int, Tensor](), 0
    while place + _HEAD.size <= len(data):
        question, size = _HEAD.unpack_from(data, place)
        end = place + _HEAD.size + 4 * size
        if end > len(data):
            break
        found[question] = torch.tensor(np.frombuffer(data, "<f4", size, place + _HEAD.size))
        place = end
    return found, place
