"""How calm and how robust a result is, by the size and shape of the cells and by the margin.

The search is shown the exact pixels only (PNG, no resized copies), so that what survives
afterwards is the parameterisation's own doing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.figures import rate, spread
from benchmarks.jobs import Run, describe_search, run_in_cache
from benchmarks.page import number, percent, table
from benchmarks.pictures import pick, validation
from benchmarks.reader import Resize, open_picture, open_reader
from benchmarks.record import ROOT, Benchmark, Job, Measured, Options, Row

if TYPE_CHECKING:
    from scotoma.images.regions import Box
    from scotoma.protections.anonymize.settings import SearchSettings
    from scotoma.run.settings import AnonymizeSettings

__all__ = ["BENCHMARK", "GRID"]

CELLS = (1.0, 2.0, 4.0, 6.0, 8.0, 16.0)
MARGINS = (0.5, 1.0, 2.0, 4.0)
GRID = ROOT / "docs" / "images" / "cells.jpg"
_MODEL = "mobilenetv2"
_RESIZES = (Resize(0.9, Image.Resampling.BICUBIC), Resize(1.1, Image.Resampling.BICUBIC))
_TILE = 150
_GRID_ROWS = 4
_MOST_BYTES = 150_000


def _jobs(options: Options) -> Iterator[Job]:
    from scotoma.protections.anonymize.settings import SearchSettings

    # Without views and with cells as small as asked for, in a region of any size.
    default = replace(SearchSettings(), views=(), least_cells=1)
    variants = [
        *(replace(default, cell=cell) for cell in CELLS),
        replace(default, smooth=False),
        *(replace(default, margin=margin) for margin in MARGINS),
    ]
    count, known = options.count(64, 6), set()
    for search in variants:
        if search in known:
            continue  # the default is in every series
        known.add(search)
        config = {
            "pictures": "imagenet/val",
            "count": count,
            "regions": "center:0.3",
            "fill": "solid",
            "format": "png",
            "model": _MODEL,
            "seed": options.seed,
            "search": describe_search(search),
        }
        shape = "smooth" if search.smooth else "flat"
        what = f"cell {search.cell:g}, {shape}, margin {search.margin:g}"
        yield Job(what, config, partial(_measure, search, count, options))


def _measure(search: SearchSettings, count: int, options: Options) -> Measured:
    pictures = pick(validation(), count, seed=options.seed)
    settings = _settings(search, options)
    run = run_in_cache(pictures, [_MODEL], settings, options)
    naive = _run_naive(pictures, options)
    searched = [path for path in pictures if run.entries[path.as_posix()].steps]
    _draw_grid(pictures, options)
    reader = open_reader(_MODEL)
    before = reader.labels(searched)
    after = [open_picture(_output(run, path)) for path in searched]

    def right(copies: Sequence[Image.Image]) -> list[bool]:
        said = reader.logits(copies).argmax(1).tolist()
        return [old == new for old, new in zip(before, said, strict=True)]

    kept = right(after)
    jpeg = right([_as_jpeg(picture) for picture in after])
    resized = [right([resize(picture) for picture in after]) for resize in _RESIZES]
    both = [all(sizes) for sizes in zip(*resized, strict=True)]
    n = len(searched)
    variations = [
        (
            _variation(picture, box),
            _variation(open_picture(path), box),
            _variation(open_picture(_output(naive, path)), box),
        )
        for path, picture in zip(searched, after, strict=True)
        for box in run.entries[path.as_posix()].regions
    ]
    ours, original, fill = zip(*variations, strict=True) if variations else ((), (), ())
    return Measured(
        n,
        {
            "kept": rate(sum(kept), n),
            "kept_jpeg_q90": rate(sum(jpeg), n),
            "kept_resized": rate(sum(both), n),
            "steps": spread([run.entries[path.as_posix()].steps for path in searched]),
            "variation": spread(ours),
            "variation_original": spread(original),
            "variation_fill": spread(fill),
        },
    )


def _run_naive(pictures: Sequence[Path], options: Options) -> Run:
    from scotoma.protections.anonymize.settings import SearchSettings

    settings = replace(_settings(SearchSettings(), options), adapt="none")
    return run_in_cache(pictures, [_MODEL], settings, options)


def _settings(search: SearchSettings, options: Options) -> AnonymizeSettings:
    from scotoma.run.settings import AnonymizeSettings

    return AnonymizeSettings(regions="center:0.3", fill="solid", search=search, seed=options.seed)


def _output(run: Run, path: Path) -> Path:
    output = run.output(path)
    if output is None:
        raise RuntimeError(f"expected an output for {path}")
    return output


def _as_jpeg(picture: Image.Image) -> Image.Image:
    """Return what is left after Pillow's JPEG at quality 90, chroma at half resolution."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def _variation(picture: Image.Image, box: Box) -> float:
    """Total variation in a box: mean absolute difference of neighbours, in 1/255."""
    pixels = np.asarray(picture.crop(box), np.float64)
    down, across = np.abs(np.diff(pixels, axis=0)), np.abs(np.diff(pixels, axis=1))
    return float((down.sum() + across.sum()) / max(1, down.size + across.size))


