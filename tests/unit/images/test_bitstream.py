"""Bitstreams: what goes in comes out on any machine, and nothing else passes for it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from scotoma.core.errors import (
    BitstreamError,
    CipherKeyError,
    ScotomaError,
    SettingsError,
    UnknownNameError,
)
from scotoma.core.keys import Key, KeyRing
from scotoma.images.bitstream import (
    CodecSettings,
    LatentReader,
    LatentWriter,
    codecs,
    decode_latents,
    encode_latents,
    is_bitstream,
)
from scotoma.images.bitstreams import vvc
from scotoma.images.bitstreams.codecs import tile, untile
from scotoma.images.bitstreams.container import MAGIC, RecordWriter
from scotoma.images.bitstreams.guards import digest_of
from scotoma.ops.latent_coding import generic_model
from scotoma.ops.latent_fitting import fit_latent_model

KEY = Key.from_bytes(bytes(range(32)))
OTHER = Key.from_bytes(bytes(range(1, 33)))
HERE = [name for name in codecs.names() if codecs.get(name).is_here()]
LOSSLESS = [name for name in HERE if codecs.get(name).has_lossless]


def frames(count: int = 3, shape: tuple[int, int, int] = (5, 9, 7)) -> NDArray[np.uint8]:
    """Return smooth channels with noise, which resemble each other, as features do."""
    rng = np.random.default_rng(4)
    channels, height, width = shape
    down, across = np.mgrid[:height, :width] / 4
    waves = np.sin(down + rng.random((count, channels, 1, 1)) * 6) + np.cos(across)
    noise = rng.normal(0, 4, (count, *shape))
    return np.clip(128 + 30 * waves + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_codecs_give_back_every_value(name: str, key: Key | None) -> None:
    latents = frames()
    said = {"split": "härbor", "levels": [1, 2]}
    stream = encode_latents(latents, CodecSettings(name), key=key, metadata=said)
    assert is_bitstream(stream)
    assert stream == encode_latents(list(latents), CodecSettings(name), key=key, metadata=said)
    found = decode_latents(stream, key=key)
    assert np.array_equal(found.latents, latents)
    assert (found.settings, found.metadata) == (CodecSettings(name), said)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 17), (2, 33, 2), (7, 8, 8)], ids=str)
def test_any_shape_comes_back(name: str, shape: tuple[int, int, int]) -> None:
    latents = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    found = decode_latents(encode_latents(latents, CodecSettings(name))).latents
    assert np.array_equal(found, latents)


@settings(deadline=None)
@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=3, max_dims=3, max_side=7)))
def test_entropy_codes_whatever_bytes_there_are(latents: NDArray[np.uint8]) -> None:
    assert np.array_equal(decode_latents(encode_latents(latents)).latents[0], latents)


@pytest.mark.parametrize("name", [name for name in HERE if codecs.get(name).quantizers])
def test_coarser_quantizers_take_fewer_bits_and_lose_more(name: str) -> None:
    latents = frames(1, (6, 24, 24))
    sizes, losses = [], []
    for quantizer in (8, 24, 48):
        stream = encode_latents(latents, CodecSettings(name, quantizer))
        found = decode_latents(stream).latents
        sizes.append(len(stream))
        losses.append(float(np.square(found.astype(float) - latents).mean()))
    assert sizes == sorted(sizes, reverse=True)
    assert losses == sorted(losses)
    assert sizes[-1] < sizes[0] / 1.5
    assert losses[-1] > losses[0]


def test_entropy_loses_no_more_than_half_a_step() -> None:
    latents = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for step in (2, 3, 7, 64):
        found = decode_latents(encode_latents(latents, CodecSettings("entropy", step))).latents
        lost = np.abs(found[0].astype(int) - latents)
        inner = latents <= 255 // step * step
        assert lost[inner].max() <= step // 2
        assert lost.max() < step


def test_entropy_beats_the_picture_codecs_on_features_alike() -> None:
    latents = frames(24, (8, 16, 16))
    size = {name: len(encode_latents(latents[12:], CodecSettings(name))) for name in LOSSLESS}
    assert size["entropy"] < 0.97 * min(size[name] for name in LOSSLESS if name != "entropy")
    model = fit_latent_model(latents[:12], references=3)
    assert len(encode_latents(latents[12:], model=model)) < size["entropy"]


def test_a_stream_needs_the_model_it_was_coded_with() -> None:
    latents = frames()
    model, other = fit_latent_model(latents), generic_model(latents.shape[1])
    stream = encode_latents(latents, model=model)
    assert np.array_equal(decode_latents(stream, model=model).latents, latents)
    for wrong in (None, other):
        with pytest.raises(BitstreamError, match="expected the coder's model"):
            decode_latents(stream, model=wrong)
    # One without a model needs none, whatever the reader has.
    assert np.array_equal(decode_latents(encode_latents(latents), model=model).latents, latents)


# Recorded once. If a line changes, streams of earlier versions no longer decode.
RECORDED = {
    "plain": "3bcc78b072b03702",
    "coarse": "f35d8be5c56f7154",
    "fitted": "2ce3aa7ba1689bd4",
}


def test_entropy_bytes_are_the_same_everywhere() -> None:
    rng = np.random.RandomState(7)
    latents = (rng.randint(0, 60, (2, 4, 8, 8)) + rng.randint(0, 60, (2, 4, 1, 8))).astype(np.uint8)
    model = generic_model(4)
    weights = np.arange(4 * 4 * 9).reshape(4, 4, 9) % 700
    sizes = np.arange(4 * 4 * 9).reshape(4, 4, 9) % 500
    fitted = type(model)(model.means, np.array([[-1], [0], [0], [2]]), weights, sizes, model.errors)
    found = {
        "plain": encode_latents(latents),
        "coarse": encode_latents(latents, CodecSettings("entropy", 5)),
        "fitted": encode_latents(latents, model=fitted),
    }
    assert {n: hashlib.sha256(s).hexdigest()[:16] for n, s in found.items()} == RECORDED


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_tiles_come_back(channels: int, height: int, width: int) -> None:
    latents = np.arange(channels * height * width).astype(np.uint8)
    latents = latents.reshape(channels, height, width)
    assert np.array_equal(untile(tile(latents), latents.shape), latents)


def test_tiles_make_the_paper_s_square() -> None:
    assert tile(np.zeros((64, 10, 10), np.uint8)).shape == (80, 80)


# What is refused.


def _records(stream: bytes, key: Key | None = None) -> tuple[bytes, list[bytes]]:
    """Return a stream's head, and its records one by one, found as the page describes them."""
    source = io.BytesIO(stream)

    def number() -> int:
        value = shift = 0
        while True:
            (byte,) = source.read(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    source.seek(len(MAGIC))
    source.seek(number() + 4, 1)
    head, records = stream[: source.tell()], []
    while source.tell() < len(stream):
        begun = source.tell()
        number()
        size = max(number() - 1, 0 if key is None else 12)
        source.seek(size + (4 if key is None else 16), 1)
        records.append(stream[begun : source.tell()])
    return head, records


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
def test_frames_in_another_order_are_refused(key: Key | None) -> None:
    stream = encode_latents(frames(4), CodecSettings("png"), key=key)
    head, records = _records(stream, key)
    assert head + b"".join(records) == stream
    assert len(records) == 5
    swapped = [records[0], records[2], records[1], *records[3:]]
    with pytest.raises(BitstreamError, match="frame 2 where frame 1 was due"):
        decode_latents(head + b"".join(swapped), key=key)
    with pytest.raises(BitstreamError, match="frame 2 where frame 1 was due"):
        decode_latents(head + b"".join([records[0], *records[2:]]), key=key)
    with pytest.raises(BitstreamError, match="frame 0 where frame 1 was due"):
        decode_latents(head + b"".join([records[0], *records]), key=key)


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
def test_a_frame_of_another_stream_is_refused_even_at_its_own_place(key: Key | None) -> None:
    first = encode_latents(frames(3), key=key)
    second = encode_latents(255 - frames(3), key=key)
    head, records = _records(first, key)
    other_head, others = _records(second, key)
    assert head == other_head
    with pytest.raises(BitstreamError, match=r"frame 1 .*out of another stream"):
        decode_latents(head + b"".join([records[0], others[1], *records[2:]]), key=key)
    with pytest.raises(BitstreamError, match=r"the end .*out of another stream"):
        decode_latents(head + b"".join([*records[:-1], others[-1]]), key=key)


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
def test_every_cut_is_noticed_and_what_came_before_is_there(key: Key | None) -> None:
    latents = frames(2, (2, 3, 3))
    stream = encode_latents(latents, CodecSettings("png"), key=key)
    head, records = _records(stream, key)
    ends = np.cumsum([len(head), *map(len, records)])
    for size in range(len(stream)):
        with pytest.raises(BitstreamError, match=r"cut off|expected a bitstream"):
            decode_latents(stream[:size], key=key)
        read = _frames_before_error(stream[:size], key)
        whole = int(np.searchsorted(ends, size, "right")) - 1
        assert np.array_equal(read, latents[: max(0, min(whole, 2))].reshape(-1, 2, 3, 3))


def _frames_before_error(stream: bytes, key: Key | None) -> NDArray[np.uint8]:
    found = [np.zeros((0, 2, 3, 3), np.uint8)]
    try:
        for frame in LatentReader(io.BytesIO(stream), key=key):
            found.append(frame[None])
    except BitstreamError:
        pass
    return np.concatenate(found)


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
def test_every_changed_byte_is_noticed(key: Key | None) -> None:
    stream = encode_latents(frames(2, (2, 3, 3)), CodecSettings("entropy"), key=key)
    for place in range(len(stream)):
        for change in (1, 0x80):
            other = bytearray(stream)
            other[place] ^= change
            with pytest.raises((BitstreamError, CipherKeyError)):
                decode_latents(bytes(other), key=key)


def test_what_follows_the_end_is_refused() -> None:
    stream = encode_latents(frames())
    with pytest.raises(BitstreamError, match="more bytes after the end of 3 frames"):
        decode_latents(stream + b"\0")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "expected a bitstream, got an empty"),
        (b"\xff\xd8\xff\xe0 some JPEG", "expected a bitstream"),
        (MAGIC.replace(b"\r\n", b"\n") + b"x", "changed by a transfer as text"),
        (MAGIC, "cut off within the header"),
        (MAGIC + b"\xff" * 8 + b"\x7f", "a header of"),
        (MAGIC + b"\x80\x00", "not as scotoma writes it"),
    ],
    ids=["empty", "foreign", "text", "magic alone", "huge header", "long number"],
)
def test_other_files_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BitstreamError, match=reason):
        decode_latents(data)


