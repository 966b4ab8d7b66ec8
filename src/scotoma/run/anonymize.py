"""Anonymize folders of pictures: read, find regions, fill, search, write, prove, go on.

Nothing that fails writes to the output folder (fail closed), and nothing that the
manifest proves done is done again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scotoma import __version__
from scotoma.core.errors import FileError, ScotomaError, SettingsError, UnsafePathError
from scotoma.images.region_sources import open_regions
from scotoma.images.walk import Found, find_pictures
from scotoma.models.classifier import Classifier
from scotoma.models.fold import fold_batch_norm
from scotoma.protections.anonymize.exemplars import Exemplars
from scotoma.protections.anonymize.search import Search
from scotoma.protections.anonymize.subject import Outcome
from scotoma.run.answers import AnswerFile, AnswerFolder
from scotoma.run.manifest import (
    Decision,
    Entry,
    Manifest,
    Summary,
    latest,
    proves_done,
    summarize,
    write_summary,
)
from scotoma.run.releases import Releases
from scotoma.run.settings import AnonymizeSettings
from scotoma.run.subject import RunSubject, name_of, open_subject
from scotoma.run.verdict import decisions

__all__ = ["Progress", "anonymize"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Progress:
    """Sent after each picture.

    Args:
        entry: What became of it.
        skipped: An earlier run had finished it.
    """

    entry: Entry
    skipped: bool


def anonymize(
    inputs: Sequence[Path],
    out: Path,
    models: Sequence[Classifier],
    settings: AnonymizeSettings | None = None,
    *,
    observers: Sequence[Classifier] = (),
    surrogates: Sequence[Classifier] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Anonymize pictures into ``out``; return figures over all of them, also written there.

    Args:
        inputs: Picture files and folders.
        out: Output folder; mirrors the input tree and holds ``manifest.jsonl`` and
            ``summary.json``. Pictures that an earlier run finished are skipped.
        models: Classifiers whose decisions are kept.
        settings: How.
        observers: Classifiers that take no part, but whose decisions are reported.
        surrogates: Networks with gradients, of any classes, to take a black box's candidates from.
        on_progress: Called after each picture.

    Raises:
        FileError: An input is missing, or ``out`` cannot be written.
        SettingsError: Settings that cannot be used.
        ModelError: A model that the search cannot use.
    """
    settings = settings or AnonymizeSettings()
    return _Run(inputs, out, models, settings, observers, surrogates, on_progress).go()


