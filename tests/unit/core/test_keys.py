"""Keys: what they derive is fixed for ever, and what they are shows nowhere."""

from __future__ import annotations

import copy
import dataclasses
import doctest
import hashlib
import hmac
import inspect
import json
import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from scotoma.core import keys
from scotoma.core.errors import CipherKeyError, SecretError, SettingsError
from scotoma.core.keys import Key, KeyRing, export_secret

SECRET = bytes(range(32))
OTHER = bytes(range(1, 33))


def key(secret: bytes = SECRET) -> Key:
    return Key.from_bytes(secret)


def shows_secret(text: str | bytes, secret: bytes = SECRET) -> bool:
    """Whether 8 bytes of the secret in a row are in ``text``, as they are, hex, repr or base64."""
    import base64

    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    parts = [secret[start : start + 8] for start in range(len(secret) - 7)]
    spelled = [
        part for raw in parts for part in (raw, raw.hex().encode(), repr(raw)[2:-1].encode())
    ]
    return any(part in data for part in spelled) or base64.b64encode(secret)[:40] in data


# -- derivation -------------------------------------------------------------------------


def test_derived_values_never_change() -> None:
    """Releases written by any version are read by every later one: never edit these."""
    one = key()
    assert one.key_id == "7bbb2f2512b4a732"
    assert one.subkey("encrypt/faces").key_id == "1f247f28c7a3497a"
    assert (
        export_secret(one.subkey("é\udc80")).hex()
        == "faa0e149fa6398cac26e555aec9681750f49ad1a4dae129b6a453073c572bd40"
    )
    assert one.stream("noise", 16).hex() == "3fd45dd68959b03c4de0584534c8693c"
    assert (
        one.mac(b"data").hex() == "c2e5b18286f9fde18e0a791628fbfdde67bf72a60fc7b442d2261a55d87990a9"
    )


def reference_expand(secret: bytes, *info: str) -> bytes:
    """HKDF by the cryptography package, with our framing written out once more."""
    framed = b"".join(len(text.encode()).to_bytes(8, "big") + text.encode() for text in info)
    return HKDF(SHA256(), 32, salt=b"scotoma key 1", info=framed).derive(secret)


@given(st.binary(min_size=32, max_size=32), st.text(st.characters(exclude_categories=["Cs"])))
def test_derivation_is_hkdf_hmac_and_shake(secret: bytes, text: str) -> None:
    one = key(secret)
    assert one.key_id == reference_expand(secret, "id")[:8].hex()
    assert export_secret(one.subkey(text)) == reference_expand(secret, "subkey", text)
    mac_key = reference_expand(secret, "mac")
    assert one.mac(text.encode()) == hmac.new(mac_key, text.encode(), "sha256").digest()
    label = text.encode()
    seed = reference_expand(secret, "stream") + len(label).to_bytes(8, "big") + label
    assert one.stream(text, 40) == hashlib.shake_256(seed).digest(40)


def derived(one: Key) -> list[bytes]:
    """Return one of everything that a key derives."""
    labels = ["", "a", "b", "ab", "a/b", "é", "e\u0301", "\udc80", "id", "mac", "stream"]
    return [
        *(one.stream(label, 32) for label in labels),
        *(export_secret(one.subkey(label)) for label in labels),
        *(one.subkey("a").stream(label, 32) for label in labels),
        *(export_secret(one.subkey("a").subkey(label)) for label in labels),
        *(one.mac(label.encode("utf-8", "surrogatepass")) for label in labels),
        bytes.fromhex(one.key_id),
        export_secret(one),
    ]


def test_keys_and_labels_share_nothing() -> None:
    values = [*derived(key()), *derived(key(OTHER))]
    assert len({value[:8] for value in values}) == len(values)


def test_texts_do_not_run_together() -> None:
    one = key()
    assert one.subkey("ab").stream("c", 32) != one.subkey("a").stream("bc", 32)
    assert one.subkey("ab").subkey("c") != one.subkey("a").subkey("bc")
    assert one.subkey("a").subkey("b") != one.subkey("ab")
    # Framing lists of texts is one to one, also for texts that look like a frame.
    texts = [["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"], ["\0" * 7 + "\1a"], ["a"]]
    framed = {b"".join(map(keys._framed, some)) for some in texts}
    assert len(framed) == len(texts)


@given(st.text(), st.text())
def test_different_texts_are_different_bytes(first: str, second: str) -> None:
    assert (keys._framed(first) == keys._framed(second)) == (first == second)


def test_a_short_stream_begins_a_long_one() -> None:
    assert key().stream("x", 1000)[:10] == key().stream("x", 10)
    assert key().stream("x", 0) == b""


def test_a_stream_looks_random() -> None:
    """Frequencies of bytes, chi squared: a stream that repeats or skews fails."""
    data = key().stream("x", 2**18)
    expected = len(data) / 256
    chi_squared = sum((data.count(value) - expected) ** 2 / expected for value in range(256))
    assert 170 < chi_squared < 350
    assert data[: 2**17] != data[2**17 :]


@pytest.mark.parametrize("size", [-1, 2**29, 1.5, float("nan"), None, "3"])
def test_a_size_that_no_stream_has_is_refused(size: Any) -> None:
    with pytest.raises(SettingsError, match="expected a stream of 0 to 536870911 bytes, got"):
        key().stream("x", size)


