"""VVC intra pictures of latents, by ``vvencapp`` or an FFmpeg with libvvenc on the path.

Decoding needs no program: PyAV's FFmpeg has a decoder. vvenc takes 4:2:0 everywhere, so chroma is
all 128; it works in ten bits, of which the nearest of eight are taken. It has no lossless mode.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from scotoma.core.errors import BitstreamError
from scotoma.images.bitstreams.codecs import CodecKind, CodecSettings, Latents
from scotoma.images.bitstreams.video import GREY, VideoPicture

__all__ = ["VVC"]

_LONGEST_RUN = 120  # seconds that coding one picture may take


class _VvcCodec(VideoPicture):
    """Codes the tiled picture with a program.

    Args:
        settings: The quantizer is VVC's QP.
        shape: Of a frame, ``(C, H, W)``.
    """

    def __init__(self, settings: CodecSettings, shape: tuple[int, int, int], _: object) -> None:
        super().__init__("vvc", ("yuv420p10le", "yuv420p"), shape)
        self._quantizer = settings.quantizer

    def encode(self, latents: Latents) -> bytes:
        chroma = bytes([GREY]) * (self.height * self.width // 2)
        with tempfile.TemporaryDirectory() as folder:
            source, coded = Path(folder, "in.yuv"), Path(folder, "out.266")
            source.write_bytes(self.fill(latents).tobytes() + chroma)
            words = self._words(source, coded)
            try:
                subprocess.run(  # noqa: S603 - words, no shell
                    words, capture_output=True, check=True, timeout=_LONGEST_RUN, text=True
                )
                return coded.read_bytes()
            except (OSError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", None) or str(error)
                reason = str(said).strip().splitlines()[-1][:200]
                raise BitstreamError(
                    f"expected {Path(words[0]).name} to code a picture, got: {reason}"
                ) from error

    def setup_size(self, payload: bytes) -> int:  # noqa: ARG002 - the protocol's
        return 0

    def _words(self, source: Path, coded: Path) -> list[str]:
        size, quantizer = f"{self.width}x{self.height}", str(self._quantizer)
        program = _find_vvencapp()
        if program is not None:
            return [
                *(program, "-i", str(source), "-s", size, "--format", "yuv420", "-r", "25"),
                *("-f", "1", "--preset", "medium", "-q", quantizer, "--qpa", "0"),
                *("--intraperiod", "1", "--threads", "1", "-o", str(coded)),
            ]
        program = _find_ffmpeg()
        if program is None:
            raise BitstreamError(
                "expected vvencapp or an FFmpeg with libvvenc on the path, found neither; install "
                "one, or choose another codec"
            )
        return [
            *(program, "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", size),
            *("-i", str(source), "-frames:v", "1", "-pix_fmt", "yuv420p10le"),
            *("-c:v", "libvvenc", "-qp", quantizer, "-qpa", "0", "-threads", "1"),
            *("-f", "vvc", str(coded)),
        ]


def _find_vvencapp() -> str | None:
    return shutil.which("vvencapp")


@cache
def _find_ffmpeg() -> str | None:
    """Return an FFmpeg that says it has libvvenc."""
    program = shutil.which("ffmpeg")
    if program is None:
        return None
    words = [program, "-v", "quiet", "-encoders"]
    try:
        said = subprocess.run(  # noqa: S603 - words, no shell
            words, capture_output=True, timeout=_LONGEST_RUN, text=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return program if "libvvenc" in said.stdout else None


VVC = CodecKind(
    "VVC intra, where vvencapp or an FFmpeg with libvvenc is on the path",
    (0, 63),
    _VvcCodec,
    lambda: (_find_vvencapp() or _find_ffmpeg()) is not None,
    has_lossless=False,
)
