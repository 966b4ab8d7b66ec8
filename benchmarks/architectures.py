"""Which of timm's architectures can be adapted, and how exactly: every entry of its list.

Random weights decide exactness as well as trained ones do, so nothing is downloaded. Each model
is built, adapted and run in a process of its own, which gives its memory back and whose end, if
the machine ends it, is a row too.
"""

from __future__ import annotations

import gc
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import TYPE_CHECKING, Any

from benchmarks.architectures_page import render
from benchmarks.record import Benchmark, Job, Measured, Options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from scotoma.models.stems import Stem

__all__ = ["BENCHMARK", "examine"]

_PICTURES = 2
_LARGE = 300e6  # weights: such networks are asked about one picture, which takes minutes enough
_BLOCK = 16
_MOST_GB = 12
_GOAL = 1e-4
_QUICK = (
    "resnet18",
    "mobilenetv2_035",
    "tf_efficientnet_b0",
    "vgg11",
    "legacy_xception",
    "inception_v3",
    "nf_regnet_b0",
    "mobileone_s0",
    "test_vit",
    "swin_tiny_patch4_window7_224",
    "convnext_atto_ols",
    "tresnet_m",
    "crossvit_tiny_240",
    "naflexvit_base_patch16_gap",
    "csatv2",
    "pit_ti_224",
)


def _jobs(options: Options) -> Iterator[Job]:
    import timm

    for name in _QUICK if options.quick else timm.list_models():
        config = {
            "model": name,
            "pictures": _PICTURES,
            "block": f"the patch, else {_BLOCK} or the next that fits",
            "maps": "one orthogonal",
            "most_gb": _MOST_GB,
            "seed": options.seed,
        }
        yield Job(name, config, partial(_measure, config))


def _measure(config: Mapping[str, Any]) -> Measured:
    name, context = config["model"], _context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, name, config["seed"]))
    process.start()
    sender.close()
    try:
        values = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"{name}: its process ended with {process.exitcode}") from None
        values = {
            "family": _family(name),
            "adapts": None,
            "reason": "the machine ended the process, which needed more memory than there is",
        }
    process.join()
    return Measured(values.pop("pictures", _PICTURES), values)


def _report(sender: Connection, name: str, seed: int) -> None:
    sender.send(examine(name, seed=seed))


@cache
def _context() -> ForkServerContext:
    """Return what makes processes that have loaded the libraries already."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "timm", "scotoma.models.block_stem"])
    return context


def examine(name: str, *, seed: int) -> dict[str, Any]:
    """Return the row's values for one model."""
    import torch

    from benchmarks.random_models import (
        build_model,
        calibrate,
        fill_randomly,
        random_pictures,
        weight_bytes,
    )
    from scotoma.core.errors import UnsupportedModelError
    from scotoma.models.stems import find_stems

    values: dict[str, Any] = {"family": _family(name)}
    try:
        model = build_model(name)
    except Exception as error:  # whatever a model's own code raises is the row's reason
        return {**values, "adapts": None, "reason": f"timm does not build it: {_said(error)}"}
    values["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    size = weight_bytes(model)
    if size > _MOST_GB * 1e9:
        reason = f"weights of {size / 1e9:.1f} GB are more than the {_MOST_GB} GB set for this run"
        return {**values, "adapts": None, "reason": reason}
    fill_randomly(model, seed=seed)
    values["input_size"] = _input_size(model)
    try:
        stems = find_stems(model, values["input_size"])
        block = _block_for(stems)
    except UnsupportedModelError as error:
        return {**values, "adapts": False, "reason": str(error)}
    values |= {**_described(stems), "block": block}
    generator = torch.Generator().manual_seed(seed)
    try:
        calibrate(model, random_pictures(_PICTURES, values["input_size"], generator))
        images = random_pictures(_PICTURES, values["input_size"], generator)
        if values["parameters"] > _LARGE:
            images = images[:1]
        values["pictures"] = len(images)
        return values | _compare(model, images, block, seed)
    except UnsupportedModelError as error:
        return {**values, "adapts": False, "reason": str(error)}
    except Exception as error:  # a fault of ours or the model's: the table shows it
        return {**values, "adapts": False, "reason": _said(error)}


def _compare(model: nn.Module, images: Tensor, block: int, seed: int) -> dict[str, Any]:
    """Adapt a model and compare its answers with the plain one's."""
    import torch

    plain, plain_seconds = _answers(model, images)
    if not bool(torch.isfinite(plain).all()) or not _scale(plain) > 0:
        return {"adapts": None, "reason": "random weights make its answers constant or infinite"}
    forward = _orthogonal(3 * block**2, seed)
    begun = time.perf_counter()
    adapted = _adapt(model, images, block, forward)
    seconds = time.perf_counter() - begun
    answers, adapted_seconds = _answers(adapted, _encrypt(images, forward, block))
    values = {
        "adapts": True,
        **_distances(answers, plain),
        "seconds_adapting": round(seconds, 3),
        "seconds_plain": round(plain_seconds, 3),
        "seconds_adapted": round(adapted_seconds, 3),
    }
    if not values["error"] <= _GOAL:
        del adapted
        gc.collect()
        # Whether that is rounding: once with inputs one rounding apart, once with hardly any.
        ends = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)) * math.inf
        nudged, _ = _answers(model, torch.nextafter(images, ends))
        values["error_rounding"] = _distances(nudged, plain)["error"]
        values["error_double"] = _error_in_double(model, images, block, forward)
    return values


