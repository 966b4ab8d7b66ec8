from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scotoma.compress.compression import round_network
from scotoma.core.errors import CodingError, FileError, ModelError
from scotoma.models.blueprint import Blueprint
from scotoma.models.compressed import (
    CompressedModel,
    is_compressed,
    load_compressed,
    read_compressed,
    write_compressed,
)
from scotoma.models.compressed_tensors import (
    FractionalTensor,
    GridTensor,
    exponent_of,
    read_tensors,
    step_of,
    write_tensors,
)
from scotoma.models.fold import fold_batch_norm
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.spec import load_classifier
from scotoma.ops.fractional_filters import fractional_kernel

ARGUMENTS = {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4, "num_classes": 3}
BLUEPRINT = Blueprint("scotoma", "convmixer", ARGUMENTS)
PREPROCESSING = Preprocessing((3, 16, 16), crop_pct=1.0)


@pytest.fixture(scope="module")
def model() -> CompressedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = BLUEPRINT.build()
    folded = fold_batch_norm(network, torch.zeros(1, 3, 16, 16))
    tensors = round_network(folded, bits=6)
    count = sum(tensor.codes.size for tensor in tensors.values())
    return CompressedModel(
        BLUEPRINT, PREPROCESSING, ("a", "b", "c"), folded is not network, count, tensors
    )


@pytest.fixture
def file(model: CompressedModel, tmp_path: Path) -> Path:
    path = tmp_path / "m.scmp"
    write_compressed(path, model)
    return path


def resealed(data: bytes) -> bytes:
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "big")


def with_header(data: bytes, **changes: object) -> bytes:
    length = struct.unpack(">I", data[5:9])[0]
    header = {**json.loads(zlib.decompress(data[9 : 9 + length])), **changes}
    packed = zlib.compress(json.dumps(header).encode())
    return resealed(data[:5] + struct.pack(">I", len(packed)) + packed + data[9 + length :])


def test_gives_back_exactly_the_weights_that_were_measured(
    model: CompressedModel, file: Path
) -> None:
    found = read_compressed(file)
    assert found.classes == model.classes
    assert found.preprocessing == PREPROCESSING
    network = found.build()
    assert not network.training
    state = network.state_dict()
    assert state.keys() >= model.tensors.keys()
    for name, tensor in model.tensors.items():
        assert torch.equal(state[name], tensor.values())
    inputs = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = fold_batch_norm(BLUEPRINT.build(), inputs)
    expected.load_state_dict({n: t.values() for n, t in model.tensors.items()}, strict=False)
    classifier = load_classifier(f"compressed:{file}")
    assert torch.allclose(classifier.logits(inputs), expected(inputs), atol=1e-5)
    assert classifier.differentiable


def test_same_model_same_bytes_and_nothing_beside(model: CompressedModel, tmp_path: Path) -> None:
    sizes = {write_compressed(tmp_path / name, model) for name in ("a", "b")}
    assert sizes == {(tmp_path / "a").stat().st_size}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_is_smaller_than_its_integers(model: CompressedModel, file: Path) -> None:
    bits = sum(6 * t.codes.size for t in model.tensors.values())
    assert file.stat().st_size < 0.9 * bits / 8 + 600


def test_refuses_every_flipped_or_missing_byte(file: Path) -> None:
    data = file.read_bytes()
    for place in range(0, len(data), 31):
        for damaged in (data[:place], data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]):
            file.write_bytes(damaged)
            with pytest.raises(ModelError, match=r"damaged|whole|no compressed model|version"):
                read_compressed(file)
    file.write_bytes(data + b"\0")
    with pytest.raises(ModelError, match="checksum"):
        read_compressed(file)


def test_refuses_resealed_damage_without_a_hang(file: Path) -> None:
    data = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(15):
        place = int(random.integers(9, len(data) - 4))
        changed = data[:place] + bytes([int(random.integers(256))]) + data[place + 1 :]
        file.write_bytes(resealed(changed))
        try:
            read_compressed(file).build()
        except ModelError:
            continue
        except CodingError:  # pragma: no cover
            pytest.fail("a coder's error reached the caller of the loader")


