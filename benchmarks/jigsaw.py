"""Patches that changed places: how many are put back beside their neighbours, and how fast.

Two kinds of pictures: those that were stored at their size, whose compression smooths colour
across the borders of patches, and photographs scaled down, whose borders are as sharp as they
can be. The second are the harder ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from benchmarks.page import number, table
from benchmarks.pictures import imagenet, pick, validation
from benchmarks.record import Benchmark, Job, Measured, Options, Row

if TYPE_CHECKING:
    from scotoma.core.protocols import Release

__all__ = ["BENCHMARK"]

SIDE = 224
KINDS = ("stored", "scaled")
BLOCKS = (56, 32, 28, 16, 8)
POOLED = (1, 2, 5, 10, 40)
STEPS = 240
DEFENCES = ("none", "offset", "mirrored", "rim", "both")
_COUNT = 100
_OFFSET = 0.15
_LEARNED_FROM = 106


def _jobs(options: Options) -> Iterator[Job]:
    for kind in KINDS:
        for block in BLOCKS:
            for how in ("mgc", "ssd", "prediction", "greedy ssd"):
                if block == 8 and how != "mgc":
                    continue  # 784 patches take long, and the best shows enough
                slow = block == 16 and how in ("ssd", "prediction")
                count = 6 if block == 8 else 40 if slow else _COUNT
                config = {"row": "order", "kind": kind, "block": block, "how": how}
                yield _job(options, config, count, _measure_orders, f"{how}, patches of {block}")
    learned = {"row": "learned", "kind": "scaled", "block": 16, "steps": STEPS}
    yield _job(options, learned, 40, _measure_learned, "borders judged by a network")
    for count in POOLED:
        for block, inner in ((16, "none"), (16, "permute"), (16, "orthogonal")):
            pooled = {"row": "pooled", "kind": "scaled", "block": block, "inner": inner}
            pooled["pool"] = count
            runs = max(1, min(10, 90 // count))
            yield _job(options, pooled, runs, _measure_pooled, f"{count} under one key, {inner}")
    for defence in DEFENCES:
        hardened = {"row": "defence", "kind": "scaled", "block": 16, "defence": defence}
        yield _job(options, hardened, 40, _measure_orders, f"patches with {defence}")
    yield _job(
        options, {"row": "unmix", "kind": "scaled", "block": 16}, 90, _measure_unmix, "unmix"
    )


def _job(
    options: Options,
    config: dict[str, Any],
    count: int,
    measure: Callable[[dict[str, Any]], Measured],
    what: str,
) -> Job:
    config = {**config, "count": options.count(count, 2), "seed": options.seed}
    if options.quick and "steps" in config:
        config["steps"] = 2
    return Job(f"jigsaw, {config['kind']} pictures: {what}", config, partial(measure, config))


def _measure_orders(config: dict[str, Any]) -> Measured:
    from scotoma.attacks.jigsaw.assembly import greedy
    from scotoma.attacks.jigsaw.jigsaw import Jigsaw, border_evidence
    from scotoma.attacks.jigsaw.puzzle import Puzzle, open_puzzle

    pictures = _read(config["kind"], config["count"], config["seed"])
    how = config.get("how", "mgc")

    def arrange(puzzle: Puzzle, generator: Generator) -> Tensor:
        if how == "greedy ssd":
            orders = [greedy(border_evidence(one, "ssd"), puzzle.grid) for one in puzzle.pieces]
            return torch.stack(orders)
        return Jigsaw(cost=how).arrange(puzzle, generator=generator)

    release = _shuffled(pictures, config)
    began = time.perf_counter(), time.process_time()
    puzzle = open_puzzle(_defended(release, config.get("defence", "none"), config["seed"]))
    orders = arrange(puzzle, _drawn(config["seed"]))
    spent = time.perf_counter() - began[0], time.process_time() - began[1]
    values = _judged(orders, release, pictures, config)
    values["seconds"], values["cpu_seconds"] = (round(one / len(pictures), 3) for one in spent)
    return Measured(len(pictures), values)


def _measure_learned(config: dict[str, Any]) -> Measured:
    from dataclasses import asdict, replace

    from scotoma.attacks.jigsaw.jigsaw import Jigsaw
    from scotoma.attacks.jigsaw.learned import JigsawLearned
    from scotoma.attacks.jigsaw.puzzle import open_puzzle
    from scotoma.core.protocols import Knowledge
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings

    everything = _read(config["kind"], config["count"] + _LEARNED_FROM, config["seed"])
    pictures, auxiliary = (
        everything[: config["count"]],
        everything[config["count"] :],
    )
    protection = open_protection(EncryptSettings("shuffle", block=config["block"]))
    knowledge = Knowledge(
        auxiliary=auxiliary,
        simulate=lambda batch, generator: protection.protect(batch, generator=generator),
    )
    attack = JigsawLearned(steps=config["steps"])
    fitted = attack.fit(knowledge, generator=_drawn(config["seed"]))
    release = _shuffled(pictures, config)
    puzzle = open_puzzle(release)
    values: dict[str, Any] = {
        "curve": [asdict(look) for look in fitted.history],
        "notes": list(fitted.notes),
    }
    for name, solver in (
        ("hand-made", Jigsaw()),
        ("borders", replace(fitted, places=0.0)),
        ("borders and places", fitted),
    ):
        orders = solver.arrange(puzzle, generator=_drawn(config["seed"]))
        values[name] = _judged(orders, release, pictures, config)
    return Measured(len(pictures), values)


def _measure_pooled(config: dict[str, Any]) -> Measured:
    from scotoma.attacks.jigsaw.hidden_order import HiddenOrder
    from scotoma.attacks.jigsaw.jigsaw import Jigsaw
    from scotoma.attacks.jigsaw.puzzle import open_puzzle
    from scotoma.core.keys import Key
    from scotoma.evaluate.intervals import mean_interval
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings

    block, inner, pool = config["block"], config["inner"], config["pool"]
    protection = open_protection(EncryptSettings("block-shuffle", block=block, inner=inner))
    pictures = _read(config["kind"], config["count"] * pool, config["seed"])
    shares = []
    for run, part in enumerate(torch.split(pictures, pool)):
        key = Key.from_bytes(bytes([config["seed"], run]) * 16)
        release = protection.protect(part, key)
        truth = protection.derive_maps(key, (3, SIDE, SIDE)).order
        if truth is None:
            raise TypeError("expected maps that move blocks")
        if inner == "none":
            puzzle = open_puzzle(release)
            order = Jigsaw().arrange(puzzle, generator=_drawn(config["seed"]))[0]
        else:
            order = HiddenOrder().arrange(release)
        shares.append(_beside(order, truth))
    return Measured(len(shares), {"beside": list(mean_interval(shares)), "chance": _chance(block)})


def _measure_unmix(config: dict[str, Any]) -> Measured:
    import torch.nn.functional as F

    from scotoma.attacks.jigsaw.mixing import PatchMeans, Unmix
    from scotoma.core.protocols import Knowledge
    from scotoma.evaluate.intervals import mean_interval
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings

    everything = _read(config["kind"], config["count"] + _LEARNED_FROM, config["seed"])
    pictures, auxiliary = (
        everything[: config["count"]],
        everything[config["count"] :],
    )
    protection = open_protection(EncryptSettings("mix", block=config["block"]))
    release = protection.protect(pictures)
    knowledge = Knowledge(
        auxiliary=auxiliary,
        simulate=lambda batch, generator: protection.protect(batch),  # noqa: ARG005
    )
    generator = _drawn(config["seed"])
    began = time.process_time()
    fitted = Unmix().fit(knowledge, generator=generator)
    values: dict[str, Any] = {"fit_cpu_seconds": round(time.process_time() - began, 2)}
    size = (SIDE, SIDE)
    guesses = {
        "enlarged": F.interpolate(release.data, size, mode="bilinear").clamp(0, 1),
        "patch-means": PatchMeans().run(release, Knowledge(), generator=generator),
        "unmix": fitted.run(release, Knowledge(), generator=generator),
    }
    for name, guess in guesses.items():
        errors = (guess - pictures).square().flatten(1).mean(1)
        values[name] = {
            "psnr_db": list(mean_interval((-10 * errors.log10()).tolist())),
            "ssim": list(mean_interval(_ssim(guess, pictures))),
        }
    small = [F.avg_pool2d(one, config["block"]).flatten() for one in (guess, pictures)]
    means = F.avg_pool2d(guesses["patch-means"], config["block"]).flatten()
    values["thumbnail"] = float(torch.corrcoef(torch.stack([means, small[1]]))[0, 1])
    return Measured(len(pictures), values)


def _ssim(guesses: Tensor, pictures: Tensor) -> list[float]:
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    found = ssim(guesses, pictures, data_range=1.0, reduction="none")
    if not isinstance(found, Tensor):
        raise TypeError("expected one value per picture")
    values: list[float] = found.tolist()
    return values


def _shuffled(pictures: Tensor, config: dict[str, Any]) -> Release:
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings

    protection = open_protection(EncryptSettings("shuffle", block=config["block"]))
    return protection.protect(pictures, generator=_drawn(config["seed"] + 1))


def _defended(release: Release, defence: str, seed: int) -> Release:
    """Return the release with something done to each patch, which the attack knows nothing of."""
    from scotoma.core.protocols import Release
    from scotoma.ops.blocks import from_blocks, to_blocks

    block = release.metadata["settings"]["block"]
    data, generator = release.data, _drawn(seed + 2)
    patches = to_blocks(data, block)
    count, _, rows, columns = patches.shape
    if defence in ("offset", "both"):
        drawn = torch.rand(count, 1, rows, columns, generator=generator)
        patches = patches + _OFFSET * (2 * drawn - 1)
    tiles = patches.view(count, 3, block, block, rows, columns)
    if defence in ("mirrored", "both"):
        for axis in (2, 3):
            turned = torch.rand(count, 1, 1, 1, rows, columns, generator=generator) < 0.5
            tiles = torch.where(turned, tiles.flip(axis), tiles)
    if defence == "rim":
        inner = tiles[:, :, 1:-1, 1:-1]
        rim = inner.mean((2, 3), keepdim=True).expand_as(tiles).clone()
        rim[:, :, 1:-1, 1:-1] = inner
        tiles = rim
    return Release(from_blocks(tiles.reshape(patches.shape), block), release.metadata)


def _judged(
    orders: Tensor, release: Release, pictures: Tensor, config: dict[str, Any]
) -> dict[str, Any]:
    from scotoma.attacks.jigsaw.puzzle import open_puzzle
    from scotoma.evaluate.intervals import mean_interval
    from scotoma.evaluate.metrics.jigsaw import neighbour_accuracy

    guesses = open_puzzle(release).lay(orders)
    shares = neighbour_accuracy(guesses, pictures, {"block": config["block"]}).tolist()
    whole = sum(
        float((one - two).abs().max()) < 1e-3 for one, two in zip(guesses, pictures, strict=True)
    )
    return {"right": list(mean_interval(shares)), "whole": whole / len(pictures)}


def _beside(order: Tensor, truth: Tensor) -> float:
    """Return the share of neighbours that were neighbours, whatever the frame's mirror image."""
    places = truth[order]
    ys, xs = places // order.shape[1], places % order.shape[1]
    apart = [(ys.diff(dim=axis).abs() + xs.diff(dim=axis).abs()).flatten() for axis in (0, 1)]
    return float((torch.cat(apart) == 1).double().mean())


