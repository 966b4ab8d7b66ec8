"""Decisions that a fill changes, and that are changed in the release, read by a stranger.

Every figure comes from the files as written, read back by :mod:`.reader`. The naive files
do not depend on the models, so one run per region, fill and encoding serves all model sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from benchmarks.figures import rate, spread
from benchmarks.jobs import Run, describe_search, run_in_cache
from benchmarks.page import number, percent, table
from benchmarks.pictures import face_settings, find_faces, imagenet, pick
from benchmarks.reader import Resize, open_reader
from benchmarks.record import Benchmark, Job, Measured, Options, Row

if TYPE_CHECKING:
    from scotoma.images.write import Encoding
    from scotoma.run.settings import AnonymizeSettings

__all__ = ["BENCHMARK", "PAPER", "changed_places"]

MODEL_SETS = (("mobilenetv2",), ("squeezenet1_1",), ("mobilenetv2", "squeezenet1_1"))
REGIONS = ("center:0.3", "faces")
ENCODINGS = (("png", 90), ("jpeg", 90))
PAPER: dict[str, Any] = {
    "source": "Shvai, Llanza Carmona, Nakib, ICCV 2023 Workshops; ImageNet, its own regions",
    "changed_naive": 0.1595,
    "changed_after": 0.0,
}
RESIZES = {
    # What the search itself looks at, and what it never sees.
    "searched": (Resize(0.9, Image.Resampling.BICUBIC), Resize(1.1, Image.Resampling.BICUBIC)),
    "unseen": (Resize(0.93, Image.Resampling.LANCZOS), Resize(1.07, Image.Resampling.BILINEAR)),
}
_MOST_LOSSES = 20
_known_labels: dict[tuple[str, Resize | None], dict[Path, int]] = {}


def _jobs(options: Options) -> Iterator[Job]:
    from scotoma.ops.fills import DEFAULT_FILL, fills
    from scotoma.protections.anonymize.settings import SearchSettings

    names = [DEFAULT_FILL, *(name for name in fills.names() if name != DEFAULT_FILL)]
    for regions in REGIONS:
        for fill in names:
            for encoding in ENCODINGS:
                for models in MODEL_SETS:
                    subset = _subset(fill == DEFAULT_FILL, regions, encoding[0], options)
                    config: dict[str, Any] = {
                        "pictures": "imagenet/val + imagenet/samples",
                        "regions": regions,
                        "fill": fill,
                        "format": encoding[0],
                        "quality": encoding[1],
                        "models": list(models),
                        "subset": 8 if options.quick else subset,
                        "seed": options.seed,
                        "search": describe_search(SearchSettings()),
                    }
                    if regions == "faces":
                        config["detector"] = face_settings()
                    text = f"{regions}, {fill}, {encoding[0]}, {' + '.join(models)}"
                    yield Job(
                        f"decisions changed: {text}",
                        config,
                        partial(_measure, config, options),
                        PAPER,
                    )


def _subset(is_default: bool, regions: str, format: str, options: Options) -> int | None:  # noqa: A002
    """All pictures for the default fill on the larger region, fewer where many rows need it."""
    if not is_default:
        return options.subset
    return None if regions.startswith("center") and format == "png" else 3 * options.subset


def _measure(config: dict[str, Any], options: Options) -> Measured:
    regions, pictures = config["regions"], imagenet()
    if regions == "faces":
        coco, pictures = find_faces(options)
        regions = str(coco)
    if config["subset"] is not None:
        pictures = pick(pictures, config["subset"], seed=options.seed)
    models = config["models"]
    # Any model does for the naive files; it only looks on.
    naive = run_in_cache(pictures, ["squeezenet1_1"], _settings(config, regions, "none"), options)
    ours = run_in_cache(pictures, models, _settings(config, regions, "gradient"), options)
    return Measured(len(pictures), _figures(pictures, models, naive, ours))


def _settings(config: dict[str, Any], regions: str, adapt: str) -> AnonymizeSettings:
    from scotoma.images.write import Encoding
    from scotoma.run.settings import AnonymizeSettings

    encoding: Encoding = Encoding(config["format"], config["quality"])
    return AnonymizeSettings(
        regions=regions, fill=config["fill"], adapt=adapt, encoding=encoding, seed=config["seed"]
    )


def _figures(
    pictures: Sequence[Path], models: Sequence[str], naive: Run, ours: Run
) -> dict[str, Any]:
    """Compare what the networks say of originals, naive files and releases."""
    released = [path for path in pictures if ours.output(path) and naive.output(path)]
    files = [_required(ours, path) for path in released]
    naive_files = [_required(naive, path) for path in released]
    places = range(len(released))
    before = {model: _original_labels(model, released, None) for model in models}
    by_fill = changed_places(models, before, naive_files)
    after = changed_places(models, before, files)
    claimed = {
        place
        for place, path in enumerate(released)
        if any(decision.changed_after for decision in ours.entries[path.as_posix()].decisions)
    }
    survivors: dict[str, Any] = {}
    for name, resizes in RESIZES.items():
        lost, lost_originals = set(after), set()
        for resize in resizes:
            lost |= changed_places(models, before, files, resize)
            for model in models:
                copies = _original_labels(model, released, resize)
                lost_originals |= {p for p in places if copies[p] != before[model][p]}
        survivors[f"kept_resized_{name}"] = rate(len(released) - len(lost), len(released))
        survivors[f"originals_resized_{name}"] = rate(
            len(released) - len(lost_originals), len(released)
        )
    steps = [ours.entries[released[place].as_posix()].steps for place in places]
    return {
        "failed": len(pictures) - len(released),
        "changed_naive": rate(len(by_fill), len(released)),
        "changed_after": rate(len(after), len(released)),
        "manifest_differs": len(claimed ^ after),
        "steps_of_searched": spread([count for count in steps if count]),
        "pictures_per_second": round(ours.done / ours.seconds, 3) if ours.done else None,
        "pictures_timed": ours.done,
        **survivors,
        "losses": [
            {
                "picture": released[place].name,
                "status": ours.entries[released[place].as_posix()].status,
                "steps": steps[place],
                "leads": _leads(ours, released[place]),
            }
            for place in sorted(after)[:_MOST_LOSSES]
        ],
    }


def changed_places(
    models: Sequence[str],
    before: dict[str, list[int]],
    files: Sequence[Path],
    resize: Resize | None = None,
) -> set[int]:
    """Return where at least one model says of a file what it did not say before.

    Args:
        models: Short names.
        before: By model, the class of each original.
        files: One per original.
        resize: What happens to each file first.
    """
    changed: set[int] = set()
    for model in models:
        labels = open_reader(model).labels(files, resize)
        pairs = zip(before[model], labels, strict=True)
        changed |= {place for place, (old, new) in enumerate(pairs) if old != new}
    return changed


def _original_labels(model: str, paths: Sequence[Path], resize: Resize | None) -> list[int]:
    """Read originals, each only once in this process."""
    known = _known_labels.setdefault((model, resize), {})
    missing = [path for path in paths if path not in known]
    known.update(zip(missing, open_reader(model).labels(missing, resize), strict=True))
    return [known[path] for path in paths]


def _required(run: Run, path: Path) -> Path:
    output = run.output(path)
    if output is None:
        raise RuntimeError(f"expected an output for {path}")
    return output


def _leads(run: Run, path: Path) -> dict[str, list[float]]:
    """Each model's score of its decision on the original and on the release: why it was lost."""
    return {
        classifier_name(decision.model): [
            round(decision.before.score, 4),
            round(decision.after.score, 4) if decision.after else 0.0,
        ]
        for decision in run.entries[path.as_posix()].decisions
    }