HEADER = {
    "codec": "png",
    "quantizer": None,
    "shape": [1, 2, 2],
    "setup": "",
    "model": None,
    "metadata": {},
}


@pytest.mark.parametrize(
    "change",
    [
        {"codec": "jpeg"},
        {"codec": 3},
        {"quantizer": 9},
        {"shape": [1, 2]},
        {"shape": [1, 2, 0]},
        {"shape": [1, 2, True]},
        {"shape": [16384, 16384, 16384]},
        {"setup": "?"},
        {"metadata": 5},
        {"codec": "entropy", "quantizer": 1e9},
    ],
    ids=str,
)
def test_headers_that_no_writer_makes_are_refused(change: dict[str, object]) -> None:
    sink = io.BytesIO()
    RecordWriter(sink, {**HEADER, **change}).end()
    with pytest.raises(BitstreamError, match="a header that cannot be used"):
        decode_latents(sink.getvalue())


@pytest.mark.parametrize(
    "text",
    [b"[]", b"{}", b"{", b'{"a": 1}', b'{"a":NaN}', b"[" * 3000, b'{"seal":1}', "ä".encode(), b""],
    ids=str,
)
def test_headers_of_another_form_are_refused(text: bytes) -> None:
    with pytest.raises(BitstreamError, match="a header"):
        decode_latents(_checked(text))


