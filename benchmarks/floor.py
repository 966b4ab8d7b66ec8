"""The floor under a run's time: the passes it needed, at the speed of the networks alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from scotoma.models.classifier import Classifier
    from scotoma.run.settings import AnonymizeSettings

__all__ = ["measure_floor"]

_BATCH = 16
_ROUNDS = 15


@dataclass
class _Tally:
    looks: int = 0
    pulls: int = 0


def measure_floor(
    model: Classifier, settings: AnonymizeSettings, paths: Sequence[Path]
) -> dict[str, Any]:
    """Count what a run needs of a model, and time it on the model alone.

    Args:
        model: Of the run.
        settings: Of the run.
        paths: Its pictures.

    Returns:
        ``looks`` (pictures seen without gradient) and ``pulls`` (with), the milliseconds of
        each in full batches of the folded network, and the ``seconds`` of all together;
        ``plain_pull_ms`` is the gradient of the network as it came.
    """
    from scotoma.models.fold import fold_batch_norm

    network = model.network
    if not isinstance(network, nn.Module):
        raise TypeError(f"expected a network with gradients, got {type(network).__name__}")
    example = torch.zeros(1, *model.preprocessing.input_size)
    folded = fold_batch_norm(network, example)
    tally = _count_passes(model, folded, settings, paths)
    quick = folded.to(memory_format=torch.channels_last)
    look, pull, plain = _times(
        [_look(quick), _pull(quick), _pull(network)], model.preprocessing.input_size
    )
    return {
        "looks": tally.looks,
        "pulls": tally.pulls,
        "look_ms": round(1000 * look, 3),
        "pull_ms": round(1000 * pull, 3),
        "plain_pull_ms": round(1000 * plain, 3),
        "seconds": round(tally.looks * look + tally.pulls * pull, 4),
    }


def _look(network: nn.Module) -> Callable[[Tensor], None]:
    """Return a forward pass that keeps nothing."""

    def look(inputs: Tensor) -> None:
        with torch.no_grad():
            network(inputs)

    return look


def _pull(network: nn.Module) -> Callable[[Tensor], None]:
    """Return a pass for the gradient on the input."""

    def pull(inputs: Tensor) -> None:
        leaf = inputs.detach().requires_grad_()
        torch.autograd.grad(network(leaf).logsumexp(1).sum(), leaf)

    return pull


def _count_passes(
    model: Classifier, folded: nn.Module, settings: AnonymizeSettings, paths: Sequence[Path]
) -> _Tally:
    from scotoma.images.region_sources import open_regions
    from scotoma.images.walk import find_pictures
    from scotoma.protections.anonymize.search import Search
    from scotoma.run.subject import open_subject

    tally = _Tally()

    def count(_module: nn.Module, _inputs: Any, logits: Tensor) -> None:
        if logits.requires_grad:
            tally.pulls += len(logits)
        else:
            tally.looks += len(logits)

    source = open_regions(settings.regions)
    search = Search([model], settings.search, gradient_networks={model.spec: folded})
    networks = {folded, model.network} if isinstance(model.network, nn.Module) else {folded}
    handles = [network.register_forward_hook(count) for network in networks]
    try:
        subjects = (open_subject(found, source, settings) for found in find_pictures(paths))
        for _ in search.run(subjects):
            pass
    finally:
        for handle in handles:
            handle.remove()
    return tally


def _times(passes: Sequence[Callable[[Tensor], None]], size: tuple[int, ...]) -> list[float]:
    """Return the median seconds per picture of each pass, measured in turns."""
    inputs = torch.rand(_BATCH, *size, generator=torch.Generator().manual_seed(0))
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    seconds: list[list[float]] = [[] for _ in passes]
    for turn in range(_ROUNDS + 2):
        for run, times in zip(passes, seconds, strict=True):
            begun = time.perf_counter()
            run(inputs)
            if turn >= 2:  # the first ones choose kernels
                times.append(time.perf_counter() - begun)
    return [median(times) / _BATCH for times in seconds]
