"""Bitstreams that nobody should send: the decoder refuses each with a reason, and lives.

Inputs are decoded in a process of its own, so that a crash or a hang is seen and counted, and the
rest goes on behind it. Each input comes from the seed and its number alone.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.page import table
from benchmarks.record import Benchmark, Job, Measured, Options, Row

__all__ = ["BENCHMARK", "make_input"]

_CODECS = ("entropy", "png", "webp", "hevc", "av1")
_SHAPE = (3, 6, 5)
_FRAMES = 3
_LONGEST = 20.0  # seconds without progress that count as a hang
_DONE, _CRASHED, _HUNG = "done", "crashed", "hung"

_WHAT = {
    "stream": "streams changed anywhere",
    "sealed": "sealed streams changed anywhere",
    "payload": "frames changed under checks that fit",
    "header": "headers changed under checks that fit",
}


def _jobs(options: Options) -> Iterator[Job]:
    for codec in _CODECS:
        for kind, full in (
            ("stream", 10_000),
            ("sealed", 4_000),
            ("payload", 10_000),
            ("header", 2_000),
        ):
            config = {
                "codec": codec,
                "kind": kind,
                "shape": list(_SHAPE),
                "frames": _FRAMES,
                "inputs": options.count(full, 40),
                "seed": options.seed,
            }
            yield Job(f"{codec}: {_WHAT[kind]}", config, partial(_measure, config))


def make_input(codec: str, kind: str, seed: int, number: int) -> tuple[bytes, bool]:
    """Return one input, and whether it must be refused (else it may also decode).

    Args:
        codec: Of the stream that is changed.
        kind: ``stream`` or ``sealed``: bytes of a whole stream change. ``payload`` or
            ``header``: what the checks cover changes before they are made.
        seed: Of all inputs.
        number: Of the input.
    """
    rng = np.random.default_rng([seed, number])
    if kind in ("stream", "sealed"):
        first, second = _streams(codec, kind == "sealed")
        changed = _changed(first, second, rng)
        return changed, changed not in (first, second)  # both are whole
    from scotoma.images.bitstreams.container import RecordWriter

    header: dict[str, Any] = {
        "codec": codec,
        "quantizer": None,
        "shape": list(_SHAPE),
        "setup": "",
        "model": None,
        "metadata": {},
    }
    payloads = list(_payloads(codec))
    if kind == "header":
        names = [*header, "more"]
        header[names[rng.integers(len(names))]] = _value(rng)
    else:
        place = int(rng.integers(len(payloads)))
        payloads[place] = _changed(payloads[place], payloads[place - 1], rng)
    sink = io.BytesIO()
    writer = RecordWriter(sink, header)
    for payload in payloads:
        writer.frame(payload)
    writer.end()
    return sink.getvalue(), False


def _value(rng: np.random.Generator) -> Any:
    """Return plain data of any kind."""
    choices: list[Callable[[], Any]] = [
        lambda: None,
        lambda: int(rng.integers(-(2**40), 2**40)),
        lambda: float(rng.normal()),
        lambda: bool(rng.integers(2)),
        lambda: "".join(map(chr, rng.integers(32, 400, rng.integers(12)))),
        lambda: [int(side) for side in rng.integers(-1, 40_000, rng.integers(5))],
        lambda: {str(rng.integers(9)): [[]]},
        lambda: str(rng.choice(_CODECS)),
    ]
    return choices[rng.integers(len(choices))]()


def _changed(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes with some of a few things done to them."""
    found = bytearray(data)
    for _ in range(1 + int(rng.integers(3))):
        place, size = int(rng.integers(len(found) + 1)), 1 + int(rng.integers(16))
        end = min(place + size, len(found))
        there = int(rng.integers(len(found) + 1))
        match rng.integers(9):
            case 0 if place < len(found):
                found[place] ^= 1 << int(rng.integers(8))
            case 1:
                found[place:end] = rng.bytes(end - place)
            case 2:
                del found[place:]
            case 3:
                del found[place:end]
            case 4:
                found[place:place] = rng.bytes(size)
            case 5:
                found[place:place] = found[there : there + 4 * size]
            case 6:
                found[place:end] = found[there : there + end - place]
            case 7:
                found[place:] = other[place:]
            case _:
                found[:] = rng.bytes(int(rng.integers(400)))
    return bytes(found)


def _frames(offset: int) -> NDArray[np.uint8]:
    grid = np.indices((_FRAMES, *_SHAPE)).sum(0)
    found: NDArray[np.uint8] = (100 + 9 * grid + offset * grid**2 % 31).astype(np.uint8)
    return found


def _key() -> Any:
    from scotoma.core.keys import Key

    return Key.from_bytes(bytes(range(32)))


def _streams(codec: str, sealed: bool) -> tuple[bytes, bytes]:
    """Return two streams of one camera."""
    from scotoma.images.bitstream import CodecSettings, encode_latents

    made = (
        encode_latents(_frames(offset), CodecSettings(codec), key=_key() if sealed else None)
        for offset in (1, 2)
    )
    first, second = _kept(("streams", codec, sealed), lambda: tuple(made))
    return first, second


