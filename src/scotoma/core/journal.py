"""Files of lines that survive a kill: each line is on the disk before the next one starts.

A killed process leaves at most one torn last line. Readers leave it out; the next append
removes it first. One process writes at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["append_line", "open_journal", "whole_lines"]

_TAIL = 1 << 16  # bytes looked at in one go when searching the last line's end backwards


def open_journal(path: Path) -> int:
    """Open or create a journal for appending and return its descriptor; what it holds stays.

    Raises:
        OSError: It cannot be opened for writing.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    is_new = not path.exists()
    descriptor = os.open(path, flags, 0o666)
    if is_new:
        _sync_folder(path.parent)
    return descriptor


def append_line(descriptor: int, text: str) -> tuple[int, int]:
    """Write a line that is on the disk when this returns.

    Args:
        descriptor: Of :func:`open_journal`.
        text: ASCII, without a line's end.

    Returns:
        Bytes of the line, and those written: a full disk takes a part, which the next append
        removes.

    Raises:
        OSError: The disk does not take it.
    """
    line = text.encode("ascii") + b"\n"
    _cut_torn_line(descriptor)
    written = os.write(descriptor, line)
    os.fsync(descriptor)
    return len(line), written


def whole_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield ``(byte offset, line)`` of each line that has an end; a torn last one is left out.

    Args:
        path: A file that does not exist has no lines.
    """
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                # A damaged byte becomes a mark that whoever reads the line complains about.
                yield offset, line.decode("ascii", "replace")
            offset += len(line)


def _cut_torn_line(descriptor: int) -> None:
    """Shorten the file to the end of its last whole line."""
    size = end = os.lseek(descriptor, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _TAIL)
        if size == end:  # the common case: one byte tells that nothing is torn
            start = end - 1
        os.lseek(descriptor, start, os.SEEK_SET)
        newline = os.read(descriptor, end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut, where the system lets a folder be synced."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