def classifier_name(spec: str) -> str:
    """Return the short name of a model of ``../shared``, so that no path of a machine is kept."""
    from benchmarks.pictures import SPECS

    return next(name for name, known in SPECS.items() if known == spec)


def _render(rows: Sequence[Row]) -> str:
    head = [
        "regions, fill, format, models",
        "n",
        "changed by the fill",
        "changed in the release",
        "steps: median / mean / p95",
        "kept at ±10 %",
        "kept at −7 / +7 %, other filters",
        "pictures/s",
    ]
    lines = [_line(row) for row in rows]
    text = [
        "## Decisions",
        "",
        "A picture counts as changed when at least one of the models named in its row says another "
        "class than of the original. Originals and written files are read by plain Pillow, timm "
        "and torchvision, without Scotoma's code. The last columns ask the same after the release "
        "was resized; in parentheses, how many of the *originals* keep their class then. `faces` "
        "rows are over the pictures with a face. "
        f"Paper ({PAPER['source']}): {100 * PAPER['changed_naive']:.2f} % changed by naive "
        f"anonymization, {100 * PAPER['changed_after']:g} % after adaptation.",
        "",
        table(head, lines),
        _losses(rows),
    ]
    return "\n".join(text)


def _line(row: Row) -> list[str]:
    config, values = row["config"], row["values"]
    steps = values["steps_of_searched"]
    encoding = config["format"] + (f" q{config['quality']}" if config["format"] != "png" else "")
    return [
        f"{config['regions']}, {config['fill']}, {encoding}, {' + '.join(config['models'])}",
        str(row["n"]),
        percent(values["changed_naive"]),
        percent(values["changed_after"]),
        f"{number(steps['median'])} / {number(steps['mean'])} / {number(steps['p95'])}",
        *(_kept(values, name) for name in RESIZES),
        number(values["pictures_per_second"], 2),
    ]


def _kept(values: dict[str, Any], name: str) -> str:
    kept, originals = values[f"kept_resized_{name}"], values[f"originals_resized_{name}"]
    if kept["rate"] is None:
        return "–"
    return f"{100 * kept['rate']:.1f} % ({100 * originals['rate']:.1f} %)"


def _losses(rows: Iterable[Row]) -> str:
    """List every picture that lost a decision, and how sure the models were of it."""
    found = []
    for row in rows:
        label = row["what"].partition(": ")[2]
        if row["values"]["failed"]:
            found.append(f"- {label}: {row['values']['failed']} pictures failed")
        if row["values"]["manifest_differs"]:
            count = row["values"]["manifest_differs"]
            found.append(f"- {label}: reader and manifest disagree on {count} pictures")
        for loss in row["values"]["losses"]:
            scores = ", ".join(f"{m}: {a:.3f} → {b:.3f}" for m, (a, b) in loss["leads"].items())
            found.append(
                f"- {label}: {loss['picture']}, {loss['status']} after {loss['steps']} steps "
                f"(top score before → after: {scores})"
            )
    if not found:
        return "No decision was lost in any row, and reader and manifest agree on every picture.\n"
    return "\n".join(["Decisions lost:", "", *found, ""])


BENCHMARK = Benchmark("decisions", _jobs, _render)
