"""Folders encrypted and decrypted: exact, repeatable in any order, and closed when they fail."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.bad_files import bad_files
from support.encryption import KEY, OTHER_KEY
from support.tiny_models import SIDE, make_picture, write_pictures
from torch import Tensor

from scotoma.core.errors import CipherKeyError, FileError, SettingsError, UnsafePathError
from scotoma.core.keys import KeyRing, export_secret
from scotoma.core.protocols import Release
from scotoma.images.ciphertext import CipherEncoding, clipped_fraction, read_release
from scotoma.models.preprocessing import Preprocessing
from scotoma.protections.encrypt import encryption
from scotoma.protections.encrypt.settings import EncryptSettings
from scotoma.run.conversion import Conversion, ConversionSummary
from scotoma.run.decrypt import decrypt
from scotoma.run.encrypt import Encryptor, encrypt
from scotoma.run.manifest import LatestEntries
from scotoma.run.scaling import scaling_for

READING = Preprocessing((3, SIDE, SIDE), interpolation="bilinear", crop_pct=1.0)
ORTHOGONAL = EncryptSettings("orthogonal", block=8)
SHUFFLE = EncryptSettings("shuffle", block=8)
KEYED = ("orthogonal", "permute", "orthogonal-per-block", "block-shuffle")


def go(
    inputs: Path, out: Path, settings: EncryptSettings = ORTHOGONAL, **more: Any
) -> ConversionSummary:
    return encrypt([inputs], out, settings, READING, **more)


def lines(out: Path) -> dict[str, Conversion]:
    found = LatestEntries(out / "manifest.jsonl", Conversion.from_json)
    return {Path(line.input).name: line for line in found.values()}


def released(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("manifest.jsonl", "summary.json")
    }


def read_as_model(path: Path) -> Tensor:
    with Image.open(path) as image:
        return READING.transform(image.convert("RGB"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "in", 4)


# -- what comes out ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", KEYED)
def test_a_release_is_the_picture_that_the_model_reads_encrypted(
    scheme: str, pictures: Path, tmp_path: Path
) -> None:
    settings = EncryptSettings(scheme, block=8, dataset="a")
    summary = go(pictures, tmp_path / "out", settings, key=KEY)
    assert (summary.images, summary.failed) == (4, 0)
    protection = encryption.open_protection(settings, READING)
    for path in sorted(pictures.iterdir()):
        release = read_release(tmp_path / "out" / f"{path.stem}.safetensors", key=KEY)
        wanted = read_as_model(path)[None]
        assert torch.equal(release.data, protection.protect(wanted, KEY).data)
        back = protection.unprotect(release, KEY)
        assert float((back - wanted).abs().max()) < 1e-5
        assert release.metadata["key_id"] == KEY.key_id
        assert release.metadata["dataset"] == "a"
        assert Preprocessing.from_config(release.metadata) == READING


@pytest.mark.parametrize("format_", ["safetensors", "png"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_decrypting_gives_what_the_model_saw(
    format_: str, dtype: str, pictures: Path, tmp_path: Path
) -> None:
    encoding = CipherEncoding(format_, dtype, scaling_for(ORTHOGONAL, READING))
    go(pictures, tmp_path / "out", key=KEY, encoding=encoding)
    summary = decrypt([tmp_path / "out"], tmp_path / "back", KeyRing([OTHER_KEY, KEY]))
    assert (summary.images, summary.failed) == (4, 0)
    mean, std = (torch.tensor(v)[:, None, None] for v in (READING.mean, READING.std))
    for path in sorted(pictures.iterdir()):
        wanted = ((read_as_model(path) * std + mean) * 255).round().permute(1, 2, 0).numpy()
        with Image.open(tmp_path / "back" / path.name) as image:
            found = np.asarray(image).astype(float)
        assert found.shape == (SIDE, SIDE, 3)
        if format_ == "safetensors":
            assert np.abs(found - wanted).max() <= (0 if dtype == "float32" else 1)
        else:
            assert np.abs(found - wanted).mean() < 2


def test_the_summary_and_the_manifest_say_what_was_done(pictures: Path, tmp_path: Path) -> None:
    encoding = CipherEncoding("png", scaling=scaling_for(ORTHOGONAL, READING))
    summary = go(pictures, tmp_path / "out", key=KEY, encoding=encoding, seed=3)
    said = json.loads((tmp_path / "out/summary.json").read_text("utf-8"))
    assert said == summary.to_dict()
    assert said["scheme"] == "orthogonal"
    assert said["settings"] == {"block": 8}
    assert (said["key_id"], said["seed"], said["format"]) == (KEY.key_id, 3, "png")
    line = lines(tmp_path / "out")["000.png"]
    assert (line.status, line.output) == ("ok", "000.png")
    assert 0 <= line.facts["clipped"] < 0.05
    text = (tmp_path / "out/manifest.jsonl").read_text("utf-8")
    assert export_secret(KEY).hex() not in text


# -- the same bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [ORTHOGONAL, SHUFFLE], ids=["orthogonal", "shuffle"])
def test_bytes_do_not_depend_on_order_name_or_company(
    settings: EncryptSettings, pictures: Path, tmp_path: Path
) -> None:
    key = KEY if settings is ORTHOGONAL else None
    go(pictures, tmp_path / "all", settings, key=key)
    shutil.copy(pictures / "002.png", tmp_path / "alone.png")
    go(tmp_path / "alone.png", tmp_path / "one", settings, key=key)
    alone = released(tmp_path / "one")["alone.safetensors"]
    assert alone == released(tmp_path / "all")["002.safetensors"]


def _order_of(out: Path, name: str, picture: Path) -> list[int]:
    """Return from which patch each patch of a shuffled release came."""
    release = read_release(out / f"{name}.safetensors").data
    plain = read_as_model(picture)[None]
    cut = [
        torch.nn.functional.unfold(images, 8, stride=8)[0].T.contiguous()
        for images in (release, plain)
    ]
    order = [int((cut[1] == patch).all(1).nonzero()[0]) for patch in cut[0]]
    assert sorted(order) == list(range(16))
    return order


def test_each_picture_and_each_seed_has_an_order_of_its_own(pictures: Path, tmp_path: Path) -> None:
    orders = []
    for seed in (0, 1):
        go(pictures, tmp_path / f"out{seed}", SHUFFLE, seed=seed)
        orders += [
            _order_of(tmp_path / f"out{seed}", path.stem, path) for path in pictures.iterdir()
        ]
    assert len({tuple(order) for order in orders}) == len(orders) == 8


def test_the_manifest_does_not_tell_the_order(pictures: Path, tmp_path: Path) -> None:
    """Nor does anything in it that an attacker could take for the seed."""
    go(pictures, tmp_path / "out", SHUFFLE)
    line = lines(tmp_path / "out")["001.png"]
    true = _order_of(tmp_path / "out", "001", pictures / "001.png")
    hashes = [line.sha256_in or "", line.sha256_out or "", line.settings]
    seeds = [0] + [int(text[:16], 16) >> shift for text in hashes for shift in (0, 1)]
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed & (2**63 - 1))
        shuffled = encryption.open_protection(SHUFFLE).protect(
            read_as_model(pictures / "001.png")[None], generator=generator
        )
        path = tmp_path / "guess"
        path.mkdir(exist_ok=True)
        release = read_release(tmp_path / "out/001.safetensors")
        assert not torch.equal(shuffled.data, release.data)
    assert true != sorted(true)


def test_orders_follow_from_no_seed_that_can_be_tried_out(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch uses 32 bits of a seed: all 2^32 orders are looked through within a day."""
    states = []
    shuffle = encryption.KeylessEncryption.protect

    def spy(self: Any, images: Tensor, key: Any, *, generator: torch.Generator) -> Release:
        states.append(generator.get_state())
        return shuffle(self, images, key, generator=generator)

    monkeypatch.setattr(encryption.KeylessEncryption, "protect", spy)
    go(pictures, tmp_path / "out", SHUFFLE)
    assert len(states) == 1 + 4  # the first is no picture's
    for state in states[1:]:
        first, second = state[24:40].view(torch.int64).tolist()
        seeded = torch.Generator().manual_seed(first).get_state()[24:40].view(torch.int64).tolist()
        assert seeded[0] == first  # so this is where torch keeps a seed and what follows from it
        assert seeded[1] != second


