"""What turns one file into another; :mod:`scotoma.run.conversion` does so for whole folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

__all__ = ["Converted", "Converter", "StreamConverter"]


@dataclass(frozen=True)
class Converted:
    """What became of one file's content.

    Args:
        data: The output's content.
        facts: Plain data for the manifest.
    """

    data: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)


class Converter(Protocol):
    """Something that turns one file into another."""

    @property
    def suffix(self) -> str:
        """Of the outputs, with its dot."""

    @property
    def private(self) -> bool:
        """Whether nobody but the user who runs this should read the outputs."""

    @property
    def fingerprint(self) -> str:
        """Changes with anything that could change an output; names no secret."""

    def convert(self, data: bytes, name: str) -> Converted:
        """Return the output for a file's content.

        Args:
            data: The content.
            name: The file's name, for messages.

        Raises:
            ScotomaError: There can be none; the reason goes into the manifest.
        """


@runtime_checkable
class StreamConverter(Protocol):
    """Something that turns one file into another without ever holding either in memory."""

    @property
    def suffix(self) -> str:
        """Of the outputs, with its dot."""

    @property
    def private(self) -> bool:
        """Whether nobody but the user who runs this should read the outputs."""

    @property
    def fingerprint(self) -> str:
        """Changes with anything that could change an output; names no secret."""

    def convert_file(self, path: Path, sink: BinaryIO) -> Mapping[str, Any]:
        """Write a file's output and return facts, plain data for the manifest.

        Args:
            path: The file.
            sink: Takes the output; what it holds counts only where nothing is raised.

        Raises:
            ScotomaError: There can be none; the reason goes into the manifest.
        """
