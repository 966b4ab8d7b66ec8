"""The benchmark's job as a user of another library writes it, from files to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.rivals import Inside, attack_with, batches_of, steps_needed, trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scotoma.models.classifier import Classifier
    from scotoma.run.settings import AnonymizeSettings
    from scotoma.run.subject import RunSubject

__all__ = ["BATCH", "SIDE", "STEP_SIZES", "Bench", "plan_rival", "run_rival"]

SIDE = 256  # what both models resize the shorter side to
BATCH = 16
STEP_SIZES = (2, 4, 8)  # of 255


@dataclass(frozen=True, eq=False)
class Bench:
    """The job.

    Args:
        paths: Pictures of ``SIDE`` × ``SIDE``.
        classifier: Whose decisions are kept.
        model: Its short name.
        settings: Of our run; the others take regions, fill and encoding from it.
        inside: The network as the others use it.
        crop: Pixels that the preprocessing cuts off at each side.
        out: Holds a folder for each that does the job.
    """

    paths: list[Path]
    classifier: Classifier
    model: str
    settings: AnonymizeSettings
    inside: Inside
    crop: int
    out: Path

    def folder(self, name: str) -> Path:
        """Return where ``name`` writes."""
        return self.out / f"out-{name}"


def run_rival(bench: Bench, library: str, plan: dict[str, Any]) -> None:
    """Do the whole job: files in, decisions, attack on what the fill flips, files out, check.

    Args:
        bench: The job.
        library: Who does it.
        plan: What :func:`plan_rival` found.
    """
    subjects, originals, naive = _read_all(bench)
    results = [subject.start for subject in subjects]
    flipped = [place for place in range(len(subjects)) if originals[place] != naive[place]]
    labels = torch.tensor(originals)
    for cut in batches_of(len(flipped), BATCH):
        places = flipped[cut]
        images = attack_with(
            library,
            bench.inside,
            _crops(bench, [subjects[place].start for place in places]),
            labels[places],
            step=plan["step"] / 255,
            steps=plan["steps"],
        )
        for place, image in zip(places, images, strict=True):
            results[place] = _paste(bench, results[place], image)
    out = bench.folder(library)
    out.mkdir(parents=True, exist_ok=True)
    for subject, pixels in zip(subjects, results, strict=True):
        (out / f"{subject.found.path.stem}.png").write_bytes(subject.encode(pixels))
    _labels(bench, results)  # the check: a careful user knows which decisions came back


def plan_rival(bench: Bench, library: str, required: int, most: int) -> dict[str, Any]:
    """Find the step size and the smallest number of steps that keep as many as we do.

    Args:
        bench: The job.
        library: Who does it.
        required: Decisions to keep.
        most: Steps tried.

    Returns:
        ``step`` (of 255), ``steps``, and whether these were enough (``reached``).
    """
    subjects, originals, naive = _read_all(bench)
    flipped = [place for place in range(len(subjects)) if originals[place] != naive[place]]
    missing = required - (len(subjects) - len(flipped))
    labels = torch.tensor(originals)
    found = []
    for step in STEP_SIZES:
        traces = [
            trace(
                library,
                bench.inside,
                _crops(bench, [subjects[place].start for place in flipped[cut]]),
                labels[flipped[cut]],
                partial(_verify, bench, labels[flipped[cut]]),
                step=step / 255,
                most=most,
            )
            for cut in batches_of(len(flipped), BATCH)
        ]
        needed = steps_needed(traces, missing, most)
        print(f"    {library}, step {step}/255: {needed} steps", flush=True)
        found.append({"step": step, "steps": needed or most, "reached": needed is not None})
    return min(found, key=lambda plan: (not plan["reached"], plan["steps"]))


def _verify(bench: Bench, labels: Tensor, images: Tensor) -> list[bool]:
    """Whether each decision is back after rounding to 8 bits."""
    rounded = (images * 255).round() / 255
    watch, bench.inside.watch = bench.inside.watch, None
    try:
        with torch.no_grad():
            said = bench.inside(rounded).argmax(1)
    finally:
        bench.inside.watch = watch
    return [bool(same) for same in said == labels]


def _read_all(bench: Bench) -> tuple[list[RunSubject], list[int], list[int]]:
    """Read and fill the pictures; return them with the decisions before and after the fill."""
    from scotoma.images.regions import open_regions
    from scotoma.images.walk import find_pictures
    from scotoma.run.subject import open_subject

    source = open_regions(bench.settings.regions)
    subjects = [open_subject(f, source, bench.settings) for f in find_pictures(bench.paths)]
    originals = _labels(bench, [subject.original for subject in subjects])
    return subjects, originals, _labels(bench, [subject.start for subject in subjects])


def _labels(bench: Bench, pictures: Sequence[NDArray[np.uint8]]) -> list[int]:
    """Decisions through the real preprocessing."""
    said: list[int] = []
    with torch.no_grad():
        for cut in batches_of(len(pictures), BATCH):
            inputs = [bench.classifier.read(Image.fromarray(pixels)) for pixels in pictures[cut]]
            batch = torch.stack(inputs).contiguous(memory_format=torch.channels_last)
            said += bench.inside.network(batch).argmax(1).tolist()
    return said


def _crops(bench: Bench, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return what the network sees of the pictures, ``(B, 3, 224, 224)`` in [0, 1]."""
    c = bench.crop
    batch = np.stack([pixels[c : SIDE - c, c : SIDE - c] for pixels in pictures])
    images = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
    return images.contiguous(memory_format=torch.channels_last)


def _paste(bench: Bench, pixels: NDArray[np.uint8], image: Tensor) -> NDArray[np.uint8]:
    """Put an attacked crop back into its picture, rounded to 8 bits."""
    c, result = bench.crop, pixels.copy()
    content = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    result[c : SIDE - c, c : SIDE - c] = content.numpy()
    return result
