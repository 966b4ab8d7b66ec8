"""Release files: what goes in comes out, and nothing else passes for it."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from scotoma.core.errors import (
    CipherKeyError,
    FileError,
    ImageError,
    ReleaseError,
    SettingsError,
    UnknownNameError,
    UnreadableImageError,
)
from scotoma.core.keys import Key, KeyRing
from scotoma.core.protocols import Release
from scotoma.images.ciphertext import (
    CipherEncoding,
    Scaling,
    clipped_fraction,
    decode_release,
    encode_release,
    is_release,
    read_release,
    write_release,
)

KEY = Key.from_bytes(bytes(range(32)))
OTHER = Key.from_bytes(bytes(range(1, 33)))
SCALING = Scaling.between((-3.0, -2.5, -2.0), (3.0, 3.5, 2.0))
PNG = CipherEncoding("png", scaling=SCALING)
HALF = CipherEncoding(dtype="float16")
ENCODINGS = {"float32": CipherEncoding(), "float16": HALF, "png": PNG}


def make_release(
    shape: tuple[int, ...] = (1, 3, 6, 5), *, key: Key | None = KEY, **metadata: Any
) -> Release:
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(shape, generator=generator).clamp(-1.9, 1.9)
    said = {"scheme": "orthogonal", "key_id": key and key.key_id, "dataset": "härbor", **metadata}
    return Release(data, said)


def decode(data: bytes, key: Key | KeyRing | None = None) -> Release:
    return decode_release(data, name="r", key=key)


# -- what goes in comes out -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3, 6, 5), (2, 3, 4, 4), (3, 7, 1, 9)], ids=str)
def test_float32_comes_back_bit_for_bit(shape: tuple[int, ...]) -> None:
    release = make_release(shape)
    found = decode(encode_release(release, key=KEY), KEY)
    assert torch.equal(found.data, release.data)
    assert found.data.dtype == torch.float32
    assert found.metadata == release.metadata


def test_float16_rounds_and_png_steps_by_no_more_than_they_say() -> None:
    release = make_release()
    half = decode(encode_release(release, HALF, key=KEY), KEY)
    assert torch.equal(half.data, release.data.half().float())
    eight = decode(encode_release(release, PNG, key=KEY), KEY)
    steps = torch.tensor(SCALING.scale)[:, None, None]
    assert bool(((eight.data - release.data).abs() <= steps / 2 + 1e-6).all())
    assert eight.metadata == half.metadata == release.metadata


@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_file_is_the_same_bytes_each_time(kind: str, tmp_path: Path) -> None:
    encoding = ENCODINGS[kind]
    data = encode_release(make_release(), encoding, key=KEY)
    assert data == encode_release(make_release(), encoding, key=KEY)
    assert is_release(data)
    path = tmp_path / f"r{encoding.suffix}"
    write_release(path, make_release(), encoding, key=KEY)
    assert path.read_bytes() == data
    assert torch.equal(read_release(path, key=KEY).data, decode(data).data)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_others_read_the_containers_too(tmp_path: Path) -> None:
    release = make_release()
    write_release(tmp_path / "r.safetensors", release, key=KEY)
    with safe_open(tmp_path / "r.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("release"), release.data)
        assert json.loads(file.metadata()["scotoma_release"])["metadata"] == release.metadata
    write_release(tmp_path / "r.png", release, PNG, key=KEY)
    with Image.open(tmp_path / "r.png") as image:
        assert (image.mode, image.size) == ("RGB", (5, 6))
        pixels = np.asarray(image).transpose(2, 0, 1)
        assert json.loads(image.text["scotoma_release"])["metadata"] == release.metadata
    offset, scale = (np.array(v)[:, None, None] for v in (SCALING.offset, SCALING.scale))
    assert np.allclose(pixels * scale + offset, decode((tmp_path / "r.png").read_bytes()).data)


def test_values_beyond_the_scaling_are_clipped_and_counted() -> None:
    data = torch.zeros(1, 3, 2, 2)
    data[0, 0, 0, 0], data[0, 2, 1, 1], data[0, 1, 0, 0] = 9.0, -9.0, 3.5
    release = Release(data, {"key_id": None})
    assert clipped_fraction(release, SCALING) == pytest.approx(2 / 12)
    found = decode(encode_release(release, PNG)).data
    assert float(found[0, 0, 0, 0]) == pytest.approx(3.0)
    assert float(found[0, 2, 1, 1]) == pytest.approx(-2.0)
    assert clipped_fraction(Release(found, {}), SCALING) == 0


def test_a_pixel_scaling_keeps_every_pixel() -> None:
    """With the levels of 8-bit pixels as steps, an unmixed release loses nothing."""
    mean, std = np.array([0.48, 0.45, 0.41]), np.array([0.23, 0.22, 0.25])
    levels = np.arange(256) / 255
    values = ((levels[None, :] - mean[:, None]) / std[:, None]).reshape(1, 3, 16, 16)
    scaling = Scaling.between(-mean / std, (1 - mean) / std)
    release = Release(torch.from_numpy(values).float(), {"key_id": None})
    found = decode(encode_release(release, CipherEncoding("png", scaling=scaling)))
    assert float((found.data - release.data).abs().max()) < 1e-6


# -- what cannot be written -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"format": "jpg"}, "release format"),
        ({"dtype": "float61"}, "did you mean 'float16'"),
        ({"format": "png"}, "scaling"),
    ],
)
def test_encodings_that_are_none(arguments: dict[str, str], fragment: str) -> None:
    with pytest.raises(SettingsError, match=fragment) as caught:
        CipherEncoding(**arguments)
    assert isinstance(caught.value, UnknownNameError) == (fragment != "scaling")


@pytest.mark.parametrize(
    "values",
    [
        ((0.0,), (0.0,)),
        ((float("nan"),), (0.0,)),
        ((1.0,), (float("inf"),)),
        ((1.0,), ()),
        ((), ()),
        ((-1.0,), (0.0,)),
    ],
    ids=str,
)
def test_scalings_that_are_none(values: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    with pytest.raises(SettingsError):
        Scaling(*values)


def test_data_that_a_file_cannot_hold() -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ImageError, match="finite"):
            encode_release(Release(torch.full((1, 3, 2, 2), bad), {"key_id": None}))
    with pytest.raises(ImageError, match="float16"):
        encode_release(Release(torch.full((1, 3, 2, 2), 7e4), {"key_id": None}), HALF)
    for shape in ((2, 3, 2, 2), (1, 4, 2, 2)):
        with pytest.raises(ImageError, match="safetensors"):
            encode_release(Release(torch.zeros(shape), {"key_id": None}), PNG)
    for shape in ((3, 2, 2), (0, 3, 2, 2)):
        with pytest.raises(ImageError, match="B, C, H, W"):
            encode_release(Release(torch.zeros(shape), {"key_id": None}))


def test_a_keyed_release_is_sealed_by_its_own_key_or_not_written(tmp_path: Path) -> None:
    for key in (None, OTHER):
        with pytest.raises(ReleaseError, match=KEY.key_id):
            encode_release(make_release(), key=key)
    with pytest.raises(ReleaseError, match=KEY.key_id):
        encode_release(make_release(key=None), key=KEY)
    with pytest.raises(FileError, match=r"\.safetensors"):
        write_release(tmp_path / "r.png", make_release(), key=KEY)
    assert not list(tmp_path.iterdir())


# -- whose it is ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENCODINGS)
def test_keys_are_told_apart(kind: str) -> None:
    data = encode_release(make_release(), ENCODINGS[kind], key=KEY)
    decode(data)
    decode(data, KEY)
    decode(data, KeyRing([KEY, OTHER]))
    with pytest.raises(ReleaseError, match=rf"{OTHER.key_id}.*{KEY.key_id}"):
        decode(data, OTHER)
    with pytest.raises(CipherKeyError, match=rf"{KEY.key_id}.*{OTHER.key_id}"):
        decode(data, KeyRing([OTHER]))
    plain = encode_release(make_release(key=None), ENCODINGS[kind])
    decode(plain)
    with pytest.raises(ReleaseError, match="key-less"):
        decode(plain, KEY)


def forge(data: bytes, change: Callable[[dict[str, Any], bytearray], None]) -> bytes:
    """Change a safetensors release and make its checksum right again, as anyone can."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    envelope = json.loads(header["__metadata__"]["scotoma_release"])
    numbers = bytearray(data[8 + size :])
    change(envelope, numbers)

    def compact(value: object) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    public = compact({name: envelope[name] for name in ("data", "format", "metadata")}).encode()
    digest = hashlib.sha256(b"scotoma release 1\0" + len(public).to_bytes(8, "little") + public)
    digest.update(numbers)
    envelope["sha256"] = digest.hexdigest()
    header["__metadata__"]["scotoma_release"] = compact(envelope)
    line = json.dumps(header, separators=(",", ":")).encode()
    line += b" " * (-len(line) % 8)
    return len(line).to_bytes(8, "little") + line + bytes(numbers)


