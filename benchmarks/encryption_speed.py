"""What encryption costs: encrypting, reading releases, and adapting a model.

Encrypting stands beside the papers' own way (a loop over blocks), the usual vectorized way
(unfold, matrix product, fold), and what no way can avoid: the bare product of the same size, or
a copy of the memory where values only move. All in turns in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from benchmarks.page import number, table
from benchmarks.record import Benchmark, Job, Measured, Options, Row

__all__ = ["BENCHMARK", "PATCHES"]

SIDE = 224
ENCRYPTIONS: tuple[dict[str, Any], ...] = (
    {"scheme": "orthogonal", "block": 4},
    {"scheme": "orthogonal", "block": 8},
    {"scheme": "orthogonal", "block": 16},
    {"scheme": "orthogonal-per-block", "block": 8, "period": (4, 4)},
    {"scheme": "permute", "block": 16},
    {"scheme": "block-shuffle", "block": 16},
    {"scheme": "shuffle", "block": 16},
    {"scheme": "mix", "block": 16},
)
MIXING = frozenset({"orthogonal", "orthogonal-per-block"})
BATCHES = (1, 16, 64)
READERS = (
    ("vit_tiny_patch16_224", (8, 16)),
    ("convmixer_768_32", (7, 14)),
    ("mixer_s32_224", (16, 32)),
    ("mobilenetv2_100", (4, 8, 16)),
    ("resnet18", (4, 8, 16)),
    ("efficientnet_b0", (4, 8, 16)),
    ("vgg11", (4, 8, 16)),
)
"""timm model, block sides."""
PATCHES = frozenset({"vit_tiny_patch16_224", "convmixer_768_32", "mixer_s32_224"})
"""Those whose first layer cuts patches; the others' overlap."""
ADAPTED = (
    ("mobilenetv2_100", 8),
    ("resnet50", 8),
    ("vit_base_patch16_224", 16),
)
_ROUNDS = 9


def _jobs(options: Options) -> Iterator[Job]:
    for settings in ENCRYPTIONS:
        for batch in BATCHES:
            config = {"kind": "encrypt", "batch": batch, "rounds": _ROUNDS, **_plain(settings)}
            what = (
                f"encrypting: {settings['scheme']}, blocks of {settings['block']}, {batch} at once"
            )
            yield Job(what, config, partial(_measure_encrypting, settings, batch, options))
    for name, blocks in READERS:
        for block in blocks:
            config = {"kind": "read", "model": name, "block": block, "rounds": _ROUNDS, "batch": 4}
            what = f"reading: {name}, blocks of {block}"
            yield Job(what, config, partial(_measure_reading, name, block, options))
    for name, block in ADAPTED:
        config = {"kind": "adapt", "model": name, "block": block, "rounds": _ROUNDS}
        what = f"adapting: {name}, blocks of {block}"
        yield Job(what, config, partial(_measure_adapting, name, block, options))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def _measure_encrypting(settings: dict[str, Any], batch: int, options: Options) -> Measured:
    from scotoma.core.keys import Key
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings

    images = torch.rand(batch, 3, SIDE, SIDE, generator=Generator().manual_seed(options.seed))
    protection = open_protection(EncryptSettings(**settings))
    key = Key.from_bytes(bytes(32)) if protection.keyed else None
    generator = Generator().manual_seed(options.seed) if protection.fresh else None
    block, scheme = settings["block"], settings["scheme"]
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: protection.protect(images, key, generator=generator)
    }
    if scheme in MIXING:
        size = 3 * block * block
        matrix = torch.rand(size, size, generator=Generator().manual_seed(1))
        columns = F.unfold(images, block, stride=block).transpose(0, 1).reshape(size, -1).clone()
        ways["bare product"] = lambda: torch.mm(matrix, columns)
        ways["unfold, product, fold"] = partial(_unfolded, images, matrix, block)
        ways["loop over blocks"] = partial(_looped, images, matrix, block)
    else:
        ways["memory copy"] = images.clone  # into fresh memory, as a release is
    seconds = _race(ways, rounds=3 if options.quick else _ROUNDS)
    floor = seconds.get("bare product", seconds.get("memory copy", 0.0))
    values = {"milliseconds": {k: round(1000 * s, 3) for k, s in seconds.items()}}
    return Measured(batch, {**values, "of_floor": round(floor / seconds["ours"], 3)})


def _unfolded(images: Tensor, matrix: Tensor, block: int) -> Tensor:
    columns = F.unfold(images, block, stride=block)
    return F.fold(matrix @ columns, images.shape[2:], block, stride=block)


def _looped(images: Tensor, matrix: Tensor, block: int) -> Tensor:
    """The way of the papers' figures: each picture, each block, one product."""
    result = torch.empty_like(images)
    for image, target in zip(images, result, strict=True):
        for top in range(0, image.shape[1], block):
            for left in range(0, image.shape[2], block):
                part = (slice(None), slice(top, top + block), slice(left, left + block))
                target[part] = (matrix @ image[part].flatten()).view(-1, block, block)
    return result


