"""Decisions on encrypted pictures: of trained models, from release files read back.

Every picture is encrypted, encoded as a file's content, decoded, and given to the adapted
model. The same model is also asked about releases made under another key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.cifar_resnet import load_cifar_resnet
from benchmarks.figures import rate
from benchmarks.page import percent, table
from benchmarks.pictures import MODELS, SPECS, imagenet, pick
from benchmarks.record import Benchmark, Job, Measured, Options, Row

if TYPE_CHECKING:
    from scotoma.core.keys import Key
    from scotoma.models.classifier import Classifier
    from scotoma.protections.encrypt.encryption import Encryption
    from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = ["BENCHMARK"]

CIFAR = ("embedded", "cifar10_resnet20", "cifar10_resnet32", "cifar10_resnet56")
CIFAR_TEST = MODELS.parent / "data" / "cifar10" / "test.zip"
ENCODINGS = (("safetensors", "float32"), ("safetensors", "float16"), ("png", ""))
CASES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("mobilenetv2", (8, 16)),
    ("squeezenet1_1", (8, 16)),
    ("mobilenetv1_075", (16,)),
    ("mobilenetv1_050", (16,)),
    ("embedded", (4, 8)),
    ("cifar10_resnet20", (4, 8)),
    ("cifar10_resnet32", (4,)),
    ("cifar10_resnet56", (4,)),
)
"""Model, block sides."""
SCHEMES: tuple[dict[str, Any], ...] = (
    {"scheme": "orthogonal"},
    {"scheme": "permute"},
    {"scheme": "orthogonal-per-block", "period": (2, 2)},
)
_BATCH = 16


def _jobs(options: Options) -> Iterator[Job]:
    for model, blocks in CASES:
        for block in blocks:
            for scheme in SCHEMES:
                config = {
                    "model": model,
                    "pictures": "cifar10/test" if model in CIFAR else "imagenet",
                    "subset": options.count(_count(model, scheme["scheme"]), 8),
                    "block": block,
                    **{k: list(v) if isinstance(v, tuple) else v for k, v in scheme.items()},
                    "seed": options.seed,
                }
                what = f"decisions on releases: {model}, {scheme['scheme']}, blocks of {block}"
                yield Job(what, config, partial(_measure, config, scheme))


def _count(model: str, scheme: str) -> int:
    if model in CIFAR:
        return 1000
    return 846 if scheme == "orthogonal" else 200  # all of them, where the maps are the paper's


def _measure(config: dict[str, Any], scheme: dict[str, Any]) -> Measured:
    from scotoma.core.keys import Key
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings

    model = _open_model(config["model"])
    inputs = _read(model, config)
    settings = EncryptSettings(block=config["block"], **scheme)
    protection = open_protection(settings, model.preprocessing)
    keys = [Key.from_bytes(bytes([config["seed"], place]) * 16) for place in (1, 2)]
    network = model.network
    if not isinstance(network, nn.Module):
        raise TypeError(f"expected a torch model, got {model.spec}")
    adapted = protection.adapt(network, keys[0])
    plain = _logits(network, inputs)
    scale = float((plain - plain.mean(1, keepdim=True)).abs().max())
    before = plain.argmax(1)
    values: dict[str, Any] = {}
    for format_, dtype in ENCODINGS:
        name = f"{format_} {dtype}".strip()
        logits = _logits(adapted, inputs, partial(_sent, protection, keys[0], format_, dtype))
        values[name] = {
            "changed": rate(int((logits.argmax(1) != before).sum()), len(before)),
            "difference": float((logits - plain).abs().max()) / scale,
        }
    wrong = _logits(adapted, inputs, lambda batch: protection.protect(batch, keys[1]).data)
    said = wrong.argmax(1)
    values["wrong_key"] = {
        "kept": rate(int((said == before).sum()), len(before)),
        # What answering with one's commonest class alone would agree on.
        "chance": rate(int((before == said.mode().values).sum()), len(before)),
        "classes": plain.shape[1],
    }
    return Measured(len(before), values)


def _open_model(name: str) -> Classifier:
    from scotoma.models.spec import load_classifier

    if name.startswith("cifar10_resnet"):
        return load_cifar_resnet(name)
    return load_classifier(SPECS.get(name, name))


def _read(model: Classifier, config: dict[str, Any]) -> Tensor:
    """Return what the model reads of the pictures."""
    from PIL import Image

    from scotoma.images.read import read_picture
    from scotoma.train.data import load_class_folders, normalize

    if config["model"] not in CIFAR:
        paths = pick(imagenet(), config["subset"], seed=config["seed"])
        return torch.stack([model.read(Image.fromarray(read_picture(p).pixels)) for p in paths])
    images = load_class_folders(CIFAR_TEST, model.preprocessing).images
    generator = torch.Generator().manual_seed(config["seed"])
    chosen = torch.randperm(len(images), generator=generator)[: config["subset"]]
    return normalize(images[chosen], model.preprocessing).contiguous()


def _sent(protection: Encryption, key: Key, format_: str, dtype: str, batch: Tensor) -> Tensor:
    """Return the batch as the other side reads it: one file per picture, written and read."""
    from scotoma.images.ciphertext import CipherEncoding, decode_release, encode_release
    from scotoma.run.scaling import scaling_for

    settings: EncryptSettings = protection.settings
    if protection.preprocessing is None:
        raise TypeError("expected a protection that knows the preprocessing")
    scaling = scaling_for(settings, protection.preprocessing)
    encoding = CipherEncoding(format_, dtype or "float32", scaling)
    files = [
        encode_release(protection.protect(image[None], key), encoding, key=key) for image in batch
    ]
    return torch.cat([decode_release(file, name="release").data for file in files])


def _logits(network: nn.Module, inputs: Tensor, send: Any = None) -> Tensor:
    parts = []
    with torch.no_grad():
        for batch in torch.split(inputs, _BATCH):
            parts.append(network(batch if send is None else send(batch)))
    return torch.cat(parts)


def _render(rows: Sequence[Row]) -> str:
    head = ["model, scheme, block", "n"]
    head += [f"changed: {format_} {dtype}".strip() for format_, dtype in ENCODINGS]
    head += ["largest change of a logit", "kept under a wrong key", "by chance"]
    lines = []
    for row in rows:
        config, values = row["config"], row["values"]
        names = [f"{format_} {dtype}".strip() for format_, dtype in ENCODINGS]
        lines.append(
            [
                f"{config['model']}, {config['scheme']}, {config['block']}",
                str(row["n"]),
                *(percent(values[name]["changed"], interval=False) for name in names),
                f"{values[names[0]]['difference']:.1e}",
                percent(values["wrong_key"]["kept"], interval=False),
                percent(values["wrong_key"]["chance"], interval=False),
            ]
        )
    return "\n".join(
        [
            "## Encryption: decisions",
            "",
            "Decisions of the adapted model on releases, each written as a file and read back, "
            "against the plain model's on the pictures. The largest change of a logit is of "
            "float32 files, relative to the largest centred logit. *Wrong key*: the releases are "
            "made under another key than the model; *by chance*: how many decisions the class that "
            "the model then names most often would get right. `orthogonal-per-block` "
            "repeats its maps every 2 blocks. Goals: 0 changed in float32, "
            "a wrong key near chance.",
            "",
            table(head, lines),
        ]
    )


BENCHMARK = Benchmark("encryption", _jobs, _render)