class _Run:
    """One run: where it reads and writes, and what it has seen."""

    def __init__(
        self,
        inputs: Sequence[Path],
        out: Path,
        models: Sequence[Classifier],
        settings: AnonymizeSettings,
        observers: Sequence[Classifier],
        surrogates: Sequence[Classifier],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.everyone = [*models, *observers]
        names = [model.spec for model in [*self.everyone, *surrogates]]
        if len(set(names)) < len(names):
            raise SettingsError(f"expected every model once, got {', '.join(names)}")
        self.inputs = list(inputs)
        self.out = out
        self.settings = settings = settings.settled(models)
        self.searched = len(models)
        self.on_progress = on_progress
        self.source = open_regions(settings.regions, settings.detector)
        self.fingerprint = settings.fingerprint(models, observers, surrogates)
        self.answers = AnswerFolder(out / ".answers")
        self.recalled: dict[str, AnswerFile] = {}
        search, adapt = settings.effective_search(), settings.adapt
        if surrogates and adapt != "blackbox":
            raise SettingsError(
                f"expected surrogates only where models give scores alone, got adapt={adapt}"
            )
        pulled = surrogates if adapt == "blackbox" else models
        self.search = Search(
            models,
            search,
            observers=observers,
            exemplars=_open_exemplars(settings, inputs, models) if search.max_steps else None,
            gradient_networks=_folded(pulled) if search.max_steps else None,
            blackbox=settings.blackbox if adapt == "blackbox" else None,
            recall=self._recall if adapt == "blackbox" else None,
            surrogates=surrogates,
        )

    def go(self) -> Summary:
        begun = time.perf_counter()
        found = find_pictures(self.inputs, exclude=self.out)  # refuses before anything is made
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make the output folder {self.out}: {error}") from error
        path = self.out / "manifest.jsonl"
        self.earlier = latest(path)
        self.releases = Releases(self.out, self.earlier)
        self.names: set[str] = set()
        with Manifest.open(path) as self.manifest:
            for outcome in self.search.run(self._subjects(found)):
                self._finish(outcome)
        self.answers.close()
        entries = latest(path)
        summary = summarize(
            (entries[name] for name in entries if name in self.names),
            seconds=time.perf_counter() - begun,
            seed=self.settings.seed,
            version=__version__,
        )
        write_summary(self.out / "summary.json", summary)
        return summary

    def _recall(self, subject: RunSubject) -> AnswerFile:
        name = name_of(subject.found)
        self.recalled[name] = self.answers.open(self.fingerprint, subject.sha256_in, name)
        return self.recalled[name]

    def _subjects(self, inputs: Iterator[Found]) -> Iterator[RunSubject]:
        """Yield what there is to search; settle everything else on the way."""
        for found in inputs:
            name = name_of(found)
            self.names.add(name)
            entry = self.earlier.get(name)
            if entry and proves_done(entry, found.path, self.out, self.fingerprint):
                self._report(Progress(entry, skipped=True))
                continue
            begun = time.perf_counter()
            try:
                subject = open_subject(found, self.source, self.settings)
                entry = None if subject.regions else self._pass_unchanged(subject)
            except Exception as error:  # whatever is wrong with one picture, the run goes on
                entry = self._fail(found, begun, error)
            if entry is None:
                yield subject
            else:
                self._report(Progress(entry, skipped=False))

    def _pass_unchanged(self, subject: RunSubject) -> Entry:
        if self.settings.copy_unchanged:
            return self._release(subject, subject.original, "no-region")
        self.releases.withdraw(name_of(subject.found))
        entry = self._entry(subject, "no-region")
        self.manifest.append(entry)
        return entry

    def _finish(self, outcome: Outcome) -> None:
        subject: RunSubject = outcome.subject
        try:
            entry = self._release(
                subject,
                _pixels_of(outcome),
                outcome.status,
                decisions=decisions(
                    outcome, self.everyone, self.searched, self.settings.search.keep
                ),
                steps=outcome.steps,
                queries=outcome.queries if self.settings.adapt == "blackbox" else 0,
            )
        except Exception as error:  # as above: recorded, and the run goes on
            entry = self._fail(subject.found, subject.begun, error)
        answers = self.recalled.pop(name_of(subject.found), None)
        if answers is not None and entry.status != "failed":
            answers.forget()
        self._report(Progress(entry, skipped=False))

    def _release(
        self,
        subject: RunSubject,
        pixels: Pixels,
        status: str,
        *,
        decisions: tuple[Decision, ...] = (),
        steps: int = 0,
        queries: int = 0,
    ) -> Entry:
        """Write a picture and its line in the manifest, or neither."""
        subject.check_release(pixels)
        data = subject.encode(pixels)
        sha256 = hashlib.sha256(data).hexdigest()
        entry = self._entry(
            subject,
            status,
            output=self.releases.place(subject.found, self.settings.encoding.suffix, sha256),
            sha256_out=sha256,
            decisions=decisions,
            steps=steps,
            queries=queries,
        )
        self.releases.write(data, entry, self.manifest.append)
        return entry

    def _entry(
        self,
        subject: RunSubject,
        status: str,
        *,
        output: str | None = None,
        sha256_out: str | None = None,
        decisions: tuple[Decision, ...] = (),
        steps: int = 0,
        queries: int = 0,
    ) -> Entry:
        return Entry(
            input=name_of(subject.found),
            output=output,
            status=status,
            regions=tuple(region.box for region in subject.regions),
            decisions=decisions,
            steps=steps,
            queries=queries,
            seconds=round(time.perf_counter() - subject.begun, 4),
            sha256_in=subject.sha256_in,
            sha256_out=sha256_out,
            error=None,
            settings=self.fingerprint,
        )

    def _fail(self, found: Found, begun: float, error: Exception) -> Entry:
        self.releases.withdraw(name_of(found))
        known = isinstance(error, ScotomaError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        entry = Entry(
            input=name_of(found),
            output=None,
            status="failed",
            regions=(),
            decisions=(),
            steps=0,
            seconds=round(time.perf_counter() - begun, 4),
            sha256_in=None,
            sha256_out=None,
            error=text or type(error).__name__,
            settings=self.fingerprint,
        )
        self.manifest.append(entry)
        return entry

    def _report(self, progress: Progress) -> None:
        if self.on_progress:
            self.on_progress(progress)


def _pixels_of(outcome: Outcome) -> Pixels:
    """Return what the search found, or raise what ended it."""
    if outcome.pixels is None:
        raise outcome.error or RuntimeError("the search ended without a picture")
    return outcome.pixels


def _open_exemplars(
    settings: AnonymizeSettings, inputs: Sequence[Path], models: Sequence[Classifier]
) -> Exemplars | None:
    """Open the public pictures, unless some of them are inputs and so private.

    Raises:
        UnsafePathError: A picture is both.
    """
    if settings.exemplars is None:
        return None
    exemplars = Exemplars.open(settings.exemplars, models)
    public = {path.resolve() for path in exemplars.paths}
    for found in find_pictures(inputs):
        if found.path.resolve() in public:
            raise UnsafePathError(
                f"expected exemplars that are public, got {found.path}, which is also an input: "
                "its pixels would show in other pictures; name a folder apart from the inputs"
            )
    return exemplars


def _folded(models: Sequence[Classifier]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return faster equivalents for the gradient passes; the models themselves judge."""
    import torch

    networks: dict[str, Callable[[Tensor], Tensor]] = {}
    for model in models:
        if isinstance(model.network, torch.nn.Module):
            example = torch.zeros(1, *model.preprocessing.input_size, device=model.device)
            networks[model.spec] = fold_batch_norm(model.network, example)
    return networks