# -- resuming ---------------------------------------------------------------------------------


def test_a_rerun_repeats_nothing_and_a_new_key_repeats_all(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[bool] = []

    def again(**more: Any) -> list[bool]:
        seen.clear()
        go(pictures, out, **more, on_progress=lambda line, skipped: seen.append(skipped))
        return seen

    assert again(key=KEY) == [False] * 4
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert again(key=KEY) == [True] * 4
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    first = released(out)
    assert again(key=OTHER_KEY) == [False] * 4
    assert not set(released(out).values()) & set(first.values())
    assert again(key=KEY, settings=EncryptSettings(block=8, dataset="b")) == [False] * 4
    (pictures / "001.png").write_bytes((pictures / "002.png").read_bytes())
    (out / "003.safetensors").unlink()
    assert again(key=KEY, settings=EncryptSettings(block=8, dataset="b")) == [
        *(True, False),
        *(True, False),
    ]


def test_a_format_changed_leaves_nothing_of_the_other(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(pictures, out, key=KEY)
    encoding = CipherEncoding("png", scaling=scaling_for(ORTHOGONAL, READING))
    go(pictures, out, key=KEY, encoding=encoding)
    assert {Path(name).suffix for name in released(out)} == {".png"}


def test_another_commands_folder_stays_as_it_is(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.jsonl").write_text('{"input": "a", "regions": []}\n', "utf-8")
    with pytest.raises(FileError, match="another command"):
        go(pictures, out, key=KEY)
    assert [path.name for path in out.iterdir()] == ["manifest.jsonl"]


# -- failing closed ---------------------------------------------------------------------------


def test_bad_files_fail_each_with_its_reason_and_leave_nothing(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 2)
    kinds = bad_files()
    for name, data, _ in kinds.values():
        (folder / name).write_bytes(data)
    summary = go(folder, tmp_path / "out", key=KEY)
    assert (summary.images, summary.failed) == (len(kinds) + 2, len(kinds))
    assert set(released(tmp_path / "out")) == {"000.safetensors", "001.safetensors"}
    found = lines(tmp_path / "out")
    for name, _, fragment in kinds.values():
        assert found[name].status == "failed"
        assert fragment in (found[name].error or "")


def test_a_picture_that_turns_bad_takes_its_release_along(pictures: Path, tmp_path: Path) -> None:
    go(pictures, tmp_path / "out", key=KEY)
    (pictures / "000.png").write_bytes(b"no picture")
    assert go(pictures, tmp_path / "out", key=KEY).failed == 1
    assert "000.safetensors" not in released(tmp_path / "out")


def test_a_plain_picture_is_never_written_whatever_made_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_forgetful(settings: EncryptSettings, preprocessing: Preprocessing) -> Any:
        protection = encryption.open_protection(settings, preprocessing)
        honest = protection.protect

        def protect(images: Tensor, key: Any = None, *, generator: Any = None) -> Release:
            return Release(images, honest(images, key, generator=generator).metadata)

        monkeypatch.setattr(protection, "protect", protect)
        return protection

    monkeypatch.setattr("scotoma.run.encrypt.open_protection", open_forgetful)
    summary = go(pictures, tmp_path / "out", key=KEY)
    assert summary.failed == 4
    assert released(tmp_path / "out") == {}
    assert "the picture itself" in (lines(tmp_path / "out")["000.png"].error or "")


def test_one_block_cannot_be_shuffled(pictures: Path, tmp_path: Path) -> None:
    summary = go(pictures, tmp_path / "out", EncryptSettings("shuffle", block=SIDE))
    assert (summary.failed, released(tmp_path / "out")) == (4, {})


def test_a_single_colour_has_nothing_to_hide(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 40), (120, 30, 200)).save(tmp_path / "in/flat.png")
    assert go(tmp_path / "in", tmp_path / "out", SHUFFLE).failed == 0


def test_settings_that_cannot_be_are_refused_before_anything_is_made(
    pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(CipherKeyError, match="scotoma keygen"):
        go(pictures, out)
    with pytest.raises(CipherKeyError, match="leave --key out"):
        go(pictures, out, SHUFFLE, key=KEY)
    with pytest.raises(SettingsError, match="seed"):
        go(pictures, out, SHUFFLE, seed=-1)
    with pytest.raises(UnsafePathError):
        go(pictures, pictures, key=KEY)
    with pytest.raises(FileError, match="does not exist"):
        go(tmp_path / "nowhere", out, key=KEY)
    assert not out.exists()


def test_originals_are_never_replaced(tmp_path: Path) -> None:
    """PNG in, PNG out: into the folder of an input, by a link, or by an earlier file."""
    encoding = CipherEncoding("png", scaling=scaling_for(ORTHOGONAL, READING))
    folder = write_pictures(tmp_path / "in", 1)
    before = (folder / "000.png").read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    (out / "000.png").symlink_to(folder / "000.png")
    assert go(folder, out, key=KEY, encoding=encoding).failed == 1
    (out / "000.png").unlink()
    (out / "000.png").write_bytes(b"somebody's")
    assert go(folder, out, key=KEY, encoding=encoding).failed == 1
    assert (out / "000.png").read_bytes() == b"somebody's"
    assert (folder / "000.png").read_bytes() == before


# -- decrypting -------------------------------------------------------------------------------


def test_decrypting_refuses_each_with_its_reason(pictures: Path, tmp_path: Path) -> None:
    go(pictures, tmp_path / "rel", key=KEY)
    go(pictures / "000.png", tmp_path / "other", key=OTHER_KEY)
    go(pictures / "000.png", tmp_path / "keyless", SHUFFLE)
    box = tmp_path / "box"
    box.mkdir()
    shutil.copy(tmp_path / "rel/000.safetensors", box / "good.safetensors")
    shutil.copy(tmp_path / "other/000.safetensors", box / "other.safetensors")
    shutil.copy(tmp_path / "keyless/000.safetensors", box / "keyless.safetensors")
    shutil.copy(pictures / "000.png", box / "picture.png")
    whole = (box / "good.safetensors").read_bytes()
    (box / "cut.safetensors").write_bytes(whole[:-1])
    (box / "changed.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    summary = decrypt([box], tmp_path / "back", KeyRing([KEY]))
    assert (summary.images, summary.failed) == (6, 5)
    assert set(released(tmp_path / "back")) == {"good.png"}
    errors = {name: line.error or "" for name, line in lines(tmp_path / "back").items()}
    assert f"{OTHER_KEY.key_id}" in errors["other.safetensors"]
    assert KEY.key_id in errors["other.safetensors"]
    assert "key-less" in errors["keyless.safetensors"]
    assert "ordinary PNG" in errors["picture.png"]
    assert "instead of" in errors["cut.safetensors"]
    assert "SHA-256" in errors["changed.safetensors"]


def test_what_was_decrypted_once_is_not_again(pictures: Path, tmp_path: Path) -> None:
    go(pictures, tmp_path / "rel", key=KEY)
    seen: list[bool] = []
    for _ in range(2):
        decrypt(
            [tmp_path / "rel"],
            tmp_path / "back",
            KeyRing([KEY]),
            on_progress=lambda line, skipped: seen.append(skipped),
        )
    assert seen == [False] * 4 + [True] * 4


# -- scaling ----------------------------------------------------------------------------------


CASES = [
    (EncryptSettings("permute", block=8), 0.0),
    (EncryptSettings("block-shuffle", block=8), 0.0),
    (EncryptSettings("block-shuffle", block=8, inner="permute"), 0.0),
    (SHUFFLE, 0.0),
    (EncryptSettings("mix", block=8), 0.0),
    (ORTHOGONAL, 0.002),
    (EncryptSettings("orthogonal-per-block", block=8), 0.002),
]


@pytest.mark.parametrize(
    ("settings", "most"), CASES, ids=lambda value: getattr(value, "scheme", "")
)
def test_scaling_clips_little_and_wastes_little(settings: EncryptSettings, most: float) -> None:
    images = torch.stack(
        [READING.transform(Image.fromarray(make_picture(seed, SIDE, SIDE))) for seed in range(40)]
    )
    protection = encryption.open_protection(settings, READING)
    key = KEY if protection.keyed else None
    release = protection.protect(images, key, generator=torch.Generator().manual_seed(0))
    scaling = scaling_for(settings, READING)
    assert clipped_fraction(release, scaling) <= most
    used = scaling.quantize(release.data.numpy())
    assert int(used.max()) - int(used.min()) > 128


def test_the_range_is_fixed_before_any_picture() -> None:
    """Black and white pictures, and all between, have one range under one preprocessing."""
    encryptor = Encryptor(
        ORTHOGONAL,
        READING,
        key=KEY,
        encoding=CipherEncoding("png", scaling=scaling_for(ORTHOGONAL, READING)),
    )
    envelopes = set()
    for level in (0, 128, 255):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 40), (level,) * 3).save(buffer, "PNG")
        data = encryptor.convert(buffer.getvalue(), "a.png").data
        with Image.open(io.BytesIO(data)) as image:
            envelopes.add(json.dumps(json.loads(image.text["scotoma_release"])["data"]))
    assert len(envelopes) == 1
