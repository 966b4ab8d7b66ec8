"""All cells of a configuration, one after another; a rerun goes on where the last one ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from scotoma.core.errors import ScotomaError
from scotoma.evaluate.config import Config
from scotoma.evaluate.data import Pictures, open_pictures
from scotoma.evaluate.exhibits import save_pictures
from scotoma.evaluate.judge import SetJudge
from scotoma.evaluate.loop import evaluate
from scotoma.evaluate.records import Choice, Record, RecordBook, fingerprint_of
from scotoma.evaluate.redetection import Redetection, open_detectors
from scotoma.evaluate.reidentification import Reidentification, load_embedder
from scotoma.evaluate.subjects import open_subject
from scotoma.evaluate.threat_models import ThreatModel
from scotoma.evaluate.utility import evaluate_utility
from scotoma.models.spec import load_classifier

__all__ = ["Cell", "Totals", "list_cells", "run_table"]


@dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Args:
        data: Label.
        model: Label; empty without models.
        protection: Label.
        attack: Label; empty of utility.
        threat_model: None of utility.
    """

    data: str
    model: str
    protection: str
    attack: str = ""
    threat_model: ThreatModel | None = None

    @property
    def title(self) -> str:
        """The cell in words."""
        threat = "" if self.threat_model is None else self.threat_model.name
        parts = [self.protection, self.attack or "utility", threat, self.model, self.data]
        return " × ".join(part for part in parts if part)


@dataclass
class Totals:
    """How a run went.

    Args:
        cells: In all.
        skipped: That an earlier run had done.
        ok: Measured now.
        not_applicable: Found not to apply now.
        failed: Failed now.
    """

    cells: int = 0
    skipped: int = 0
    ok: int = 0
    not_applicable: int = 0
    failed: int = 0


def list_cells(config: Config) -> list[Cell]:
    """Return the cells of a configuration, in the order in which they run."""
    made = []
    for data, pictures in config.data.items():
        for model in pictures.models or ("",):
            for protection, subject in config.protections.items():
                if model and model not in subject.models:
                    continue
                if model:
                    made.append(Cell(data, model, protection))
                for attack, tried in config.attacks.items():
                    if protection in tried.protections:
                        made += [
                            Cell(data, model, protection, attack, threat)
                            for threat in tried.threat_models
                        ]
    return made


def run_table(
    config: Config,
    out: Path,
    *,
    show_originals: bool = False,
    examples: int = 3,
    on_cell: Callable[[str, Record | None], None] | None = None,
    on_progress: Callable[[str, int, int | None], None] | None = None,
) -> Totals:
    """Measure every cell and write its record to ``out/records.jsonl``.

    Args:
        config: What to measure.
        out: Output folder; cells that its records prove done are skipped.
        show_originals: Write originals beside releases and guesses.
        examples: Pictures of each cell that are written.
        on_cell: Called after each cell with its title and record; None of one that was skipped.
        on_progress: Called with (what, done, in all or None) within a cell.

    Raises:
        FileError: ``out`` cannot be written, or pictures cannot be read.
        ModelError: A model that cannot be loaded.
    """
    return _Table(config, out, show_originals, examples, on_cell, on_progress).run()