def _chance(block: int) -> float:
    side = SIDE // block
    return 4 * side * (side - 1) / (side**2 * (side**2 - 1))


def _read(kind: str, count: int, seed: int) -> Tensor:
    """Return pictures of 224 pixels in [0, 1]."""
    from PIL import Image
    from torchvision.transforms import functional as transforms

    stored = validation()
    paths = stored if kind == "stored" else [path for path in imagenet() if path not in set(stored)]
    pictures = []
    for path in pick(paths, count, seed=seed):
        picture = Image.open(path).convert("RGB")
        if kind == "scaled":
            shrunk = transforms.resize(picture, 256, transforms.InterpolationMode.BICUBIC)
            picture = transforms.center_crop(shrunk, [SIDE, SIDE])
        else:
            picture = transforms.center_crop(picture, [SIDE, SIDE])
        pictures.append(transforms.to_tensor(picture))
    return torch.stack(pictures)


def _drawn(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _render(rows: Sequence[Row]) -> str:
    parts = ["## Jigsaw\n", (__doc__ or "").partition("\n\n")[2]]
    orders = [row for row in rows if row["config"]["row"] == "order"]
    if orders:
        parts.append(_render_orders(orders))
    for row in rows:
        if row["config"]["row"] == "learned":
            parts.append(_render_learned(row))
    pooled = [row for row in rows if row["config"]["row"] == "pooled"]
    if pooled:
        head = ["pictures under one key", "patch", "inside", "neighbours kept together", "chance"]
        parts.append(table(head, (_pooled_cells(row) for row in pooled)))
    defended = [row for row in rows if row["config"]["row"] == "defence"]
    if defended:
        parts.append("What would hurt an attack that knows nothing of it, 14×14 patches:\n")
        cells = ([row["config"]["defence"], _share(row["values"]["right"])] for row in defended)
        parts.append(table(["to each patch", "neighbours right"], cells))
    for row in rows:
        if row["config"]["row"] == "unmix":
            parts.append(_render_unmix(row))
    return "\n".join(parts)


def _render_orders(rows: Sequence[Row]) -> str:
    cells = []
    for row in rows:
        config, values = row["config"], row["values"]
        side = SIDE // config["block"]
        cells.append(
            [
                f"{side}×{side}, {config['kind']}, {config['how']}",
                _share(values["right"]),
                f"{100 * values['whole']:.0f} %",
                number(values["cpu_seconds"], 2),
                str(row["n"]),
            ]
        )
    head = ["patches, pictures, cost", "neighbours right", "whole pictures", "CPU s", "n"]
    return table(head, cells)


def _render_learned(row: Row) -> str:
    values = row["values"]
    cells = [
        [str(look["step"]), f"{look['loss']:.4f}", f"{100 * look['first']:.2f} %"]
        for look in values["curve"]
    ]
    judges = ("hand-made", "borders", "borders and places")
    rights = [[name, _share(values[name]["right"])] for name in judges]
    curve = table(["steps", "loss", "true neighbour first"], cells)
    return "\n".join([curve, table(["14×14, judged by", "neighbours right"], rights)])


def _pooled_cells(row: Row) -> list[str]:
    config, values = row["config"], row["values"]
    return [
        str(config["pool"]),
        str(config["block"]),
        config["inner"],
        _share(values["beside"]),
        f"{100 * values['chance']:.1f} %",
    ]


def _render_unmix(row: Row) -> str:
    values = row["values"]
    cells = [
        [name, number(values[name]["psnr_db"][0], 2), number(values[name]["ssim"][0], 3)]
        for name in ("enlarged", "patch-means", "unmix")
    ]
    text = table(["mixed, 16-pixel patches", "PSNR dB", "SSIM"], cells)
    return text + f"\nThe thumbnail's correlation with the true one is {values['thumbnail']:.3f}.\n"


def _share(interval: Sequence[float]) -> str:
    mean, low, high = interval
    return f"{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


BENCHMARK = Benchmark("jigsaw", _jobs, _render)
