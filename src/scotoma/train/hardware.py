"""What a training runs on: one processor, several GPUs, several machines."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator

from scotoma.core.errors import MissingExtraError, SettingsError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "Hardware",
    "Share",
    "generator_for",
    "is_first_process",
    "seeded",
    "start",
    "stream_seed",
]

# Set by Fabric, torchrun and SLURM in each process they start.
_RANKS = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Hardware:
    """Where a training runs.

    Args:
        accelerator: Fabric's name: ``auto``, ``cpu``, ``cuda``, ``mps``.
        devices: Processes on this machine, one GPU each where there are any.
        nodes: Machines; each runs the same command under torchrun or SLURM.
        workers: Processes that read pictures, for each device.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 4

    def __post_init__(self) -> None:
        if not (self.devices >= 1 and self.nodes >= 1 and self.workers >= 1):
            raise SettingsError(
                "expected 1 or more devices, nodes and workers, got "
                f"{self.devices}, {self.nodes}, {self.workers}"
            )


@dataclass(frozen=True)
class Share:
    """Which part of every batch a process takes: each ``world``-th picture from ``rank``."""

    rank: int = 0
    world: int = 1


def start(hardware: Hardware, *, bfloat16: bool) -> Fabric:
    """Return Fabric, launched; on several devices every process goes on from here.

    Raises:
        MissingExtraError: Fabric is not installed.
        SettingsError: No such hardware here.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingExtraError("training", "lightning-fabric", "train") from error
    # Fabric announces its precision on standard error, as a matter of information.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            num_nodes=hardware.nodes,
            precision="bf16-mixed" if bfloat16 else "32-true",
        )
        fabric.launch()
    except (RuntimeError, ValueError, TypeError) as error:
        raise SettingsError(
            f"expected hardware that is here, got {hardware.devices} of "
            f"{hardware.accelerator!r} on {hardware.nodes} machine(s): {error}"
        ) from error
    return fabric


def is_first_process() -> bool:
    """Return whether this process is the one that reports, of all that train together."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def stream_seed(seed: int, *labels: object) -> int:
    """Return the seed of a stream of its own for each combination of labels."""
    text = "/".join(str(part) for part in (seed, *labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *labels: object) -> Generator:
    """Return a generator of a stream of its own for each combination of labels."""
    return Generator().manual_seed(stream_seed(seed, *labels))


@contextmanager
def seeded(fabric: Fabric, seed: int) -> Iterator[None]:
    """Seed the process' own generators, which drop path draws from, and restore them after."""
    device = fabric.device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
