"""What models say that took no part: agreement of the left out, with and without ``--transfer``.

Exemplars come from pictures that are not among those anonymized.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.decisions import classifier_name
from benchmarks.figures import rate, spread
from benchmarks.jobs import describe_search, run_in_cache
from benchmarks.page import number, percent, table
from benchmarks.pictures import (
    SPECS,
    face_settings,
    find_faces,
    imagenet,
    pick,
    untouched,
    validation,
)
from benchmarks.reader import open_reader
from benchmarks.record import Benchmark, Job, Measured, Options, Row

__all__ = ["BENCHMARK", "FAMILIES", "MODES", "PICTURES", "measure"]

FAMILIES = {
    "mobilenetv2": "MobileNetV2",
    "squeezenet1_1": "SqueezeNet",
    "mobilenetv1_075": "MobileNetV1",
    "mobilenetv1_050": "MobileNetV1",
}
SOURCES = (
    ("mobilenetv2",),
    ("squeezenet1_1",),
    ("mobilenetv2", "squeezenet1_1"),
    ("mobilenetv2", "mobilenetv1_075", "mobilenetv1_050"),
    ("squeezenet1_1", "mobilenetv1_075", "mobilenetv1_050"),
)
MODES = ("plain", "transfer", "transfer + exemplars")
PAPER_AGREEMENT = {
    "ResNet50": 0.606,
    "ResNet101": 0.691,
    "ResNet152": 0.719,
    "VGG13": 0.300,
    "VGG16": 0.294,
    "VGG19": 0.308,
    "MobileNetV2_050": 0.329,
    "MobileNetV2_140": 0.418,
    "MobileNetV3_large_100": 0.198,
}
PAPER: dict[str, Any] = {
    "source": "transferability of adaptive anonymization; optimised on MobileNetV2_100 alone, "
    "denominator not stated",
    "agreement": PAPER_AGREEMENT,
}
PICTURES = "untouched by the choice of settings"
_COLUMNS = ("naive", "all", "flipped", "flipped_with_exemplar")
GOALS = {"faces": "all", "center:0.3": "flipped"}


def _jobs(options: Options) -> Iterator[Job]:
    from scotoma.protections.anonymize.settings import SearchSettings, Transfer

    for regions in ("center:0.3", "faces"):
        for sources in SOURCES:
            for mode in MODES:
                search = SearchSettings(transfer=None if mode == "plain" else Transfer())
                config: dict[str, Any] = {
                    "regions": regions,
                    "sources": list(sources),
                    "mode": mode,
                    "subset": 6 if options.quick else options.subset,
                    "pictures": PICTURES,
                    "seed": options.seed,
                    "search": describe_search(search),
                }
                if regions == "faces":
                    config["detector"] = face_settings()
                what = f"agreement of models left out: {regions}, {' + '.join(sources)}, {mode}"
                yield Job(what, config, partial(measure, config, search, options), PAPER)


def measure(config: dict[str, Any], search: Any, options: Options) -> Measured:
    """Run a search on the sources' decisions and ask every model about the files.

    Args:
        config: Names ``regions``, ``sources``, ``mode``, ``subset`` and ``seed``.
        search: Its :class:`SearchSettings`.
        options: Of the benchmark.
    """
    from scotoma.run.settings import AnonymizeSettings

    regions = config["regions"]
    if regions == "faces":
        coco, having = find_faces(options)
        regions, pool = str(coco), having
    else:
        pool = validation()
    pictures = pick(untouched(pool), config["subset"], seed=options.seed)
    exemplars = _public(pictures, options) if "exemplars" in config["mode"] else None
    settings = AnonymizeSettings(
        regions=regions, search=search, exemplars=exemplars, seed=config["seed"]
    )
    naive_settings = AnonymizeSettings(regions=regions, adapt="none", seed=config["seed"])
    others = [name for name in SPECS if name not in config["sources"]]
    ours = run_in_cache(pictures, config["sources"], settings, options, observers=others)
    naive = run_in_cache(pictures, ["squeezenet1_1"], naive_settings, options)
    files = [ours.output(path) for path in pictures]
    fills = [naive.output(path) for path in pictures]
    whole = [n for n in range(len(pictures)) if files[n] is not None and fills[n] is not None]
    covered = _covered(exemplars, config["sources"], [pictures[n] for n in whole])
    values: dict[str, Any] = {"failed": len(pictures) - len(whole), "models": {}}
    for name in SPECS:
        values["models"][name] = _agreement(
            name,
            [pictures[n] for n in whole],
            [fill for n in whole if (fill := fills[n]) is not None],
            [file for n in whole if (file := files[n]) is not None],
            covered,
        )
    entries = [ours.entries[pictures[n].as_posix()] for n in whole]
    values["manifest_differs"] = sum(
        values["models"][classifier_name(decision.model)]["labels"][place] != decision.after.label
        for place, entry in enumerate(entries)
        for decision in entry.decisions
        if decision.after is not None
    )
    for figures in values["models"].values():
        del figures["labels"]
    values["steps"] = spread([entry.steps for entry in entries])
    return Measured(len(whole), values)


def _agreement(
    name: str,
    originals: Sequence[Path],
    fills: Sequence[Path],
    files: Sequence[Path],
    covered: Sequence[bool] | None,
) -> dict[str, Any]:
    reader = open_reader(name)
    before, naive, after = (reader.labels(paths) for paths in (originals, fills, files))
    kept = [old == new for old, new in zip(before, after, strict=True)]
    flipped = [n for n in range(len(kept)) if naive[n] != before[n]]
    helped = [n for n in flipped if covered is not None and covered[n]]
    return {
        "naive": rate(len(kept) - len(flipped), len(kept)),
        "all": rate(sum(kept), len(kept)),
        "flipped": rate(sum(kept[n] for n in flipped), len(flipped)),
        "flipped_with_exemplar": rate(sum(kept[n] for n in helped), len(helped)),
        "labels": after,
    }


def _covered(
    public: Path | None, sources: Sequence[str], originals: Sequence[Path]
) -> list[bool] | None:
    """Return for which pictures a public one has the class that the first source names."""
    if public is None:
        return None
    reader = open_reader(sources[0])
    known = set(reader.labels(sorted(public.iterdir())))
    return [label in known for label in reader.labels(originals)]


def _public(private: Sequence[Path], options: Options) -> Path:
    """Return a folder of links to every picture that is not private here."""
    folder = options.cache / "public"
    folder.mkdir(parents=True, exist_ok=True)
    for link in folder.iterdir():
        link.unlink()
    hidden = set(private)
    for path in imagenet():
        if path not in hidden:
            os.symlink(path, folder / f"{path.parent.name}-{path.name}")
    return folder


def _render(rows: Sequence[Row]) -> str:
    head = [
        "optimised on, how",
        "model",
        "fill alone: all",
        "release: all",
        "release: flipped",
        "release: flipped, exemplar of the class at hand",
    ]
    text = [
        "## Transfer",
        "",
        "Agreement with the decision on the original. *All*: of all pictures; *flipped*: of those "
        "whose decision the fill alone changes on that model. Models in *italics* took part in the "
        "search, so theirs is fit, not transfer. Exemplars: for each picture, of the class that "
        "the sources name, from "
        "pictures that are not among those anonymized (about 800; many classes have none). The "
        "pictures are ones that no trial of settings had looked at, with one exception: the least "
        "number of steps was raised from 16 to 64 after the next section's rows, which are of the "
        "same pictures and more. Paper "
        f"({PAPER['source']}): "
        + ", ".join(f"{m} {100 * share:.1f} %" for m, share in PAPER_AGREEMENT.items())
        + ".",
        "",
        "Goals on a family left out: at least 90 % of all at `faces`, 75 % of the flipped at "
        "`center:0.3`. With exemplars and all other families searched, the second is met for three "
        "of the four networks; from one network alone it is not. The first is met once. Why: at "
        "`faces` the search has a small region, often at the edge of what the network reads, and "
        "few pictures are flipped at all; a family that looks for other features (SqueezeNet) is "
        "moved little by what moves the others. What each setting gains is in the next section.",
        "",
    ]
    for regions in GOALS:
        lines = [
            line for row in rows if row["config"]["regions"] == regions for line in _lines(row)
        ]
        if lines:
            n = next(row["n"] for row in rows if row["config"]["regions"] == regions)
            text += [f"### `{regions}`, {n} pictures", "", table(head, lines)]
    return "\n".join(text)


def _lines(row: Row) -> Iterator[list[str]]:
    config = row["config"]
    label = f"{' + '.join(config['sources'])}, {config['mode']}"
    label += f" ({number(row['values']['steps']['mean'], 1)} steps)"
    for name, figures in row["values"]["models"].items():
        shown = f"*{name}*" if name in config["sources"] else f"**{name}**"
        cells = (percent(figures[key]) for key in _COLUMNS)
        yield [label, shown, *cells]
        label = ""


BENCHMARK = Benchmark("transfer", _jobs, _render)
