"""Files of compressed models: an ordinary network whose weights are whole numbers times steps.

::

    magic  version  header's length  header (deflated JSON)  coded integers  checksum
    4      1        4                                                        4          bytes

The header says how to build and feed the network; the integers are the weights, tensor after
tensor in the order of the network's own ``state_dict``. Nothing of a file is ever executed.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import CodingError, FileError, ModelError
from scotoma.models.assembly import assemble, file_label, freeze
from scotoma.models.blueprint import Blueprint
from scotoma.models.classifier import Classifier
from scotoma.models.compressed_tensors import CompressedTensor, read_tensors, write_tensors
from scotoma.models.fold import fold_batch_norm
from scotoma.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "PYTHON",
    "Code",
    "CompressedModel",
    "is_compressed",
    "load_compressed",
    "read_compressed",
    "stored_names",
    "write_compressed",
]

PYTHON = "python"
"""Family of blueprints that only name a user's own network."""

Code = Callable[[], "nn.Module"]

_MAGIC = b"SCMP"
_VERSION = 1
_HEAD = struct.Struct(">4sBI")
_CHECK = 4  # bytes
_MOST = 1 << 28  # parameters: a small file could describe any number of zeros
_LONGEST = 1 << 24  # bytes of header, unpacked


@dataclass(frozen=True, eq=False)
class CompressedModel:
    """What a compressed model's file holds.

    Args:
        blueprint: Of the network before its BatchNorms were folded.
        preprocessing: How pictures are read.
        classes: Name of each logit, where known.
        is_folded: Whether the weights are those of the folded network.
        parameters: How many numbers the tensors hold.
        tensors: By the network's own names; those that a file need not hold are absent.
    """

    blueprint: Blueprint
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    is_folded: bool
    parameters: int
    tensors: Mapping[str, CompressedTensor] = field(repr=False)

    def build(self, code: Code | None = None) -> nn.Module:
        """Return the network with its weights, ready to be asked.

        Args:
            code: Builds the untrained network where the blueprint names a user's own.

        Raises:
            ModelError: This version of the libraries builds another network.
        """
        network = _skeleton(
            self.blueprint, self.preprocessing, self.is_folded, self.parameters, code
        )
        weights = {name: tensor.values() for name, tensor in self.tensors.items()}
        _check_names(stored_names(network), weights)
        network.load_state_dict(weights, strict=False)
        return network.eval().requires_grad_(False)


