"""What became of one picture: one line of the manifest, as data.

::

    Entry                         one input file
     ├── regions                  what was hidden, as (x0, y0, x1, y1), x1 and y1 exclusive
     └── decisions                one per model
          ├── before: Answer      on the original
          ├── naive: Answer       on the fill alone
          └── after: Answer       on the released file, as written and read back
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scotoma.core.errors import FileError, ModelError, SettingsError
from scotoma.images.regions import Box

__all__ = ["STATUSES", "Answer", "Decision", "Entry"]

STATUSES = ("ok", "kept-naive", "not-kept", "no-region", "failed")
"""What can become of a picture; only ``not-kept`` and ``failed`` are losses."""

_ROUNDING = 1e-5  # a float32 softmax may sum to a little more than one


@dataclass(frozen=True)
class Answer:
    """What one model says of one picture.

    Args:
        label: Index of the class with the highest score.
        name: That class, in words.
        score: Its softmax probability.

    Raises:
        ModelError: The score is no probability (NaN, negative, above one).
    """

    label: int
    name: str
    score: float

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1 + _ROUNDING:
            raise ModelError(
                f"expected a softmax probability as score of {self.name!r}, got {self.score}; "
                "check the model's weights and its preprocessing"
            )


@dataclass(frozen=True)
class Decision:
    """What one model says before and after.

    Args:
        model: The model's SPEC, as given.
        before: Its answer to the original.
        naive: Its answer to the fill alone; None where it was not asked.
        after: Its answer to the released file; None where none was written.
        kept: The release keeps what the run was asked to keep of this model's answer.
        checked_only: The model took no part in the search.
    """

    model: str
    before: Answer
    naive: Answer | None
    after: Answer | None
    kept: bool
    checked_only: bool = False

    @property
    def changed_naive(self) -> bool:
        """Whether the fill alone makes the model name another class."""
        return self.naive is not None and self.naive.label != self.before.label

    @property
    def changed_after(self) -> bool:
        """Whether the release loses what the run was asked to keep of the decision.

        With ``scores:TOLERANCE`` another class may come first and all scores still be kept.
        """
        return not self.kept


@dataclass(frozen=True)
class Entry:
    """What became of one input file.

    Args:
        input: The file, as the run names it; an input's later entry supersedes its earlier one.
        output: The released file, relative to the output folder; None if nothing was written.
        status: One of :data:`STATUSES`.
        regions: What was hidden.
        decisions: One per model, searched and checked.
        steps: Gradient steps that the search took.
        seconds: Time spent on this picture.
        sha256_in: Hash of the input's bytes; None if it could not be read.
        sha256_out: Hash of the output's bytes.
        error: What went wrong, in one sentence; set where ``status`` is ``failed``.
        settings: Fingerprint of the settings that made it.
        queries: Pictures, the original included, that each searched model was asked about in a
            search by scores; 0 where gradients were used.

    Raises:
        SettingsError: An unknown status, or a failure that gives no reason.
    """

    input: str
    output: str | None
    status: str
    regions: tuple[Box, ...]
    decisions: tuple[Decision, ...]
    steps: int
    seconds: float
    sha256_in: str | None
    sha256_out: str | None
    error: str | None
    settings: str
    queries: int = 0

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise SettingsError(f"expected a status out of {STATUSES}, got {self.status!r}")
        if self.status == "failed" and not self.error:
            raise SettingsError(f"expected the error that made {self.input} fail, got none")

    def to_json(self) -> str:
        """Return the entry as one line of JSON, without the line's end.

        Only ASCII: a file name that is not valid Unicode comes back unharmed.
        """
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Entry:
        """Read what :meth:`to_json` wrote.

        Raises:
            FileError: The line is not a manifest entry.
        """
        try:
            fields = json.loads(line)
            fields["regions"] = tuple(_read_box(box) for box in fields["regions"])
            fields["decisions"] = tuple(_read_decision(found) for found in fields["decisions"])
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError, ModelError) as error:
            raise FileError(
                f"expected a manifest entry, got {line[:80]!r} ({error}); was this file written "
                "by another version of scotoma? Choose another output folder"
            ) from error


def _read_box(values: list[int]) -> Box:
    x0, y0, x1, y1 = values
    return (x0, y0, x1, y1)


def _read_decision(fields: Mapping[str, Any]) -> Decision:
    answers = {
        moment: None if fields[moment] is None else Answer(**fields[moment])
        for moment in ("before", "naive", "after")
    }
    return Decision(**{**fields, **answers})