def _change_a_number(_: dict[str, Any], numbers: bytearray) -> None:
    numbers[0] ^= 1


def _change_the_dataset(envelope: dict[str, Any], _: bytearray) -> None:
    envelope["metadata"]["dataset"] = "other"


def _drop_the_seal(envelope: dict[str, Any], _: bytearray) -> None:
    envelope["tag"] = None


def _change_the_seal(envelope: dict[str, Any], _: bytearray) -> None:
    envelope["tag"] = "é" + envelope["tag"][1:]


def test_the_forger_forges_well() -> None:
    data = encode_release(make_release(), key=KEY)
    assert forge(data, lambda envelope, numbers: None) == data


@pytest.mark.parametrize(
    "change", [_change_a_number, _change_the_dataset, _drop_the_seal, _change_the_seal]
)
def test_a_forgery_passes_without_the_key_and_fails_with_it(change: Any) -> None:
    forged = forge(encode_release(make_release(), key=KEY), change)
    decode(forged)  # nobody without the key can tell
    for key in (KEY, KeyRing([OTHER, KEY])):
        with pytest.raises(ReleaseError, match="someone without the key changed"):
            decode(forged, key)


def test_a_seal_of_another_release_does_not_fit() -> None:
    other = encode_release(make_release(dataset="other"), key=KEY)
    size = int.from_bytes(other[:8], "little")
    tag = json.loads(json.loads(other[8 : 8 + size])["__metadata__"]["scotoma_release"])["tag"]

    def swap(envelope: dict[str, Any], _: bytearray) -> None:
        envelope["tag"] = tag

    with pytest.raises(ReleaseError, match="seal"):
        decode(forge(encode_release(make_release(), key=KEY), swap), KEY)