def _payloads(codec: str) -> tuple[bytes, ...]:
    from scotoma.images.bitstream import CodecSettings, codecs

    def make() -> tuple[bytes, ...]:
        opened = codecs.get(codec).make(CodecSettings(codec), _SHAPE, None)
        return tuple(opened.encode(frame) for frame in _frames(1))

    return _kept(("payloads", codec), make)


_KEPT: dict[tuple[Any, ...], tuple[bytes, ...]] = {}


def _kept(name: tuple[Any, ...], make: Callable[[], tuple[bytes, ...]]) -> tuple[bytes, ...]:
    if name not in _KEPT:
        _KEPT[name] = make()
    return _KEPT[name]


def _decode_all(config: dict[str, Any], first: int, at: Any, results: Any) -> None:
    """Decode inputs from ``first`` on; ``at`` says which one is in work."""
    from scotoma.core.errors import BitstreamError, CipherKeyError
    from scotoma.images.bitstream import decode_latents

    counts = {"refused": 0, "decoded": 0, "accepted": 0, "unexpected": 0}
    slowest, examples = 0.0, []
    key = _key() if config["kind"] == "sealed" else None
    for number in range(first, config["inputs"]):
        at.value = number
        data, must_fail = make_input(config["codec"], config["kind"], config["seed"], number)
        begun = time.perf_counter()
        try:
            found = decode_latents(data, key=key).latents
            right = found.dtype == np.uint8 and found.ndim == 4
            counts["accepted" if must_fail else "decoded" if right else "unexpected"] += 1
        except (BitstreamError, CipherKeyError):
            counts["refused"] += 1
        except Exception as error:  # what no caller expects
            counts["unexpected"] += 1
            examples.append(f"{number}: {type(error).__name__}: {error}"[:200])
        slowest = max(slowest, time.perf_counter() - begun)
        results.put((number, dict(counts), slowest, examples[:5]))
        counts = dict.fromkeys(counts, 0)


def _measure(config: dict[str, Any]) -> Measured:
    counts = {"refused": 0, "decoded": 0, "accepted": 0, "unexpected": 0, _CRASHED: 0, _HUNG: 0}
    slowest, examples, first = 0.0, [], 0
    while first < config["inputs"]:
        ended, last, part = _run_child(config, first)
        for found, took, said in part:
            for name, count in found.items():
                counts[name] += count
            slowest = max(slowest, took)
            examples += said
        if ended == _DONE:
            break
        counts[ended] += 1
        examples.append(f"{last}: {ended}")
        first = last + 1
    values = {**counts, "slowest_ms": round(1e3 * slowest, 1), "examples": examples[:5]}
    return Measured(config["inputs"], values)


def _run_child(
    config: dict[str, Any], first: int
) -> tuple[str, int, list[tuple[dict[str, int], float, list[str]]]]:
    """Decode in a process; return how it ended, at which input, and what it found."""
    context = multiprocessing.get_context("spawn")
    at = context.Value("q", first)
    results: Any = context.SimpleQueue()
    child = context.Process(target=_decode_all, args=(config, first, at, results), daemon=True)
    child.start()
    found: list[tuple[dict[str, int], float, list[str]]] = []
    moved, before = time.monotonic() + 60, first  # starting takes a while
    while True:
        while not results.empty():
            _, counts, slowest, examples = results.get()
            found.append((counts, slowest, examples))
        if at.value != before:
            before, moved = at.value, time.monotonic()
        if not child.is_alive() and results.empty():
            ended = _DONE if child.exitcode == 0 else _CRASHED
            return ended, at.value, found
        if time.monotonic() - moved > _LONGEST:
            child.kill()
            child.join()
            return _HUNG, at.value, found
        time.sleep(0.01)


def _render(rows: Sequence[Row]) -> str:
    total = sum(row["n"] for row in rows)
    lines = [
        [
            row["what"],
            f"{row['n']:,}",
            f"{row['values']['refused']:,}",
            f"{row['values']['decoded']:,}",
            *(f"{row['values'][name]:,}" for name in ("accepted", "unexpected", _CRASHED, _HUNG)),
            f"{row['values']['slowest_ms']:.0f}",
        ]
        for row in rows
    ]
    head = ["inputs", "n", "refused with a reason", "decoded", "wrongly accepted"]
    head += ["other errors", "crashes", "hangs", "slowest, ms"]
    return "\n".join(
        [
            "## Bitstreams that nobody should send",
            "",
            f"{total:,} inputs of {_FRAMES} frames: bits flipped, bytes replaced, cut, inserted, "
            "repeated, moved, taken from another stream of the same camera, or random. A changed "
            "stream must be refused, unless it has become the whole other one. Where the checks "
            "are made to fit, as anyone without a key can for an open stream, a frame may also "
            "decode to latents of the right shape.",
            "",
            table(head, lines),
        ]
    )


BENCHMARK = Benchmark("fuzz", _jobs, _render)
