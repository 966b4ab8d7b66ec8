"""Pictures out of a video, one at a time, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from scotoma.core.errors import MissingExtraError, SettingsError, UnreadableImageError

__all__ = ["VIDEO_SUFFIXES", "read_frames"]

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm"})
"""What counts as a video in a folder."""


def read_frames(path: Path, *, every: int = 1) -> Iterator[Image.Image]:
    """Yield a video's frames as upright RGB pictures; one is in memory at a time.

    Args:
        path: The file.
        every: Take the first frame and then each so-manieth.

    Raises:
        UnreadableImageError: It is no video, or ends in the middle of a frame.
        SettingsError: ``every`` below 1.
        MissingExtraError: PyAV is not installed.
    """
    if every < 1:
        raise SettingsError(f"expected to take every 1st frame or fewer, got every {every}")
    av = _require_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise _unreadable(path, "a file without pictures")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # threads hold frames back, as many as there are cores
            for number, frame in enumerate(container.decode(stream)):
                if number % every == 0:
                    yield _upright(frame)
    except av.FFmpegError as error:
        raise _unreadable(path, f"data that cannot be decoded ({error.strerror})") from error


def _upright(frame: Any) -> Image.Image:
    image: Image.Image = frame.to_image()
    turn = int(frame.rotation) % 360
    return image.rotate(turn, expand=True) if turn else image


def _unreadable(path: Path, got: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{path.name}: expected a whole video, got {got}; get an undamaged copy"
    )


def _require_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("reading videos", "av", "encode") from error
    av.logging.set_level(None)
    return av
