"""Encoding and decoding: what the camera sends is what the server answers."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.splits import write_split, write_video
from support.tiny_models import write_pictures

from scotoma.core.errors import MissingExtraError, SettingsError, UnreadableImageError
from scotoma.core.keys import Key, KeyRing
from scotoma.images.bitstream import CodecSettings, LatentReader, decode_latents
from scotoma.images.video_frames import read_frames
from scotoma.models.split_model import SplitModel, load_split
from scotoma.run.decode import FrameAnswer, decode
from scotoma.run.encode import Encoder, encode

KEY = Key.from_bytes(bytes(range(32)))
COUNT = 4


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, tiny_files: tuple[Path, Path]) -> SplitModel:
    path = tmp_path_factory.mktemp("split") / "split.safetensors"
    return load_split(write_split(path, tiny_files[0]))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "in", COUNT)
    return tmp_path / "in"


def answers(out: Path, split: SplitModel, **options: object) -> list[FrameAnswer]:
    return list(decode([out], split, split_digest="d", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
def test_the_server_answers_as_the_whole_network_does(
    split: SplitModel, pictures: Path, tmp_path: Path, key: Key | None
) -> None:
    summary = encode([pictures], tmp_path / "out", split, split_digest="d", key=key)
    assert (summary.images, summary.failed) == (COUNT, 0)
    ring = None if key is None else KeyRing([key])
    found = answers(tmp_path / "out", split, ring=ring, top=5)
    for answer, path in zip(found, sorted(pictures.iterdir()), strict=True):
        image = split.description.preprocessing.transform(Image.open(path).convert("RGB"))
        scores = split(image[None])[0].softmax(0)
        assert [a.label for a in answer.answers] == scores.argsort(descending=True).tolist()
        assert answer.answers[0].score == pytest.approx(float(scores.max()), abs=1e-5)
        assert answer.answers[0].name == split.description.classes[answer.answers[0].label]


def test_a_run_is_resumed_and_what_it_writes_says_nothing_of_the_pictures(
    split: SplitModel, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    encode([pictures], out, split, split_digest="d")
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.latents")}
    first = next(iter(before))
    (out / first).write_bytes(b"something else")
    skipped = []
    encode([pictures], out, split, split_digest="d", on_progress=lambda _, s: skipped.append(s))
    assert sorted(skipped) == [False] + [True] * (COUNT - 1)
    stream = (out / first).read_bytes()
    assert first.encode() not in stream
    found = decode_latents(stream, model=split.coder)
    assert found.metadata == {"split": "d"}
    line = json.loads((out / "manifest.jsonl").read_text().splitlines()[0])
    assert line["facts"]["frames"] == 1
    assert 0 < line["facts"]["bits_per_pixel"] < 8


def test_the_fitted_coder_travels_with_the_split(
    split: SplitModel, pictures: Path, tmp_path: Path
) -> None:
    encode([pictures], tmp_path / "out", split, split_digest="d")
    path = next((tmp_path / "out").glob("*.latents"))
    with path.open("rb") as source:
        reader = LatentReader(source, model=split.coder)
        assert (reader.settings, reader.shape) == (CodecSettings(), split.latent_shape)
        assert len(list(reader)) == 1


def test_a_stream_of_another_split_is_refused(
    split: SplitModel, pictures: Path, tmp_path: Path
) -> None:
    encode([pictures], tmp_path / "out", split, split_digest="other")
    found = answers(tmp_path / "out", split)
    assert len(found) == COUNT
    assert all("expected a stream of the split d, got one of other" in f.error for f in found)
    assert not any(answer.answers for answer in found)


def test_a_damaged_stream_is_answered_up_to_the_damage(split: SplitModel, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 6)
    encode([tmp_path / "v.mp4"], tmp_path / "out", split, split_digest="d")
    path = tmp_path / "out" / "v.latents"
    whole = answers(path, split)
    assert [answer.frame for answer in whole] == list(range(6))
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(bytes(data))
    for batch_size in (1, 4, 16):
        found = answers(path, split, batch_size=batch_size)
        assert 1 < len(found) < 7
        assert [f.answers[0].label for f in found[:-1]] == [
            f.answers[0].label for f in whole[: len(found) - 1]
        ]
        assert "does not match its check" in str(found[-1].error)
        assert found[-1].frame == len(found) - 1


def test_a_video_is_a_stream_of_its_frames(split: SplitModel, tmp_path: Path) -> None:
    frames = write_video(tmp_path / "v.mkv", 7)
    encoder = Encoder(split, split_digest="d", every=3)
    with (tmp_path / "s").open("w+b") as sink:
        facts = encoder.convert_file(tmp_path / "v.mkv", sink)
    assert facts["frames"] == 3
    found = decode_latents((tmp_path / "s").read_bytes(), model=split.coder).latents
    for latents, picture in zip(found, frames[::3], strict=True):
        wanted = encoder.latents(Image.fromarray(picture))
        # The video is not quite lossless: most places agree, and none is far away.
        assert np.abs(latents.astype(int) - wanted).mean() < 1.5
    assert np.abs(found[0].astype(int) - found[1]).mean() > 5


def test_frames_are_read_as_they_were_written(tmp_path: Path) -> None:
    frames = write_video(tmp_path / "v.mkv", 3)
    found = [np.asarray(image).astype(int) for image in read_frames(tmp_path / "v.mkv")]
    assert len(found) == 3
    for image, frame in zip(found, frames, strict=True):
        assert np.abs(image - frame).mean() < 3
    assert len(list(read_frames(tmp_path / "v.mkv", every=2))) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [("v.mp4", b"no video"), ("v.avi", b""), ("v.webm", b"\x1aE\xdf\xa3" + b"x" * 99)],
)
def test_what_is_no_video_fails_with_a_reason(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=f"{name}: expected a whole video"):
        list(read_frames(tmp_path / name))


def test_a_file_that_fails_leaves_nothing_and_stops_nobody(
    split: SplitModel, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "a.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (pictures / "v.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    summary = encode([pictures], out, split, split_digest="d")
    assert (summary.images, summary.failed) == (COUNT + 2, 2)
    assert len(list(out.glob("*.latents"))) == COUNT
    assert not list(out.glob("*part*"))


def test_memory_is_flat_in_the_number_of_frames(split: SplitModel, tmp_path: Path) -> None:
    encoder = Encoder(split, split_digest="d")
    peaks = []
    for count in (8, 64):
        path = tmp_path / f"{count}.mkv"
        write_video(path, count)
        with (tmp_path / "s").open("w+b") as sink:
            encoder.convert_file(path, sink)  # once, so that what is made once is there
            sink.seek(0)
            tracemalloc.start()
            encoder.convert_file(path, sink)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_settings_that_cannot_be_are_named_first(split: SplitModel, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="every 0"):
        Encoder(split, split_digest="d", every=0)
    with pytest.raises(SettingsError, match="top and batch_size"):
        decode([tmp_path], split, split_digest="d", top=0)


def test_a_missing_package_is_named(split: SplitModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"scotoma\[encode\]"):
        Encoder(split, split_digest="d", settings=CodecSettings("hevc"))


def test_other_answers_than_logits_are_refused(
    split: SplitModel, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode([pictures], tmp_path / "out", split, split_digest="d")
    monkeypatch.setattr(type(split), "answer", lambda *_: [torch.zeros(1)])
    assert all("logits" in str(found.error) for found in answers(tmp_path / "out", split))
