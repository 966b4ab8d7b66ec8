"""A split network's halves as ONNX: the same bytes, the same answers, and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.splits import write_split

from scotoma.core.errors import ModelError
from scotoma.images.bitstream import decode_latents, encode_latents
from scotoma.models.split_model import SplitModel, load_split
from scotoma.models.split_onnx import OnnxHalf, export_halves


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, tiny_files: tuple[Path, Path]) -> SplitModel:
    path = tmp_path_factory.mktemp("split") / "split.safetensors"
    return load_split(write_split(path, tiny_files[0]))


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory, split: SplitModel) -> tuple[Path, Path]:
    return export_halves(split, tmp_path_factory.mktemp("halves") / "new", split_digest="d")


def test_halves_agree_with_the_split_network(split: SplitModel, halves: tuple[Path, Path]) -> None:
    camera, server = map(OnnxHalf, halves)
    images = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    latents, wanted = camera.run(images.numpy()), split.encode(images).numpy()
    assert latents.dtype == np.uint8
    # What lies on the edge between two levels may fall to either side.
    assert np.abs(latents.astype(int) - wanted).max() <= 1
    assert (latents != wanted).mean() < 1e-3
    logits = split.answer(torch.from_numpy(wanted)).numpy()
    assert np.abs(server.run(wanted) - logits).max() < 1e-4 * np.abs(logits).max()
    assert np.abs(logits).max() > 0.1


def test_halves_say_how_to_feed_and_code_them(split: SplitModel, halves: tuple[Path, Path]) -> None:
    for half in map(OnnxHalf, halves):
        assert half.description["split"] == "d"
        assert half.description["preprocessing"] == {
            **split.description.preprocessing.to_config(),
            "input_size": [3, 32, 32],
            "mean": list(split.description.preprocessing.mean),
            "std": list(split.description.preprocessing.std),
        }
        assert half.description["classes"] == list(split.description.classes or ())
        assert half.latent_shape == split.latent_shape
        assert half.coder is not None
        assert split.coder is not None
        assert half.coder.digest == split.coder.digest


def test_a_camera_needs_no_torch(halves: tuple[Path, Path]) -> None:
    code = f"""
import sys
import numpy as np
from pathlib import Path
from scotoma.images.bitstream import decode_latents, encode_latents
from scotoma.models.split_onnx import OnnxHalf

camera, server = OnnxHalf(Path({str(halves[0])!r})), OnnxHalf(Path({str(halves[1])!r}))
latents = camera.run(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
stream = encode_latents(latents, model=camera.coder)
found = decode_latents(stream, model=server.coder).latents
assert (found == latents).all()
print(server.run(found).shape, *[m for m in ("torch", "timm") if m in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "(2, 5)"


def test_other_models_are_refused(tmp_path: Path, halves: tuple[Path, Path]) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="expected an ONNX model"):
        OnnxHalf(tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="expected images of the size"):
        OnnxHalf(halves[0]).run(np.zeros((1, 3, 8, 8), np.float32))


def test_streams_of_both_ends_are_read_by_either(
    split: SplitModel, halves: tuple[Path, Path]
) -> None:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(6))
    camera = OnnxHalf(halves[0])
    stream = encode_latents(camera.run(images.numpy()), model=camera.coder)
    latents = decode_latents(stream, model=split.coder).latents
    logits = split.answer(torch.from_numpy(latents))
    assert torch.equal(logits.argmax(1), split(images).argmax(1))