# -- damage -----------------------------------------------------------------------------------

SMALL = {
    kind: encode_release(make_release((1, 3, 3, 2), key=None), encoding)
    for kind, encoding in ENCODINGS.items()
}


@pytest.mark.parametrize("kind", SMALL)
@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_no_byte_can_change_unnoticed(kind: str, place: int, flip: int) -> None:
    data = bytearray(SMALL[kind])
    data[place % len(data)] ^= flip
    with pytest.raises(ReleaseError):
        decode(bytes(data))


@pytest.mark.parametrize("kind", SMALL)
def test_no_single_byte_of_any_place_can_change_unnoticed(kind: str) -> None:
    whole = SMALL[kind]
    for place in range(len(whole)):
        # Blanks for blanks, letters' case, digits: what parsers are lenient about.
        for value in (whole[place] ^ 1, whole[place] ^ 32, 9, 10, 32):
            if value == whole[place]:
                continue
            data = bytearray(whole)
            data[place] = value
            with pytest.raises(ReleaseError):
                decode(bytes(data))


@pytest.mark.parametrize("kind", SMALL)
def test_no_other_length_passes(kind: str) -> None:
    whole = SMALL[kind]
    for end in range(len(whole)):
        with pytest.raises(ReleaseError, match="r: expected"):
            decode(whole[:end])
    for tail in (b"\0", b"\n", b" " * 8, whole):
        with pytest.raises(ReleaseError):
            decode(whole + tail)
    with pytest.raises(ReleaseError):
        decode(whole[1:])


@given(data=st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_noise_is_no_release(data: bytes) -> None:
    assert not is_release(data)
    with pytest.raises(ReleaseError):
        decode(data)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_header_ends_in_one_error(data: st.DataObject) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.integers(-5, 10**400) | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["dtype", "shape", "scale", "data", "x"]), inner)
        ),
        max_leaves=5,
    )
    keys = st.sampled_from(["format", "metadata", "data", "sha256", "tag", "scotoma_release"])
    envelope = data.draw(st.dictionaries(keys, values))
    header = {
        "__metadata__": {"scotoma_release": json.dumps(envelope)},
        "release": data.draw(
            st.just({"dtype": "F32", "shape": [1, 1, 1, 1], "data_offsets": [0, 4]}) | values
        ),
    }
    line = json.dumps(header, separators=(",", ":")).encode()
    line += b" " * (-len(line) % 8)
    with pytest.raises(ReleaseError):
        decode(len(line).to_bytes(8, "little") + line + bytes(4))


# -- foreign and hostile files ----------------------------------------------------------------


def _container(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    line = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(line) if length is None else length).to_bytes(8, "little") + line + body