def test_says_why_a_file_is_no_good(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    cases = {
        b"": "no compressed model",
        b"\x89PNG": "no compressed model",
        data[:4] + b"\x09" + data[5:]: "expected version 1 .* got 9; update scotoma",
        with_header(data, parameters=-1): "parameters",
        with_header(data, parameters=1 << 40): "parameters",
        with_header(data, parameters=1, blueprint=None): "blueprint|damaged",
        with_header(data, preprocessing={"crop_pct": -1}): "crop_pct",
        with_header(data, folded=True): "expected BatchNorms to fold",
    }
    for content, message in cases.items():
        file.write_bytes(content)
        with pytest.raises(ModelError, match=message):
            read_compressed(file)
    other = replace(BLUEPRINT, arguments={**ARGUMENTS, "dim": 12})
    file.write_bytes(with_header(data, blueprint=other.to_config()))
    with pytest.raises(ModelError):
        read_compressed(file)
    with pytest.raises(ModelError, match="expected a compressed model at"):
        load_compressed("compressed:x", str(tmp_path / "none"), "cpu")
    with pytest.raises(ModelError, match="expected a compressed model at"):
        is_compressed(tmp_path / "none")


def test_cannot_be_written_into_no_folder(model: CompressedModel, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="check its folder"):
        write_compressed(tmp_path / "none" / "m.scmp", model)


@pytest.mark.parametrize("exponent", [-512, -9, -8, -1, 0, 1, 7, 8, 511])
def test_steps(exponent: int) -> None:
    assert step_of(exponent) == pytest.approx(2 ** (exponent / 8), rel=1e-12)
    assert exponent_of(step_of(exponent)) == exponent


def test_fractional_kernels_come_back() -> None:
    random = np.random.default_rng(0)
    mask = (random.random((4, 6)) < 0.5).astype(np.int32)
    masked = mask[..., None]
    shape_codes = random.integers(4, 20, (4, 6, 1, 5)) * masked[..., None]
    shapes = GridTensor(shape_codes.astype(np.int32), np.array(-24, np.int32))
    sizes = random.integers(-9, 9, (4, 6, 1)) * masked
    amplitudes = GridTensor(sizes.astype(np.int32), np.array(-16, np.int32))
    codes = random.integers(-3, 4, (4, 6, 3, 3)).astype(np.int32) * (1 - mask)[..., None, None]
    plain = GridTensor(codes.astype(np.int32), np.array(-20, np.int32))
    tensor = FractionalTensor(mask, shapes, amplitudes, plain)
    bias = GridTensor(random.integers(-9, 9, (4,)).astype(np.int32), np.array(-20, np.int32))
    data = write_tensors({"w": tensor, "b": bias})
    found = read_tensors(data, {"w": (4, 6, 3, 3), "b": (4,)})
    assert torch.equal(found["b"].values(), bias.values())
    values = found["w"].values()
    assert torch.equal(values, tensor.values())
    six = torch.cat([amplitudes.values(), shapes.values()[:, :, 0]], -1)
    kernels = fractional_kernel(six, (3, 3))
    chosen = torch.from_numpy(mask.astype(bool))
    assert torch.allclose(values[chosen], kernels[chosen], atol=1e-6)
    assert torch.equal(values[~chosen], plain.values()[~chosen])
    nothing = FractionalTensor(0 * mask, shapes, amplitudes, plain)
    assert len(write_tensors({"w": nothing, "b": bias})) < len(data)


def test_a_network_of_ones_own_needs_its_code_named(model: CompressedModel, tmp_path: Path) -> None:
    path, code = tmp_path / "m.scmp", tmp_path / "nets.py"
    code.write_text(
        "from scotoma.models.saved import build\n"
        f"def mine():\n    return build('convmixer', {ARGUMENTS!r})\n"
    )
    write_compressed(path, replace(model, blueprint=Blueprint("python", "mine")))
    with pytest.raises(ModelError, match=r"never runs by itself; write compressed:FILE@CODE"):
        load_classifier(f"compressed:{path}")
    classifier = load_classifier(f"compressed:{path}@{code}:mine")
    state = classifier.network.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(state[name], t.values()) for name, t in model.tensors.items())
    for named, message in {
        f"{code}:yours": "expected 'yours' in",
        f"{tmp_path}/none.py:mine": "expected compressed:FILE@CODE.py:NAME with a file",
        "mine": "expected compressed:FILE@CODE.py:NAME with a file",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_classifier(f"compressed:{path}@{named}")
