"""How many architectures can be cut in two, and whether the parts answer as the whole does.

Random weights decide exactness as well as trained ones do, so nothing is downloaded. Each network
is cut in a process of its own, which gives its memory back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any

from benchmarks.page import table
from benchmarks.record import Benchmark, Job, Measured, Options, Row
from benchmarks.split_models import TIMM, TORCHVISION, TRANSFORMERS, build

if TYPE_CHECKING:
    from torch import Tensor, nn

    from scotoma.models.splits import Splitter

__all__ = ["BENCHMARK", "examine"]

_PICTURES = 2
_POINTS = 4
_LIBRARIES = {"timm": TIMM, "torchvision": TORCHVISION, "transformers": TRANSFORMERS}
_QUICK = {"timm": ("test_resnet", "test_vit"), "torchvision": ("squeezenet1_1",)}


def _jobs(options: Options) -> Iterator[Job]:
    for library, names in (_QUICK if options.quick else _LIBRARIES).items():
        for name in names:
            config = {
                "library": library,
                "model": name,
                "pictures": _PICTURES,
                "points": f"{_POINTS} clean ones, evenly spaced, and one with values carried",
                "seed": options.seed,
            }
            yield Job(f"{library} {name}", config, partial(_measure, config))


def _measure(config: Mapping[str, Any]) -> Measured:
    library, name = config["library"], config["model"]
    with ProcessPoolExecutor(1, mp_context=_context()) as pool:
        try:
            values = pool.submit(examine, library, name, seed=config["seed"]).result()
        except BrokenProcessPool:
            values = {
                "splits": None,
                "reason": "the machine ended the process, which needed more memory than there is",
            }
    return Measured(_PICTURES, values)


@cache
def _context() -> BaseContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "timm", "scotoma.models.splits"])
    return context


def examine(library: str, name: str, *, seed: int) -> dict[str, Any]:
    """Return the row's values for one network."""
    import torch

    from benchmarks.random_models import calibrate, random_pictures
    from scotoma.core.errors import UnsupportedModelError
    from scotoma.models.splits import Splitter

    try:
        network, size = build(library, name, seed=seed)
    except Exception as error:  # whatever a model's own code raises is the row's reason
        return {"splits": None, "reason": f"not built: {type(error).__name__}: {error}"[:300]}
    generator = torch.Generator().manual_seed(seed)
    calibrate(network, random_pictures(_PICTURES, size, generator))
    images = random_pictures(_PICTURES, size, generator)
    begun = time.perf_counter()
    try:
        splitter = Splitter(network, size)
    except UnsupportedModelError as error:
        return {"splits": False, "reason": str(error)}
    seconds = time.perf_counter() - begun
    return {**_compare(network, splitter, images), "seconds_capturing": round(seconds, 1)}


def _compare(network: nn.Module, splitter: Splitter, images: Tensor) -> dict[str, Any]:
    """Cut at several points and compare the parts' answers with the whole's."""
    import torch

    whole = _answers(network, images, one_by_one=splitter.batch is not None)
    clean = [point for point in splitter.points if not point.crossing]
    crossed = [point for point in splitter.points if point.crossing]
    values: dict[str, Any] = {
        "splits": bool(clean),
        "clean": len(clean),
        "crossed": len(crossed),
        "batch": splitter.batch,
        "outputs": whole.shape[1],
        "checked": [],
        "differences": [],
    }
    if not clean:
        values["reason"] = "no value at the end of a module is all that is used later"
    for point in [*_spaced(clean), *crossed[len(crossed) // 2 :][:1]]:
        parts = splitter.cut(point.name, carry=True)
        with torch.no_grad():
            sent = parts.head(images)
        answers = _answers(parts.tail, sent, one_by_one=False)
        values["checked"].append(point.name)
        values["differences"].append(float((answers - whole).abs().max() / whole.abs().max()))
    return values


def _spaced(points: Sequence[Any]) -> list[Any]:
    count = min(_POINTS, len(points))
    return [points[(2 * place + 1) * len(points) // (2 * count)] for place in range(count)]


def _answers(network: nn.Module, given: Any, *, one_by_one: bool) -> Tensor:
    """Return all that the network returns, one row for each picture."""
    import torch
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        asked = [network(part) for part in given.split(1)] if one_by_one else [network(given)]
    rows = []
    for answer in asked:
        leaves = [leaf for leaf in tree_leaves(answer) if leaf is not None]
        count = len(leaves[0])
        rows.append(torch.cat([leaf.double().reshape(count, -1) for leaf in leaves], 1))
    return torch.cat(rows)


def _render(rows: Sequence[Row]) -> str:
    """Return the section of the benchmarks' page."""
    lines = [
        "## Networks cut in two\n",
        f"Of each architecture {_POINTS} clean points and one with values carried: the tail's "
        "answers to what the head sends, beside the whole network's, on random pictures and random "
        "weights. Exact means the same float32 numbers, bit for bit.\n",
        table(
            ["library", "architectures", "built", "cut", "cuts", "exact", "largest difference"],
            [_line(library, rows) for library in _LIBRARIES],
        ),
    ]
    odd = [row for row in rows if not _is_exact(row["values"])]
    if odd:
        lines += [
            "Not cut, or not exact:\n",
            table(["model", "what"], [[row["what"], _said(row["values"])] for row in odd]),
        ]
    alone = [row["what"] for row in rows if row["values"].get("batch") is not None]
    if alone:
        lines.append(f"Followed only one picture at a time, and compared so: {', '.join(alone)}.\n")
    return "\n".join(lines)


def _line(library: str, rows: Sequence[Row]) -> list[str]:
    found = [row["values"] for row in rows if row["config"]["library"] == library]
    built = [values for values in found if values["splits"] is not None]
    differences = [d for values in built for d in values.get("differences", ())]
    return [
        library,
        str(len(found)),
        str(len(built)),
        str(sum(values["splits"] for values in built)),
        str(len(differences)),
        str(sum(d == 0 for d in differences)),
        f"{max(differences, default=0):.1e}",
    ]


def _is_exact(values: Mapping[str, Any]) -> bool:
    return bool(values["splits"]) and not any(values["differences"])


def _said(values: Mapping[str, Any]) -> str:
    if not values["splits"]:
        return str(values["reason"]).replace("|", "\\|")
    pairs = zip(values["checked"], values["differences"], strict=True)
    return ", ".join(f"{name}: {difference:.1e}" for name, difference in pairs if difference)


BENCHMARK = Benchmark("splits", _jobs, _render)