DEEP = b'{"__metadata__":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
HUGE = {
    "__metadata__": {"scotoma_release": "{}"},
    "release": {"dtype": "F32", "shape": [2**20] * 4, "data_offsets": [0, 4]},
}
HOSTILE = {
    "length of 2^64": _container(b"{}" * 40, length=2**64 - 1),
    "length beyond the file": _container(b"{}" * 40, length=2**40),
    "length past a header's": _container(b" " * 2**17),
    "deep nesting": _container(DEEP),
    "no JSON": _container(b"\xff" * 64),
    "a list": _container(b"[1, 2, 3, 4, 5, 6]"),
    "shape of 2^80": _container(HUGE, bytes(64)),
    "negative shape": _container({**HUGE, "release": {**HUGE["release"], "shape": [-1] * 4}}),
    "empty": b"",
    "eight bytes": bytes(8),
    "a JPEG": b"\xff\xd8\xff\xe0" + bytes(100),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_end_quickly_in_one_error(kind: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ReleaseError, match="r: expected"):
            decode(HOSTILE[kind])
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_a_models_weights_are_no_release(tmp_path: Path) -> None:
    save_file({"release": torch.zeros(1, 3, 2, 2)}, tmp_path / "weights.safetensors")
    data = (tmp_path / "weights.safetensors").read_bytes()
    assert not is_release(data)
    with pytest.raises(ReleaseError, match="scotoma encrypt"):
        decode(data)
    # Of another writer, and so of another form, even where it says the same.
    with safe_open(tmp_path / "weights.safetensors", framework="pt") as file:
        assert file.metadata() is None
    with pytest.raises(UnreadableImageError):
        read_release(tmp_path / "nowhere.safetensors")


def test_ordinary_and_rewritten_pngs_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(buffer, "PNG")
    assert not is_release(buffer.getvalue())
    with pytest.raises(ReleaseError, match="ordinary PNG"):
        decode(buffer.getvalue())

    from PIL.PngImagePlugin import PngInfo

    with Image.open(io.BytesIO(SMALL["png"])) as image:
        text = PngInfo()
        text.add_itxt("scotoma_release", str(image.text["scotoma_release"]))
        again = io.BytesIO()
        image.save(again, "PNG", pnginfo=text)
        stripped = io.BytesIO()
        image.save(stripped, "PNG")
    with pytest.raises(ReleaseError, match="image software"):
        decode(again.getvalue())
    with pytest.raises(ReleaseError, match="stripped"):
        decode(stripped.getvalue())


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += size + 12
    return found


def test_pngs_with_right_checksums_and_wrong_content() -> None:
    head, text, body, end = _chunks(SMALL["png"])
    assert _png(head, text, body, end) == SMALL["png"]
    rows = zlib.decompress(body[1])
    bomb = (b"IDAT", zlib.compress(bytes(10**7), 9))
    wide = (b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
    grey = (b"IHDR", head[1][:9] + b"\0" + head[1][10:])
    filtered = (b"IDAT", zlib.compress(b"\1" + rows[1:]))
    changed = (b"IDAT", zlib.compress(rows[:-1] + b"\x7f"))
    trailing = (b"IDAT", body[1] + b"more")
    for chunks in (
        [head, text, bomb, end],
        [wide, text, body, end],
        [grey, text, body, end],
        [head, text, filtered, end],
        [head, text, changed, end],
        [head, text, trailing, end],
        [head, text, (b"IDAT", b"noise"), end],
        [head, text, body],
        [head, text, end],
        [head, text, body, body, end],
        [head, text, (b"tEXt", b"a\0b"), body, end],
        [head, text, body, (b"IEND", b"x")],
        [head, (b"iTXt", text[1] + b"\xe9"), body, end],
    ):
        tracemalloc.start()
        try:
            with pytest.raises(ReleaseError, match="r: expected"):
                decode(_png(*chunks))
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()


def test_metadata_of_a_size_that_no_release_has_are_not_even_parsed() -> None:
    """Lists of lists take sixteen times the memory of their text."""
    head, (kind, text), body, end = _chunks(SMALL["png"])
    with pytest.raises(ReleaseError, match="more than any release has"):
        decode(_png(head, (kind, text + b" " * 2**17), body, end))


def test_a_later_format_says_to_update() -> None:
    def later(envelope: dict[str, Any], _: bytearray) -> None:
        envelope["format"] = 2

    with pytest.raises(ReleaseError, match="update scotoma"):
        decode(forge(SMALL["float32"], later))


@pytest.mark.parametrize("kind", ENCODINGS)
def test_no_secret_is_in_a_file(kind: str) -> None:
    from scotoma.core.keys import export_secret

    data = encode_release(make_release(), ENCODINGS[kind], key=KEY)
    for secret in (export_secret(KEY), export_secret(KEY).hex().encode()):
        assert secret not in data