@pytest.mark.parametrize("name", LOSSLESS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_payloads_that_anyone_can_make_give_latents_or_a_reason(
    name: str, data: st.DataObject
) -> None:
    """Without a key, checks can be made to fit: the codecs themselves must stand whatever comes."""
    payload = _payload_of(name)
    kind = data.draw(st.sampled_from(["bytes", "flip", "cut", "insert"]))
    if kind == "bytes":
        payload = data.draw(st.binary(max_size=200))
    else:
        place = data.draw(st.integers(0, len(payload) - 1))
        some = data.draw(st.binary(min_size=1, max_size=8))
        end = place + len(some) if kind == "flip" else place
        payload = payload[:place] + (b"" if kind == "cut" else some + payload[end:])
    sink = io.BytesIO()
    records = RecordWriter(sink, {**HEADER, "codec": name, "shape": [3, 6, 5]})
    records.frame(payload)
    records.end()
    with suppress(BitstreamError):
        found = decode_latents(sink.getvalue()).latents
        assert (found.shape, found.dtype) == ((1, 3, 6, 5), np.uint8)


def _payload_of(name: str) -> bytes:
    settings_ = CodecSettings(name)
    return codecs.get(name).make(settings_, (3, 6, 5), None).encode(frames(1, (3, 6, 5))[0])


def test_a_payload_that_says_a_huge_picture_takes_no_memory() -> None:
    width, height = 30_000, 30_000
    head = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR"
    png = head + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes(9)
    bits = (16_383 | 16_383 << 14).to_bytes(4, "little")
    webp = b"RIFF" + bytes(4) + b"WEBPVP8L" + bytes(4) + b"\x2f" + bits + bytes(40)
    for name, payload in (("png", png), ("webp", webp)):
        sink = io.BytesIO()
        records = RecordWriter(sink, {**HEADER, "codec": name})
        records.frame(payload)
        records.end()
        tracemalloc.start()
        with pytest.raises(BitstreamError, match="pixels, got"):
            decode_latents(sink.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.stop()


def test_a_reader_that_says_what_it_expects_refuses_other_shapes() -> None:
    stream = encode_latents(frames())
    assert decode_latents(stream, shape=(5, 9, 7)).latents.shape == (3, 5, 9, 7)
    with pytest.raises(BitstreamError, match=r"expected latents \(5, 9, 8\), got \(5, 9, 7\)"):
        decode_latents(stream, shape=(5, 9, 8))


# Keys.


def test_a_seal_opens_only_with_its_key() -> None:
    stream = encode_latents(frames(), key=KEY)
    assert np.array_equal(decode_latents(stream, key=KeyRing([OTHER, KEY])).latents, frames())
    for wrong in (None, OTHER, KeyRing([OTHER])):
        with pytest.raises(CipherKeyError, match=KEY.key_id):
            decode_latents(stream, key=wrong)
    with pytest.raises(BitstreamError, match="sealed with a key, got an open one"):
        decode_latents(encode_latents(frames()), key=KEY)


def test_a_seal_hides_the_frames_and_names_no_secret() -> None:
    latents = np.full((1, 4, 8, 8), 7, np.uint8)
    opened = encode_latents(latents, CodecSettings("png"))
    sealed = encode_latents(latents, CodecSettings("png"), key=KEY)
    payload = _records(opened)[1][0][2:-4]
    assert payload in opened
    assert payload[:16] not in sealed
    assert bytes(range(32)) not in sealed
    assert KEY.subkey("bitstream").key_id.encode() not in sealed


def test_a_nonce_comes_again_only_with_the_same_frame_at_the_same_place() -> None:
    latents = np.zeros((4, 1, 4, 4), np.uint8)
    _, first = _records(encode_latents(latents, CodecSettings("png"), key=KEY), KEY)
    latents[2] = 9
    _, second = _records(encode_latents(latents, CodecSettings("png"), key=KEY), KEY)
    nonces = [record[2:14] for record in [*first[:4], *second[:4]]]
    assert first[:2] == second[:2]
    assert len(set(nonces)) == 6


def test_a_stripped_or_changed_seal_in_the_header_is_noticed() -> None:
    stream = encode_latents(frames(), key=KEY)
    head, records = _records(stream, KEY)
    header = json.loads(head[head.index(b"{") : -4])
    changes: list[dict[str, object]] = [{"seal": None}, {"seal": OTHER.key_id}]
    for change in [*changes, {"metadata": {"x": 1}}]:
        forged = _head({**header, **change}) + b"".join(records)
        for key in (KEY, None):
            with pytest.raises((BitstreamError, CipherKeyError)):
                decode_latents(forged, key=key)
    with pytest.raises(BitstreamError, match="frame 0 that does not match"):
        decode_latents(_head({**header, "metadata": {"x": 1}}) + b"".join(records), key=KEY)


def _head(header: dict[str, object]) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return _checked(text)


def _checked(text: bytes) -> bytes:
    """Return a head with a check that fits, as anyone can make it."""
    size = len(text)
    number = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    head = MAGIC + number + text
    return head + digest_of(head)[:4]


# Writing.


def test_memory_stays_flat_over_frames() -> None:
    latents = frames(1, (4, 16, 16))[0]
    peaks = []
    for count in (3, 60):
        tracemalloc.start()
        with LatentWriter(_Nowhere(), latents.shape) as writer:
            for _ in range(count):
                writer.write(latents)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000


class _Nowhere(io.BytesIO):
    def write(self, data: object) -> int:  # type: ignore[override]
        return len(data)  # type: ignore[arg-type]


def test_a_writer_that_fails_leaves_a_stream_that_says_so() -> None:
    sink = io.BytesIO()

    def write() -> None:
        with LatentWriter(sink, (5, 9, 7)) as writer:
            writer.write(frames()[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    with pytest.raises(BitstreamError, match="cut off after 1 frames"):
        decode_latents(sink.getvalue())


@pytest.mark.parametrize(
    "make",
    [
        lambda: encode_latents([]),
        lambda: encode_latents(np.zeros((2, 2), np.uint8)),
        lambda: encode_latents(np.zeros((1, 2, 2), np.float32)),
        lambda: encode_latents([np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 3), np.uint8)]),
        lambda: encode_latents(np.zeros((1, 2, 0), np.uint8)),
        lambda: encode_latents(np.zeros((1, 2, 2), np.uint8), metadata={"key": KEY}),
        lambda: encode_latents(np.zeros((1, 2, 2), np.uint8), metadata={"x": float("nan")}),
        lambda: encode_latents(np.zeros((3, 2, 2), np.uint8), model=generic_model(2)),
        lambda: encode_latents(np.zeros((1, 2, 16_384), np.uint8), CodecSettings("webp")),
    ],
)
def test_what_cannot_be_coded_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(BitstreamError, match="expected"):
        make()


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [("png", 3), ("entropy", 1), ("entropy", 65), ("hevc", -1), ("av1", 64), ("hevc", True)],
)
def test_quantizers_that_a_codec_lacks_are_refused(name: str, quantizer: int) -> None:
    with pytest.raises(SettingsError, match=f"for codec '{name}', got {quantizer}"):
        CodecSettings(name, quantizer)


def test_a_typo_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'hevc'"):
        CodecSettings("hvec")
    assert issubclass(BitstreamError, ScotomaError)


# VVC, whose encoder is a program that is seldom there.


def _stand_in(folder: Path, script: str) -> None:
    program = folder / "vvencapp"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
def test_vvc_asks_the_program_for_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    _stand_in(tmp_path, f'echo "$@" > {tmp_path}/said; cp "$2" {tmp_path}/in; eval cp $2 \\${{$#}}')
    latents = frames(1, (5, 9, 7))[0]
    stream = encode_latents(latents, CodecSettings("vvc", 30))
    said = (tmp_path / "said").read_text().split()
    assert said[said.index("-s") + 1] == "64x64"
    assert said[said.index("-q") + 1] == "30"
    raw = np.frombuffer((tmp_path / "in").read_bytes(), np.uint8)
    assert raw.size == 64 * 64 * 3 // 2
    assert np.array_equal(untile(raw[: 64 * 64].reshape(64, 64)[:27, :14], (5, 9, 7)), latents)
    assert (raw[64 * 64 :] == 128).all()
    # What the stand-in wrote is no VVC; reading it back says so and does not crash.
    with pytest.raises(BitstreamError, match="frame 0 that cannot be decoded"):
        decode_latents(stream)
    _stand_in(tmp_path, "echo no such option >&2; exit 2")
    with pytest.raises(BitstreamError, match="vvencapp to code a picture, got: no such option"):
        encode_latents(latents, CodecSettings("vvc", 30))


def test_vvc_says_that_it_is_not_there_and_never_lossless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="'vvc', which is never lossless"):
        CodecSettings("vvc")
    monkeypatch.setenv("PATH", str(tmp_path))
    vvc._find_ffmpeg.cache_clear()
    with pytest.raises(BitstreamError, match="vvencapp or an FFmpeg with libvvenc"):
        encode_latents(frames(1), CodecSettings("vvc", 30))
    vvc._find_ffmpeg.cache_clear()
