"""From TOML to a configuration: every mistake is named at once, each with what would be right."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from scotoma.core.errors import FileError, ScotomaError, SettingsError, UnknownNameError
from scotoma.evaluate.config import (
    AttackCell,
    Config,
    DataCell,
    PaperCell,
    ProtectionCell,
    RunSettings,
    open_attack,
    tuples,
)
from scotoma.evaluate.data import DataSettings
from scotoma.evaluate.metrics.registry import metrics
from scotoma.evaluate.records import Choice, Paper
from scotoma.evaluate.subjects import read_settings
from scotoma.evaluate.threat_models import ThreatModel, open_threat_model

__all__ = ["parse_config", "read_config"]

T = TypeVar("T")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECTIONS = ("run", "data", "models", "protections", "attacks", "paper")
_WORDS: dict[type, str] = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "text",
}


def read_config(path: Path) -> Config:
    """Read a configuration; its relative paths are relative to its folder.

    Raises:
        FileError: It cannot be read.
        SettingsError: Mistakes, all of them in one message.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"expected a configuration at {path}, got: {error}") from error
    return parse_config(text, folder=path.parent, name=str(path))


def parse_config(text: str, *, folder: Path, name: str = "configuration") -> Config:
    """Make sense of a configuration.

    Args:
        text: TOML.
        folder: That relative paths are relative to.
        name: For messages.

    Raises:
        SettingsError: Mistakes, all of them in one message.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"expected TOML in {name}, got: {error}") from error
    reader = _Reader(found, folder)
    config = reader.read()
    if reader.mistakes:
        count = len(reader.mistakes)
        lines = "".join(f"\n  - {mistake}" for mistake in reader.mistakes)
        raise SettingsError(f"{count} mistake{'s' if count != 1 else ''} in {name}:{lines}")
    return config


@dataclass
class _Reader:
    """Reads sections one by one and goes on after a mistake."""

    found: Mapping[str, Any]
    folder: Path
    mistakes: list[str] = field(default_factory=list)

    def read(self) -> Config:
        for section in self.found:
            if section not in _SECTIONS:
                self._note(UnknownNameError("section", section, _SECTIONS))
        run = self._run()
        models = self._models()
        data = self._each("data", lambda _, table: self._data(table, list(models)))
        protections = self._each(
            "protections", lambda label, table: self._protection(label, table, list(models))
        )
        for section, there in (("data", data), ("protections", protections)):
            if not there and not self.found.get(section):
                self._note(f"expected at least one [{section}.LABEL], got none")
        attacks = self._each(
            "attacks",
            lambda label, table: self._attack(label, table, run, list(self._tables("protections"))),
        )
        if not attacks and not models and not self.found.get("attacks"):
            self._note("expected at least one [attacks.LABEL] or [models.LABEL], got none")
        papers = self._papers(list(protections), list(attacks))
        return Config(run, data, models, protections, attacks, papers)

    def _run(self) -> RunSettings:
        table = self.found.get("run", {})
        if not isinstance(table, dict):
            self._note(f"expected [run] as a table, got {table!r}")
            return RunSettings()
        known = [one.name for one in fields(RunSettings)]
        self._try("[run]", _only, table, known)
        fitting = {name: value for name, value in table.items() if name in known}
        run = self._try("[run]", _fill, RunSettings, fitting) or RunSettings()
        self._check_names("[run] metrics", "metric", run.metrics, metrics.names())
        for spec in run.threat_models:
            self._try("[run] threat_models", open_threat_model, spec)
        return run

    def _models(self) -> dict[str, str]:
        made = {}
        for label, table in self._tables("models").items():
            where = f"[models.{label}]"
            known = self._try(where, _only, table, ("spec",))
            spec = table.get("spec", label)
            if not isinstance(spec, str):
                self._note(f"{where} expected spec as text, got {spec!r}")
            elif known is not None:
                made[label] = spec
        return made

    def _data(self, table: dict[str, Any], models: list[str]) -> DataCell:
        chosen = self._labels(table.pop("models", models), "model", models)
        if "path" not in table:
            raise SettingsError("expected path of a folder, zip or table, got none")
        path = self.folder / Path(str(table["path"])).expanduser()
        if not path.exists():
            raise FileError(f"expected pictures at {path}, got nothing there; check the path")
        settings = _fill(DataSettings, {**table, "path": path})
        if not chosen and settings.size is None:
            raise SettingsError("expected size = [height, width], since no model reads them")
        return DataCell(settings, chosen)

    def _protection(self, label: str, table: dict[str, Any], models: list[str]) -> ProtectionCell:
        chosen = self._labels(table.pop("models", models), "model", models)
        name = str(table.pop("name", label))
        read_settings(name, table)
        return ProtectionCell(Choice(name, table, label), chosen)

    def _attack(
        self, label: str, table: dict[str, Any], run: RunSettings, protections: list[str]
    ) -> AttackCell | None:
        where = f"[attacks.{label}]"
        wanted = table.pop("protections", protections)
        specs = table.pop("threat_models", list(run.threat_models))
        name = str(table.pop("name", label))
        chosen = self._try(where, self._labels, wanted, "protection", protections)
        models = self._try(where, _threat_models, specs)
        attack = self._try(where, open_attack, name, table)
        if chosen is None or models is None or attack is None:
            return None
        settings: dict[str, Any] = asdict(attack) if is_dataclass(attack) else dict(table)
        return AttackCell(Choice(name, _lists(settings), label), attack, models, chosen)

    def _papers(self, protections: list[str], attacks: list[str]) -> tuple[PaperCell, ...]:
        made = []
        for number, table in enumerate(self.found.get("paper", []), start=1):
            cell = self._try(f"[[paper]] {number}", _paper, table, protections, attacks)
            if cell is not None:
                made.append(cell)
        return tuple(made)

    def _each(self, section: str, read: Callable[[str, dict[str, Any]], T | None]) -> dict[str, T]:
        made = {}
        for label, table in self._tables(section).items():
            where = f"[{section}.{label}]"
            if not _LABEL.fullmatch(label):
                self._note(f"{where} expected a label of letters, digits, '.', '_' and '-'")
                continue
            cell = self._try(where, read, label, dict(table))
            if cell is not None:
                made[label] = cell
        return made

    def _tables(self, section: str) -> dict[str, dict[str, Any]]:
        found = self.found.get(section, {})
        if not isinstance(found, dict) or not all(isinstance(t, dict) for t in found.values()):
            self._note(f"expected tables [{section}.LABEL], got {found!r}")
            return {}
        return found

    def _labels(self, found: Any, kind: str, known: list[str]) -> tuple[str, ...]:
        if not isinstance(found, list):
            raise SettingsError(f"expected a list of {kind} labels, got {found!r}")
        for label in found:
            if label not in known:
                raise UnknownNameError(kind, str(label), known)
        return tuple(found)

    def _check_names(
        self, where: str, kind: str, names: Collection[str], known: Collection[str]
    ) -> None:
        for name in names:
            if name not in known:
                self._note(f"{where}: {UnknownNameError(kind, str(name), known)}")

    def _try(self, where: str, read: Callable[..., T], *values: Any) -> T | None:
        try:
            return read(*values)
        except (ScotomaError, TypeError, ValueError) as error:
            self._note(f"{where} {error}")
            return None

    def _note(self, mistake: object) -> None:
        text = str(mistake)
        if text not in self.mistakes:
            self.mistakes.append(text)


def _threat_models(specs: Any) -> tuple[ThreatModel, ...]:
    if not isinstance(specs, list):
        raise SettingsError(f"expected threat_models as a list of names, got {specs!r}")
    return tuple(open_threat_model(str(spec)) for spec in specs)


def _paper(table: Any, protections: list[str], attacks: list[str]) -> PaperCell:
    if not isinstance(table, dict):
        raise SettingsError(f"expected a table, got {table!r}")
    _only(table, ("protection", "attack", "metric", "value", "source"))
    for name in ("protection", "metric", "value", "source"):
        if name not in table:
            raise SettingsError(f"expected {name}, got none")
    if table["protection"] not in protections:
        raise UnknownNameError("protection", str(table["protection"]), protections)
    attack = str(table.get("attack", ""))
    if attack and attack not in attacks:
        raise UnknownNameError("attack", attack, attacks)
    figure = Paper(float(table["value"]), str(table["source"]))
    return PaperCell(table["protection"], attack, str(table["metric"]), figure)


def _fill(kind: type[T], table: Mapping[str, Any]) -> T:
    """Build a dataclass from a table; all its unknown keys and wrong types in one error."""
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    _only(table, known)
    for name, value in table.items():
        default = known[name].default
        if default is MISSING or default is None:
            continue
        wanted = list if isinstance(default, tuple) else type(default)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise SettingsError(f"expected {name} as {_WORDS[wanted]}, got {value!r}")
    return kind(**{name: tuples(value) for name, value in table.items()})


def _only(table: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
    wrong = [str(UnknownNameError("key", key, known)) for key in table if key not in known]
    if wrong:
        raise SettingsError("; ".join(wrong))
    return table


def _lists(value: Any) -> Any:
    """Return plain data as JSON holds it."""
    if isinstance(value, Mapping):
        return {str(name): _lists(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_lists(part) for part in value]
    return str(value) if isinstance(value, Path) else value