def write_compressed(path: Path, model: CompressedModel) -> int:
    """Write a compressed model in one step, and return the file's size in bytes.

    Raises:
        FileError: It cannot be written.
        ModelError: A description that JSON cannot hold.
        MissingExtraError: constriction is not installed.
    """
    header = {
        "blueprint": model.blueprint.to_config(),
        "classes": None if model.classes is None else list(model.classes),
        "folded": model.is_folded,
        "parameters": model.parameters,
        "preprocessing": model.preprocessing.to_config(),
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    packed = zlib.compress(text, 9)
    data = _HEAD.pack(_MAGIC, _VERSION, len(packed)) + packed + write_tensors(model.tensors)
    data += zlib.crc32(data).to_bytes(_CHECK, "big")
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise FileError(
            f"expected to write {path}, got: {error}; check its folder, permissions and free space"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return len(data)


def is_compressed(path: Path) -> bool:
    """Return whether a file begins as a compressed model does.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise ModelError(f"expected a compressed model at {path}, got: {error}") from error


def read_compressed(path: Path, code: Code | None = None) -> CompressedModel:
    """Return what a compressed model's file holds.

    Args:
        path: The file.
        code: Builds the untrained network where the file names a user's own.

    Raises:
        ModelError: Missing, damaged, of another kind or a newer version, or a network that this
            version of the libraries builds otherwise.
        MissingExtraError: constriction is not installed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"expected a compressed model at {path}, got: {error}") from error
    header, stream = _open(path, data)
    try:
        classes = header["classes"]
        described: dict[str, Any] = {
            "blueprint": Blueprint.from_config(header["blueprint"]),
            "preprocessing": Preprocessing.from_config(header["preprocessing"]),
            "classes": None if classes is None else tuple(str(name) for name in classes),
            "is_folded": bool(header["folded"]),
            "parameters": int(header["parameters"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the header of {path} is damaged: {error!r}") from error
    network = _skeleton(
        described["blueprint"],
        described["preprocessing"],
        described["is_folded"],
        described["parameters"],
        code,
    )
    own = network.state_dict()
    shapes = {name: tuple(own[name].shape) for name in stored_names(network)}
    try:
        tensors = read_tensors(stream, shapes)
    except CodingError as error:
        raise ModelError(f"the weights in {path} are damaged: {error}") from error
    return CompressedModel(**described, tensors=tensors)


def load_compressed(spec: str, target: str, device: str, *, code: Code | None = None) -> Classifier:
    """Return the classifier in a file that ``scotoma compress`` wrote.

    Args:
        spec: As the user named it.
        target: ``FILE``, or ``FILE@CODE.py:NAME`` for a network of the user's own: a function
            or class in ``CODE.py`` that builds it without arguments.
        device: Where the network is put.
        code: Builds the untrained network, instead of ``CODE.py:NAME``.

    Raises:
        ModelError: As :func:`read_compressed` says.
        MissingExtraError: constriction is not installed.

    Security:
        A file runs no code. ``CODE.py`` is run, because the user names it.
    """
    file, _, named = target.partition("@")
    path = Path(file).expanduser()
    code = _code_of(named) if named else code
    model = read_compressed(path, code)
    return assemble(
        spec,
        file_label(path),
        freeze(model.build(code), device),
        model.preprocessing,
        {} if model.classes is None else {"classes": model.classes},
        differentiable=True,
        device=device,
        blueprint=None if model.is_folded else model.blueprint,
    )


def stored_names(network: nn.Module) -> list[str]:
    """Return the names of the tensors that a file holds of a network: all real numbers."""
    return [n for n, value in network.state_dict().items() if value.is_floating_point()]


def _open(path: Path, data: bytes) -> tuple[Mapping[str, Any], bytes]:
    """Return header and coded integers of a whole file."""
    if data[: len(_MAGIC)] != _MAGIC:
        raise ModelError(f"{path} is no compressed model; make one with: scotoma compress")
    if len(data) < _HEAD.size + _CHECK:
        raise ModelError(f"expected a whole compressed model in {path}, got {len(data)} bytes")
    _, version, length = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise ModelError(f"expected version {_VERSION} in {path}, got {version}; update scotoma")
    body, check = data[:-_CHECK], data[-_CHECK:]
    if zlib.crc32(body).to_bytes(_CHECK, "big") != check:
        raise ModelError(f"{path} is damaged or cut off (its checksum differs); fetch it again")
    packed, stream = body[_HEAD.size : _HEAD.size + length], body[_HEAD.size + length :]
    try:
        header = json.loads(zlib.decompressobj().decompress(packed, _LONGEST))
    except (ValueError, RecursionError, zlib.error) as error:
        raise ModelError(f"the header of {path} is damaged: {error!r}") from error
    if not isinstance(header, dict):
        raise ModelError(f"the header of {path} is damaged: it is no object")
    return header, stream


def _code_of(named: str) -> Code:
    """Return what makes the network of ``CODE.py:NAME``, be it one or something that makes one."""
    file, _, name = named.rpartition(":")
    path = Path(file).expanduser()
    if not (file and path.is_file()):
        raise ModelError(f"expected compressed:FILE@CODE.py:NAME with a file, got {named!r}")
    described = spec_from_file_location(path.stem, path)
    if described is None or described.loader is None:
        raise ModelError(f"expected a Python file at {path}; name one that ends in .py")
    module = module_from_spec(described)
    try:
        described.loader.exec_module(module)
        found: Any = getattr(module, name)
    except Exception as error:  # whatever the user's own code raises
        raise ModelError(f"expected {name!r} in {path}, got {error!r}") from error
    is_made = hasattr(found, "state_dict") and not isinstance(found, type)
    return (lambda: found) if is_made else found


def _skeleton(
    blueprint: Blueprint,
    preprocessing: Preprocessing,
    is_folded: bool,
    parameters: int,
    code: Code | None,
) -> nn.Module:
    """Return the network that the weights belong to, with whatever weights it is built with."""
    import torch

    if not 0 < parameters <= _MOST:
        raise ModelError(f"expected a network of 1 to {_MOST:,} parameters, got {parameters:,}")
    if blueprint.family == PYTHON:
        if code is None:
            raise ModelError(
                f"expected the code of {blueprint.architecture}, which a file never runs by "
                "itself; write compressed:FILE@CODE.py:NAME"
            )
        network = code().eval().requires_grad_(False)
    else:
        # What is folded away, or registered twice, is built all the same.
        network = blueprint.build(most=2 * parameters + 1_000_000)
    if not is_folded:
        return network
    folded = fold_batch_norm(network, torch.zeros(1, *preprocessing.input_size))
    if folded is network:
        raise ModelError(
            f"expected BatchNorms to fold in {blueprint.architecture}, found none; install the "
            "versions of torch and timm that the model was compressed with"
        )
    return folded


def _check_names(expected: list[str], weights: Mapping[str, Tensor]) -> None:
    wrong = sorted(set(expected) ^ weights.keys())
    if wrong:
        raise ModelError(
            f"expected the tensors of the network that was compressed, got {len(wrong)} others "
            f"(as {wrong[0]!r}); install the versions of torch and timm that it was made with"
        )