def _adapt(model: nn.Module, images: Tensor, block: int, forward: Tensor) -> nn.Module:
    from scotoma.models.block_stem import adapt_stems

    _, channels, height, width = images.shape
    return adapt_stems(model, (channels, height, width), block, forward.T[None, None])


def _described(stems: Sequence[Stem]) -> dict[str, Any]:
    if all(stem.is_patch for stem in stems):
        kind = "linear patches" if stems[0].operation == "linear" else "patches"
    else:
        kind = "overlapping" if max(len(stems), 1) == 1 else f"{len(stems)} branches"
    widest = max(stems, key=lambda stem: math.prod(stem.kernel))
    return {
        "stem": kind,
        "modules": [stem.module for stem in stems],
        "kernel": list(widest.kernel),
        "stride": list(widest.stride),
        "padding": list(widest.padding),
    }


def _distances(answers: Tensor, plain: Tensor) -> dict[str, Any]:
    """Compare row by row; contrast says how far apart two pictures' answers are."""
    scale = _scale(plain)
    return {
        "error": float((answers - plain).abs().max()) / scale,
        "contrast": float((plain[0] - plain[-1]).abs().max()) / scale if len(plain) > 1 else None,
        "decisions_changed": int((answers.argmax(1) != plain.argmax(1)).sum()),
        "outputs": plain.shape[1],
    }


def _scale(plain: Tensor) -> float:
    return float((plain - plain.mean(1, keepdim=True)).abs().max())


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _error_in_double(model: nn.Module, images: Tensor, block: int, forward: Tensor) -> float | None:
    """Return the error without rounding to speak of, or none where the model allows no float64."""
    try:
        exact = model.double()
        adapted = _adapt(exact, images, block, forward)
        plain, _ = _answers(exact, images.double())
        answers, _ = _answers(adapted, _encrypt(images.double(), forward, block))
    except RuntimeError:
        return None
    return float(_distances(answers, plain)["error"])


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, float]:
    """Return all that the model returns as one row per picture, and the seconds it took."""
    import torch
    from torch.utils._pytree import tree_leaves

    begun = time.perf_counter()
    with torch.no_grad():
        made = model(images)
    seconds = time.perf_counter() - begun
    rows = [leaf.double().reshape(len(images), -1) for leaf in tree_leaves(made)]
    return torch.cat(rows, 1), seconds


def _encrypt(images: Tensor, forward: Tensor, block: int) -> Tensor:
    import torch.nn.functional as F

    images = F.pad(images, (0, -images.shape[3] % block, 0, -images.shape[2] % block))
    blocks = F.pixel_unshuffle(images, block)
    mixed = (forward.to(images.dtype) @ blocks.flatten(2)).view(blocks.shape)
    return F.pixel_shuffle(mixed, block)


def _orthogonal(size: int, seed: int) -> Tensor:
    """Return a dense random orthogonal matrix in float64 at the cost of writing it.

    A cosine transform between two random permutations and signs: a QR of 3072 columns takes
    minutes where this takes a second, and exactness does not depend on the distribution.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    each = torch.arange(size, dtype=torch.float64)
    cosines = torch.cos(math.pi / size * (each + 0.5)[None, :] * each[:, None])
    cosines *= math.sqrt(2 / size)
    cosines[0] /= math.sqrt(2)
    signs = torch.randint(0, 2, (2, size), generator=generator, dtype=torch.float64) * 2 - 1
    rows, columns = (torch.randperm(size, generator=generator) for _ in range(2))
    return cosines[rows][:, columns] * signs[0][:, None] * signs[1]


def _block_for(stems: Sequence[Stem]) -> int:
    """Return the patch's side, or 16, or the next side that fits."""
    from scotoma.core.errors import UnsupportedModelError
    from scotoma.models.block_stem import valid_blocks

    valid = valid_blocks(stems)
    if not valid:
        raise UnsupportedModelError("no block side up to 64 fits the stems")
    if len(stems) == 1 and stems[0].is_patch and stems[0].kernel[0] in valid:
        return stems[0].kernel[0]
    return next((side for side in valid if side >= _BLOCK), valid[-1])


def _input_size(model: nn.Module) -> tuple[int, int, int]:
    config: Mapping[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    channels, height, width = config.get("input_size") or (3, 224, 224)
    return channels, height, width


def _family(name: str) -> str:
    """Return the name of the file that has the architecture."""
    import timm

    return str(timm.models.model_entrypoint(name).__module__.rpartition(".")[2])


BENCHMARK = Benchmark("architectures", _jobs, render)
