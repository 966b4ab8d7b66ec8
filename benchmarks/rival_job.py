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

__all__ = ["BATCH", "SIDE", "STEP_SIZES", "Bench", "paste", "plan_rival", "run_rival"]

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
        settings: Of our run; the others take regions, fill and encoding from it, and the
            sizes (``search.views``) at which a copy must keep the decision too.
        inside: The network as the others use it.
        crop: Pixels that the preprocessing cuts off at each side.
        out: Holds a folder for each that does the job.
        favoured: The others attack only what the fill flips, with channels-last memory;
            otherwise they attack every picture with tensors as they come.
    """

    paths: list[Path]
    classifier: Classifier
    model: str
    settings: AnonymizeSettings
    inside: Inside
    crop: int
    out: Path
    favoured: bool

    def in_memory(self, batch: Tensor) -> Tensor:
        """Return a batch of inputs in the others' memory layout."""
        if self.favoured:
            return batch.contiguous(memory_format=torch.channels_last)
        return batch.contiguous()

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
    chosen = _to_attack(bench, originals, naive)
    labels = torch.tensor(originals)
    for cut in batches_of(len(chosen), BATCH):
        places = chosen[cut]
        images = attack_with(
            library,
            bench.inside,
            _crops(bench, [subjects[place].start for place in places]),
            labels[places],
            step=plan["step"] / 255,
            steps=plan["steps"],
        )
        for place, image in zip(places, images, strict=True):
            results[place] = paste(bench, results[place], image)
    out = bench.folder(library)
    out.mkdir(parents=True, exist_ok=True)
    for subject, pixels in zip(subjects, results, strict=True):
        (out / f"{subject.found.path.stem}.png").write_bytes(subject.encode(pixels))
    _right(bench, results, labels)  # a careful user knows which decisions came back


def plan_rival(
    bench: Bench, library: str, step_sizes: Sequence[int], required: int, most: int
) -> dict[str, Any]:
    """Find the step size and the smallest number of steps that keep as many as we do.

    Args:
        bench: The job.
        library: Who does it.
        step_sizes: Those tried, of 255.
        required: Decisions to keep.
        most: Steps tried.

    Returns:
        ``step`` (of 255), ``steps``, whether these were enough (``reached``), and how many of
        the attacked pictures are right after the most steps.
    """
    subjects, originals, naive = _read_all(bench)
    chosen = _to_attack(bench, originals, naive)
    untouched = [place for place in range(len(subjects)) if place not in chosen]
    starts, labels = [subject.start for subject in subjects], torch.tensor(originals)
    missing = required - sum(
        _right(bench, [starts[place] for place in untouched], labels[untouched])
    )
    found = []
    for step in step_sizes:
        traces = []
        for cut in batches_of(len(chosen), BATCH):
            places = chosen[cut]
            here, goals = [starts[place] for place in places], labels[places]
            verify = partial(_verify, bench, here, goals)
            crops = _crops(bench, here)
            traces.append(
                trace(library, bench.inside, crops, goals, verify, step=step / 255, most=most)
            )
        needed = steps_needed(traces, missing, most)
        print(f"    {library}, step {step}/255: {needed} steps", flush=True)
        found.append(
            {
                "step": step,
                "steps": most if needed is None else needed,
                "reached": needed is not None,
                "right_at_most": sum(found.after(most) for found in traces),
            }
        )
    return min(found, key=lambda plan: (plan["steps"], -plan["right_at_most"]))


def _to_attack(bench: Bench, originals: Sequence[int], naive: Sequence[int]) -> list[int]:
    pairs = zip(originals, naive, strict=True)
    return [place for place, (old, new) in enumerate(pairs) if old != new or not bench.favoured]


def _verify(
    bench: Bench, starts: Sequence[NDArray[np.uint8]], labels: Tensor, images: Tensor
) -> list[bool]:
    """Put the crops into their pictures and test these."""
    pictures = [paste(bench, start, image) for start, image in zip(starts, images, strict=True)]
    return _right(bench, pictures, labels)


def _right(bench: Bench, pictures: Sequence[NDArray[np.uint8]], labels: Tensor) -> list[bool]:
    """The success test: the decision of the picture, and of its resized copies if asked for."""
    right = [True] * len(pictures)
    for scale in (1.0, *bench.settings.search.views):
        said = _labels(bench, pictures, scale)
        right = [
            so_far and old == new
            for so_far, old, new in zip(right, labels.tolist(), said, strict=True)
        ]
    return right


def _read_all(bench: Bench) -> tuple[list[RunSubject], list[int], list[int]]:
    """Read and fill the pictures; return them with the decisions before and after the fill."""
    from scotoma.images.region_sources import open_regions
    from scotoma.images.walk import find_pictures
    from scotoma.run.subject import open_subject

    source = open_regions(bench.settings.regions)
    subjects = [open_subject(f, source, bench.settings) for f in find_pictures(bench.paths)]
    originals = _labels(bench, [subject.original for subject in subjects])
    return subjects, originals, _labels(bench, [subject.start for subject in subjects])


def _labels(bench: Bench, pictures: Sequence[NDArray[np.uint8]], scale: float = 1.0) -> list[int]:
    """Decisions through the real preprocessing, of copies at a scale."""
    said: list[int] = []
    with torch.no_grad():
        for cut in batches_of(len(pictures), BATCH):
            copies = [_at_scale(Image.fromarray(pixels), scale) for pixels in pictures[cut]]
            inputs = [bench.classifier.read(copy) for copy in copies]
            said += bench.inside.network(bench.in_memory(torch.stack(inputs))).argmax(1).tolist()
    return said


def _at_scale(picture: Image.Image, scale: float) -> Image.Image:
    if scale == 1:
        return picture
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _crops(bench: Bench, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return what the network sees of the pictures, ``(B, 3, 224, 224)`` in [0, 1]."""
    c = bench.crop
    batch = np.stack([pixels[c : SIDE - c, c : SIDE - c] for pixels in pictures])
    images = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
    return bench.in_memory(images)


def paste(bench: Bench, pixels: NDArray[np.uint8], image: Tensor) -> NDArray[np.uint8]:
    """Put an attacked crop back into its picture, rounded to 8 bits."""
    c, result = bench.crop, pixels.copy()
    content = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    result[c : SIDE - c, c : SIDE - c] = content.numpy()
    return result
