"""Split networks in the evaluation: attacked and asked like every other protection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.evaluation import make_unit_images, write_groups
from support.splits import write_split

from scotoma.core.errors import CipherKeyError, ImageError, ModelError, SettingsError
from scotoma.core.keys import Key
from scotoma.evaluate.config_reader import read_config
from scotoma.evaluate.encoded import Encoded, SplitSettings
from scotoma.evaluate.subjects import open_subject
from scotoma.evaluate.table import run_table
from scotoma.images.bitstream import decode_latents, encode_latents
from scotoma.models.spec import load_classifier

CONFIG = """
[run]
pictures_per_key = 4
metrics = ["psnr_db"]
[data.some]
path = "pictures"
pictures = 4
auxiliary = 8
[models.tiny]
spec = "scotoma:{model}"
[protections.bottleneck]
name = "split"
file = "{file}"
[protections.none]
[attacks.look]
[attacks.norm-thumbnail]
protections = ["bottleneck"]
[attacks.inversion-conv-features]
steps = 20
width = 32
depth = 1
protections = ["bottleneck"]
"""


@pytest.fixture
def file(tiny_files: tuple[Path, Path], tmp_path: Path) -> Path:
    return write_split(tmp_path / "split.safetensors", tiny_files[0])


def test_a_split_is_attacked_and_asked_like_every_other_protection(
    tiny_files: tuple[Path, Path], file: Path, tmp_path: Path
) -> None:
    write_groups(tmp_path / "pictures", 4, 4, side=40)
    path = tmp_path / "evaluation.toml"
    path.write_text(CONFIG.format(model=tiny_files[0], file=file))
    totals = run_table(read_config(path), tmp_path / "out", examples=0)
    assert (totals.failed, totals.not_applicable) == (0, 2)  # neither pictures nor blocks
    lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    found = {
        (r["protection"]["label"], r["attack"]["name"] if r["attack"] else ""): r for r in records
    }
    utility = found["bottleneck", ""]["metrics"]
    assert 0 < utility["bits_per_pixel"]["value"] < 8
    assert utility["agreement"]["n"] == 4
    learned = found["bottleneck", "inversion-conv-features"]
    assert learned["metrics"]["psnr_db"]["value"] > 0
    assert learned["n"] == 4

    again = run_table(read_config(path), tmp_path / "out", examples=0)
    assert again.skipped == again.cells
    # Other weights behind the same name are another protection.
    write_split(file, tiny_files[0], seed=5)
    changed = run_table(read_config(path), tmp_path / "out", examples=0)
    assert changed.skipped == changed.cells - 4


def test_what_is_written_is_the_stream_that_the_camera_sends(
    tiny_files: tuple[Path, Path], file: Path
) -> None:
    subject = open_subject("split", {"file": str(file)})
    assert isinstance(subject, Encoded)
    images = make_unit_images(3)
    release = subject.protect(images)
    frames = release.data.byte().numpy()
    stream = encode_latents(frames, model=subject.model.coder)
    assert subject.written_bits(release) == 8 * len(stream)
    assert (decode_latents(stream, model=subject.model.coder).latents == frames).all()
    classifier = load_classifier(f"scotoma:{tiny_files[0]}")
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in (classifier.preprocessing.mean, classifier.preprocessing.std)
    )
    assert torch.equal(release.data, subject.model.encode((images - mean) / std).float())


def test_what_cannot_be_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="scotoma train split"):
        SplitSettings()
    with pytest.raises(ModelError, match="absent"):
        open_subject("split", {"file": str(tmp_path / "absent.safetensors")})
    subject = open_subject("split", {"file": str(file)})
    with pytest.raises(ImageError, match="size"):
        subject.protect(make_unit_images(1, side=40))
    with pytest.raises(CipherKeyError, match="no key"):
        subject.protect(make_unit_images(1), Key.from_bytes(bytes(32)))