def _measure_reading(name: str, block: int, options: Options) -> Measured:
    import timm

    from scotoma.models.block_stem import adapt_stems

    torch.manual_seed(options.seed)
    model = timm.create_model(name, pretrained=False).eval().requires_grad_(False)
    size = (3, SIDE, SIDE)
    inverse = torch.linalg.qr(
        torch.randn(3 * block**2, 3 * block**2, dtype=torch.float64)
    ).Q.T.contiguous()
    adapted = adapt_stems(model, size, block, inverse[None, None])
    images = torch.rand(4, *size, generator=Generator().manual_seed(options.seed))
    with torch.no_grad():
        ways = {"plain": partial(model, images), "adapted": partial(adapted, images)}
        seconds = _race(ways, rounds=3 if options.quick else _ROUNDS)
    return Measured(
        len(images),
        {
            "milliseconds": {k: round(1000 * s / len(images), 3) for k, s in seconds.items()},
            "of_plain": round(seconds["adapted"] / seconds["plain"], 3),
        },
    )


def _measure_adapting(name: str, block: int, options: Options) -> Measured:
    import timm
    from safetensors.torch import load_file, save_file

    from scotoma.core.keys import Key
    from scotoma.models.preprocessing import Preprocessing
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings

    path = options.cache / "weights" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    model = timm.create_model(name, pretrained=False).eval().requires_grad_(False)
    save_file(model.state_dict(), path)
    key = Key.from_bytes(bytes(32))

    def adapt() -> None:
        settings = EncryptSettings("orthogonal", block=block)
        open_protection(settings, Preprocessing()).adapt(model, key)

    def load() -> None:
        timm.create_model(name, pretrained=False).load_state_dict(load_file(path))

    seconds = _race({"adapting": adapt, "loading": load}, rounds=3 if options.quick else _ROUNDS)
    path.unlink()
    return Measured(
        1,
        {
            "milliseconds": {k: round(1000 * s, 1) for k, s in seconds.items()},
            "of_loading": round(seconds["adapting"] / seconds["loading"], 3),
        },
    )


def _race(ways: Mapping[str, Callable[[], Any]], *, rounds: int) -> dict[str, float]:
    """Return the median seconds of each way, measured in turns; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            begun = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return {name: median(times) for name, times in seconds.items()}


def _render(rows: Sequence[Row]) -> str:
    return "\n".join(
        [
            "## Encryption: speed",
            "",
            f"Pictures of {SIDE}×{SIDE}, medians in turns. Goals: encrypting at half the speed of "
            "what cannot be avoided or better; reading within 1.02× of the plain model for patch "
            "embeddings; adapting faster than loading.",
            "",
            _encrypting([row for row in rows if row["config"]["kind"] == "encrypt"]),
            _reading([row for row in rows if row["config"]["kind"] == "read"]),
            _adapting([row for row in rows if row["config"]["kind"] == "adapt"]),
        ]
    )


def _encrypting(rows: Sequence[Row]) -> str:
    head = ["scheme, block, batch", "ours ms", "floor ms", "of the floor's speed"]
    head += ["unfold ms", "loop ms"]
    lines = []
    for row in rows:
        config, values = row["config"], row["values"]
        times = values["milliseconds"]
        floor = "bare product" if "bare product" in times else "memory copy"
        lines.append(
            [
                f"{config['scheme']}, {config['block']}, {config['batch']}",
                number(times["ours"], 2),
                f"{number(times[floor], 2)} ({floor})",
                f"{values['of_floor']:.2f}×",
                *(
                    number(times[way], 2) if way in times else "–"
                    for way in ("unfold, product, fold", "loop over blocks")
                ),
            ]
        )
    return table(head, lines)


def _reading(rows: Sequence[Row]) -> str:
    lines = [
        [
            f"{row['config']['model']}, {row['config']['block']}",
            number(row["values"]["milliseconds"]["plain"], 2),
            number(row["values"]["milliseconds"]["adapted"], 2),
            f"{row['values']['of_plain']:.2f}×",
        ]
        for row in rows
    ]
    return table(["model, block", "plain ms a picture", "adapted ms", "time"], lines)


def _adapting(rows: Sequence[Row]) -> str:
    lines = [
        [
            f"{row['config']['model']}, {row['config']['block']}",
            *(number(ms, 1) for ms in row["values"]["milliseconds"].values()),
            f"{row['values']['of_loading']:.2f}×",
        ]
        for row in rows
    ]
    return table(
        [
            "model, block",
            "adapting ms, key to model",
            "building and loading the weights ms",
            "time",
        ],
        lines,
    )


BENCHMARK = Benchmark("encryption_speed", _jobs, _render)