# -- the picture ------------------------------------------------------------------------


def _draw_grid(pictures: Sequence[Path], options: Options) -> None:
    """Write original, fill and result by cell size, once all these runs are there."""
    from scotoma.protections.anonymize.settings import SearchSettings

    default = replace(SearchSettings(), views=(), least_cells=1)
    searches = [replace(default, cell=cell) for cell in CELLS]
    if any(not _is_run(search, pictures, options) for search in searches):
        return
    runs = [run_in_cache(pictures, [_MODEL], _settings(s, options), options) for s in searches]
    naive = _run_naive(pictures, options)
    shown = [p for p in pictures if all(r.entries[p.as_posix()].steps for r in runs)][:_GRID_ROWS]
    grid = Image.new("RGB", ((len(runs) + 2) * _TILE, len(shown) * _TILE))
    for row, path in enumerate(shown):
        files = [path, *(_output(run, path) for run in (naive, *runs))]
        for column, file in enumerate(files):
            tile = open_picture(file).resize((_TILE - 2, _TILE - 2), Image.Resampling.LANCZOS)
            grid.paste(tile, (column * _TILE, row * _TILE))
    target = options.cache / "cells.jpg" if options.quick else GRID
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_small_jpeg(grid))


def _is_run(search: SearchSettings, pictures: Sequence[Path], options: Options) -> bool:
    """Whether the run of a search is in the cache, finished."""
    from benchmarks.jobs import run_folder

    out = run_folder(pictures, [_MODEL], _settings(search, options), options)
    return (out / "summary.json").is_file()


def _small_jpeg(picture: Image.Image) -> bytes:
    """Encode at the best quality that fits the limit."""
    data = b""
    for quality in range(92, 40, -4):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        data = buffer.getvalue()
        if len(data) <= _MOST_BYTES:
            break
    return data


def _render(rows: Sequence[Row]) -> str:
    head = [
        "cells",
        "searched",
        "kept as written",
        "kept as JPEG q90",
        "kept at ±10 %",
        "steps: median / mean / p95",
        "variation",
    ]
    lines = []
    for row in rows:
        values, steps = row["values"], row["values"]["steps"]
        lines.append(
            [
                row["what"],
                str(row["n"]),
                *(
                    percent(values[key], interval=False)
                    for key in ("kept", "kept_jpeg_q90", "kept_resized")
                ),
                f"{number(steps['median'])} / {number(steps['mean'])} / {number(steps['p95'])}",
                number(values["variation"]["mean"], 2),
            ]
        )
    values = rows[0]["values"]
    text = (
        f"{rows[0]['config']['count']} validation pictures, MobileNetV2, `center:0.3`, solid fill; "
        "n are the pictures that the fill flips. The search sees neither JPEG nor resized copies "
        "here, so the last columns show what the cells and the margin alone are good for. Cell "
        "sides are in 1/256 of the picture's shorter side; *variation* is the mean absolute "
        "difference of neighbouring pixels inside the region, in 1/255 (the originals have "
        f"{number(values['variation_original']['mean'], 2)}, the fill "
        f"{number(values['variation_fill']['mean'], 2)})."
    )
    parts = ["## Cells", "", text, "", table(head, lines)]
    if GRID.is_file():
        sides = ", ".join(f"{cell:g}" for cell in CELLS)
        parts += [
            f"![Original, solid fill, and results with cells of {sides}](images/{GRID.name})",
            "",
            f"From the left: original, solid fill, results with cells of {sides}.",
            "",
        ]
    return "\n".join(parts)


BENCHMARK = Benchmark("cells", _jobs, _render)