def test_new_keys_differ_and_are_full_of_entropy() -> None:
    made = {export_secret(Key.generate()) for _ in range(50)}
    assert len(made) == 50
    assert {len(secret) for secret in made} == {32}
    columns = [len({secret[place] for secret in made}) for place in range(32)]
    assert min(columns) > 30


def test_equality_is_by_secret() -> None:
    assert key() == key()
    assert key() != key(OTHER)
    assert key() != SECRET
    assert len({key(), key(), key(OTHER)}) == 2


# -- secrecy ----------------------------------------------------------------------------


def test_the_witness_of_these_tests_sees_secrets() -> None:
    assert shows_secret(SECRET)
    assert shows_secret(repr(SECRET))
    assert shows_secret("..." + SECRET.hex())
    assert not shows_secret(repr(key()))


@pytest.mark.parametrize(
    "show",
    [repr, str, ascii, "{}".format, "%s".__mod__, lambda one: f"{one!r} {[one]} {(one,)}"],
)
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: KeyRing([one])])
def test_texts_show_only_the_id(show: Callable[[Any], str], wrap: Callable[[Key], Any]) -> None:
    text = show(wrap(key()))
    assert key().key_id in text
    assert not shows_secret(text)


COPIES: list[Callable[[Any], object]] = [
    *(lambda thing, p=protocol: pickle.dumps(thing, p) for protocol in range(6)),
    lambda thing: pickle.dumps({"deep": [thing]}),
    multiprocessing.reduction.ForkingPickler.dumps,
    copy.copy,
    copy.deepcopy,
    lambda thing: thing.__getstate__(),
    lambda thing: thing.__setstate__((None, {})),
    lambda thing: thing.__reduce__(),
    lambda thing: thing.__reduce_ex__(2),
]


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("thing", [key(), KeyRing([key()])], ids=["key", "ring"])
def test_copying_refuses(make: Callable[[Any], object], thing: Key | KeyRing) -> None:
    with pytest.raises(SecretError, match="expected the secret to stay where it is, got a Key"):
        make(thing)


def test_settings_that_hold_a_key_cannot_leak_it() -> None:
    @dataclasses.dataclass
    class Settings:
        key: Key

    assert not shows_secret(repr(Settings(key())))
    with pytest.raises(SecretError):
        dataclasses.asdict(Settings(key()))


@pytest.mark.parametrize("thing", [key(), KeyRing([key()])], ids=["key", "ring"])
def test_nothing_public_holds_the_secret(thing: Key | KeyRing) -> None:
    with pytest.raises(TypeError):
        vars(thing)
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(thing)
    with pytest.raises(TypeError):
        bytes(thing)  # type: ignore[call-overload]
    for name, value in inspect.getmembers(thing):
        if not name.startswith("_Key"):
            assert not isinstance(value, (bytes, bytearray, memoryview)), name
            assert not shows_secret(repr(value)), name
    with pytest.raises(AttributeError):
        thing.note = 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "secret", [SECRET[:31], SECRET + b"\0", b"", SECRET.hex(), list(SECRET), None]
)
def test_what_is_no_secret_is_refused_unseen(secret: Any) -> None:
    with pytest.raises(CipherKeyError, match="expected a key's secret as 32 bytes, got") as caught:
        Key.from_bytes(secret)
    assert not shows_secret("".join(traceback.format_exception(caught.value)))
    assert not shows_secret(repr(caught.value.args))


def test_a_key_is_not_made_by_its_class_alone() -> None:
    with pytest.raises(CipherKeyError, match=r"expected Key.generate\(\)"):
        Key()


def test_a_changed_buffer_does_not_change_the_key() -> None:
    buffer = bytearray(SECRET)
    one = Key.from_bytes(buffer)
    buffer[:] = OTHER
    assert one == key()


def test_the_example_is_true() -> None:
    assert doctest.testmod(keys).failed == 0
    assert doctest.testmod(keys).attempted == 3


# -- rings ------------------------------------------------------------------------------


def test_rotation_adds_a_current_key_and_keeps_the_others() -> None:
    first = KeyRing.generate()
    second = first.rotate()
    third = second.rotate()
    assert (len(first), len(second), len(third)) == (1, 2, 3)
    assert third.keys[:2] == second.keys
    assert third.keys[0] == first.current
    assert third.current == third.keys[-1]
    assert third.ids() == tuple(one.key_id for one in third.keys)
    assert len(set(third.ids())) == 3
    assert [third.find(name) for name in third.ids()] == list(third.keys)


def test_a_missing_generation_is_named_with_those_there() -> None:
    ring = KeyRing([key(), key(OTHER)])
    with pytest.raises(CipherKeyError) as caught:
        ring.find("0" * 16)
    message = str(caught.value)
    assert all(name in message for name in (*ring.ids(), "0" * 16))
    assert not shows_secret(message)


@pytest.mark.parametrize(
    "members",
    [[], [key(), key()], [key(bytes([n] * 16 + [m] * 16)) for n in range(40) for m in range(26)]],
)
def test_rings_that_make_no_sense_are_refused(members: list[Key]) -> None:
    with pytest.raises(CipherKeyError, match="expected"):
        KeyRing(members)