class _Table:
    """One run: what is opened is kept for the next cell."""

    def __init__(
        self,
        config: Config,
        out: Path,
        show_originals: bool,
        examples: int,
        on_cell: Callable[[str, Record | None], None] | None,
        on_progress: Callable[[str, int, int | None], None] | None,
    ) -> None:
        self.config = config
        self.out = out
        self.show_originals = show_originals
        self.examples = examples
        self.on_cell = on_cell
        self.on_progress = on_progress
        self._model = lru_cache(2)(load_classifier)
        self._split = lru_cache(2)(self._open_pictures)
        self._auxiliary = lru_cache(1)(self._load_auxiliary)
        self._gallery = lru_cache(1)(self._load_gallery)
        self._embedder = lru_cache(1)(load_embedder)
        self._detector = lru_cache(1)(open_detectors)
        self._digests = lru_cache(None)(_digest)

    def run(self) -> Totals:
        """Go through the cells."""
        totals = Totals()
        with RecordBook(self.out) as book:
            for cell in list_cells(self.config):
                totals.cells += 1
                fingerprint = self._fingerprint(cell)
                if book.has(fingerprint):
                    totals.skipped += 1
                    self._show(cell, None)
                    continue
                record = replace(self._measure(cell, fingerprint), fingerprint=fingerprint)
                book.append(record)
                name = record.status.replace("-", "_")
                setattr(totals, name, getattr(totals, name) + 1)
                self._show(cell, record)
        return totals

    def _measure(self, cell: Cell, fingerprint: str) -> Record:
        protection = self.config.protections[cell.protection]
        pictures = self._split(cell.data, cell.model)
        model = self._model(self.config.models[cell.model]) if cell.model else None
        try:
            subject = open_subject(
                protection.choice.name,
                protection.choice.settings,
                preprocessing=None if model is None else model.preprocessing,
                models=() if model is None else (model,),
            )
        except ScotomaError as error:
            return self._blank(cell, str(error))
        run, papers = self.config.run, self.config.papers_of(cell.protection, cell.attack)
        if cell.threat_model is None:
            if model is None:
                return self._blank(cell, "expected a model to ask, got none")
            # People are no classes of the model's.
            is_labelled = not self.config.data[cell.data].settings.identities
            return evaluate_utility(
                subject,
                model,
                pictures.stream() if is_labelled else (images for images, _ in pictures.stream()),
                pictures_per_key=run.pictures_per_key,
                seed=run.seed,
                data=cell.data,
                chosen=protection.choice,
                paper=papers,
            )
        attack = self.config.attacks[cell.attack]
        return evaluate(
            subject,
            attack.attack,
            pictures.stream(),
            threat_model=cell.threat_model,
            auxiliary=self._auxiliary(cell.data, cell.model),
            model=model,
            pictures_per_key=run.pictures_per_key,
            metrics=run.metrics,
            set_judges=self._set_judges(cell),
            seed=run.seed,
            data=cell.data,
            chosen=(protection.choice, attack.choice),
            paper=papers,
            checkpoint=self.out / "checkpoints" / f"{fingerprint}.pt",
            on_progress=self.on_progress,
            on_release=lambda shown: save_pictures(
                self.out / "pictures" / fingerprint,
                shown,
                count=self.examples,
                show_originals=self.show_originals,
            ),
        )

    def _set_judges(self, cell: Cell) -> Callable[[], Sequence[SetJudge]]:
        """Return what makes judges of all guesses together."""
        run = self.config.run
        makers: list[Callable[[], SetJudge]] = []
        if run.embedder is not None and self.config.data[cell.data].settings.identities:
            makers.append(
                partial(
                    Reidentification,
                    self._embedder(run.embedder),
                    gallery=self._gallery(cell.data, cell.model),
                    seed=run.seed,
                )
            )
        if run.detectors:
            makers.append(partial(Redetection, self._detector(run.detectors)))
        return lambda: [make() for make in makers]

    def _load_gallery(self, data: str, model: str) -> tuple[Tensor, Tensor]:
        pictures = self._split(data, model)
        return pictures.load(pictures.gallery)

    def _blank(self, cell: Cell, reason: str) -> Record:
        attack = self.config.attacks[cell.attack].choice if cell.attack else None
        return Record(
            kind="attack" if cell.attack else "utility",
            protection=self.config.protections[cell.protection].choice,
            attack=attack,
            threat_model="" if cell.threat_model is None else cell.threat_model.name,
            model=self.config.models.get(cell.model, ""),
            data=cell.data,
            n=0,
            seed=self.config.run.seed,
            status="failed",
            reason=reason,
        )

    def _open_pictures(self, data: str, model: str) -> Pictures:
        classifier = self._model(self.config.models[model]) if model else None
        return open_pictures(
            self.config.data[data].settings,
            None if classifier is None else classifier.preprocessing,
            classes=None if classifier is None else classifier.classes,
            seed=self.config.run.seed,
        )

    def _load_auxiliary(self, data: str, model: str) -> Tensor | None:
        pictures = self._split(data, model)
        return pictures.load(pictures.auxiliary)[0] if pictures.auxiliary else None

    def _fingerprint(self, cell: Cell) -> str:
        """Return what changes with all that was chosen, and with pictures and weights."""
        config, data = self.config, self.config.data[cell.data].settings
        spec = config.models.get(cell.model, "")
        attack = config.attacks[cell.attack].choice if cell.attack else None
        plain = {**asdict(data), "path": self._digests(data.path)}
        return fingerprint_of(
            run={**asdict(config.run), "threat_models": None},
            data=[cell.data, plain],
            model=[spec, self._digests(Path(spec.partition(":")[2].rpartition("@")[2] or "."))],
            protection=self._with_content(config.protections[cell.protection].choice),
            attack=None if attack is None else asdict(attack),
            threat_model="" if cell.threat_model is None else cell.threat_model.name,
        )

    def _with_content(self, choice: Choice) -> dict[str, Any]:
        """Return a protection's name and settings, and what changes with a file that it names."""
        found = asdict(choice)
        if "file" in choice.settings:
            found["content"] = self._digests(Path(str(choice.settings["file"])).expanduser())
        return found

    def _show(self, cell: Cell, record: Record | None) -> None:
        if self.on_cell:
            self.on_cell(cell.title, record)


def _digest(path: Path) -> str:
    """Return what changes with a file, or with the names and sizes of a folder's files."""
    if path.is_file():
        with path.open("rb") as content:
            own = hashlib.file_digest(content, "sha256").hexdigest()
        return own + (_digest(path.with_suffix("")) if path.suffix.lower() == ".csv" else "")
    if not path.is_dir() or path == Path("."):
        return ""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()
