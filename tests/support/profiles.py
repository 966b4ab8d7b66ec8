"""Small colour profiles, built from the ICC specification (ICC.1:2001-04)."""

from __future__ import annotations

import struct
from itertools import product

__all__ = ["cmyk_profile", "grey_profile", "rgb_profile"]

# Primaries of sRGB, adapted to D50.
_SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
_WHITE = (0.9642, 1.0, 0.8249)


def rgb_profile(*, gamma: float = 2.2, swap: bool = False) -> bytes:
    """Return an RGB profile with sRGB's primaries; ``swap`` exchanges red and blue."""
    red, green, blue = reversed(_SRGB) if swap else _SRGB
    curve = _curve(gamma)
    tags = {
        b"rXYZ": _xyz(red),
        b"gXYZ": _xyz(green),
        b"bXYZ": _xyz(blue),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    """Return a grey profile."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """Return a CMYK profile in which black ink alone counts: lightness is 100 - K."""
    ramp = bytes(range(256))
    corners = b"".join(bytes((255 - 255 * key, 128, 128)) for *_, key in product((0, 1), repeat=4))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramp * 4 + corners + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def _curve(gamma: float) -> bytes:
    return struct.pack(">4s4xIH2x", b"curv", 1, round(gamma * 256))


def _xyz(value: tuple[float, float, float]) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(part * 65536) for part in value))


def _profile(kind: bytes, space: bytes, between: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"test"
    name = struct.pack(">4s4xI", b"desc", len(text) + 1) + text + b"\0" + bytes(78)
    tags = {b"desc": name + bytes(-len(name) % 4), b"wtpt": _xyz(_WHITE), **tags}
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", tag, start + len(body), len(content))
        body += padded
    total = start + len(body)
    head = struct.pack(">I4sI4s4s4s", total, bytes(4), 0x02400000, kind, space, between)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body
