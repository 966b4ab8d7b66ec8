"""The README's table of results, out of the same rows as the page; losses included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from benchmarks.encryption_speed import PATCHES
from benchmarks.page import percent, table
from benchmarks.readme_encode import fuzzed, splits
from benchmarks.readme_search import black_boxes, compression, optimizers, verdict
from benchmarks.record import RESULTS, ROOT, Book, Row
from benchmarks.transfer import FAMILIES, MODES

__all__ = ["README", "render_readme", "render_results", "write_readme"]

README = ROOT / "README.md"
_BEGIN, _END = "<!-- results: begin -->", "<!-- results: end -->"


def render_results(folder: Path = RESULTS) -> str:
    """Return the table for the result files in ``folder``; empty without any."""
    lines = [
        *_decisions(Book("decisions", folder).rows),
        *_transfer(Book("transfer", folder).rows),
        *_speed(Book("speed", folder).rows),
        *_memory(Book("memory", folder).rows),
        *_encryption(Book("encryption", folder).rows),
        *_encryption_speed(Book("encryption_speed", folder).rows),
        *_pevit(Book("pevit", folder).rows),
        *_attacked(Book("evaluation", folder).rows),
        *optimizers(Book("optimizers", folder).rows),
        *black_boxes(Book("blackbox", folder).rows),
        *compression(Book("compression", folder).rows),
        *splits(Book("split", folder).rows),
        *fuzzed(Book("fuzz", folder).rows),
    ]
    return table(["what", "fill alone / others", "Scotoma", "goal"], lines) if lines else ""


def render_readme(text: str, folder: Path = RESULTS) -> str:
    """Return the README's text with its table of results replaced."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{render_results(folder)}{_END}{after}"


def write_readme() -> None:
    """Bring the README's table up to date."""
    README.write_text(render_readme(README.read_text("utf-8")), "utf-8")


def _decisions(rows: Sequence[Row]) -> Iterator[list[str]]:
    for row in rows:
        config, values = row["config"], row["values"]
        if config["fill"] != "solid":
            continue
        written = "PNG" if config["format"] == "png" else f"JPEG q{config['quality']}"
        what = (
            f"decisions changed, `{config['regions']}`, {' + '.join(config['models'])}, {written}"
        )
        yield [
            f"{what} (n = {row['n']})",
            percent(values["changed_naive"], interval=False),
            f"**{percent(values['changed_after'], interval=False)}**",
            verdict("0", values["changed_after"]["count"] == 0),
        ]


def _transfer(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Of networks whose family alone was left out: the worst and the best."""
    for regions, key, goal in (("center:0.3", "flipped", 0.75), ("faces", "all", 0.9)):
        for mode in MODES:
            shares = [
                figures[key]["rate"]
                for row in rows
                if row["config"]["regions"] == regions and row["config"]["mode"] == mode
                for name, figures in row["values"]["models"].items()
                if set(row["config"]["sources"])
                == {other for other in FAMILIES if FAMILIES[other] != FAMILIES[name]}
            ]
            if shares:
                met = sum(share >= goal for share in shares)
                yield [
                    f"agreement of a family left out, {key} pictures, `{regions}`, {mode}, "
                    f"{len(shares)} networks",
                    "",
                    f"**{100 * min(shares):.1f} to {100 * max(shares):.1f} %**",
                    verdict(f"≥ {100 * goal:g} %: {met} of {len(shares)}", met == len(shares)),
                ]


def _speed(rows: Sequence[Row]) -> Iterator[list[str]]:
    for favoured, how in ((False, "as documented"), (True, "favoured")):
        times = [
            min(row["values"]["times_faster_than"].values())
            for row in rows
            if row["config"]["favoured"] == favoured
        ]
        if times:
            yield [
                f"speed beside the better of torchattacks and foolbox, {how}, {len(times)} jobs",
                "1×",
                f"**{min(times):.1f} to {max(times):.1f}×**",
                verdict("≥ 5×", min(times) >= 5),
            ]
    floor = [row["values"]["over_floor"] for row in rows]
    if floor:
        met = sum(ratio <= 1.5 for ratio in floor)
        yield [
            f"time over that of the passes alone, {len(floor)} jobs",
            "",
            f"**{min(floor):.2f} to {max(floor):.2f}×**",
            verdict(f"≤ 1.5×: {met} of {len(floor)} jobs", met == len(floor)),
        ]


def _memory(rows: Sequence[Row]) -> Iterator[list[str]]:
    peaks = {row["n"]: row["values"]["peak_mib"] for row in rows}
    if len(peaks) > 1:
        first, last = min(peaks), max(peaks)
        yield [
            f"peak memory, {first:,} and {last:,} pictures",
            "",
            f"{peaks[first]:.0f} and **{peaks[last]:.0f} MiB**",
            verdict("flat", peaks[last] <= 1.1 * peaks[first]),
        ]


def _encryption(rows: Sequence[Row]) -> Iterator[list[str]]:
    if not rows:
        return
    models = len({row["config"]["model"] for row in rows})
    changed = sum(row["values"]["safetensors float32"]["changed"]["count"] for row in rows)
    n = sum(row["n"] for row in rows)
    yield [
        f"decisions changed by encrypting, float32 files, {models} trained models",
        "",
        f"**{changed} of {n:,}**",
        verdict("0", changed == 0),
    ]
    shares = [
        row["values"]["png"]["changed"]["rate"]
        for row in rows
        if row["config"]["scheme"] == "orthogonal"
    ]
    yield [
        "the same, 8-bit PNG files, `orthogonal`",
        "",
        f"**{100 * min(shares):.1f} to {100 * max(shares):.1f} %**",
        "–",
    ]
    for scheme in ("orthogonal", "permute"):
        wrong = max(
            (row for row in rows if row["config"]["scheme"] == scheme),
            key=lambda row: row["values"]["wrong_key"]["kept"]["rate"],
        )["values"]["wrong_key"]
        yield [
            f"decisions right under a wrong key, `{scheme}`, worst of all rows",
            f"{100 * wrong['chance']['rate']:.1f} % by chance",
            f"**{100 * wrong['kept']['rate']:.1f} %**",
            verdict("near chance", wrong["kept"]["rate"] <= wrong["chance"]["rate"] + 0.05),
        ]


def _encryption_speed(rows: Sequence[Row]) -> Iterator[list[str]]:
    def ratios(kind: str, key: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for row in rows:
            if row["config"]["kind"] == kind:
                found.setdefault(row["config"].get("model", ""), []).append(row["values"][key])
        return found

    read = ratios("read", "of_plain")
    patches = [ratio for model in read if model in PATCHES for ratio in read[model]]
    overlapping = [ratio for model in read if model not in PATCHES for ratio in read[model]]
    encrypt = list(chain(*ratios("encrypt", "of_floor").values()))
    adapt = list(chain(*ratios("adapt", "of_loading").values()))
    for what, found, goal, met in (
        ("speed of encrypting over the floor's", encrypt, "≥ 0.5×", lambda r: r >= 0.5),
        ("time of an adapted model over the plain one's, patches", patches, "≤ 1.02×", _is_equal),
        ("the same, overlapping first layers", overlapping, "", None),
        ("time of adapting over that of loading", adapt, "≤ 1×", lambda r: r <= 1),
    ):
        if found:
            count = sum(map(met, found)) if met else 0
            yield [
                f"{what}, {len(found)} jobs",
                "1×",
                f"**{min(found):.2f} to {max(found):.2f}×**",
                verdict(f"{goal}: {count} of {len(found)} jobs", count == len(found))
                if met
                else "–",
            ]


def _pevit(rows: Sequence[Row]) -> Iterator[list[str]]:
    by_name = {row["config"]["variant"]: row["values"] for row in rows}
    if "plain" not in by_name:
        return
    plain = percent(by_name["plain"]["accuracy"], interval=False)
    shown = (
        ("shuffle", "shuffled (RS)", 1),
        ("mix-trunk", "mixed (MI), by a trunk of residual blocks", 2),
    )
    for name, what, goal in shown:
        if name in by_name:
            yield [
                f"accuracy on pictures {what}, CIFAR-10; left: the twin on plain ones",
                plain,
                f"**{percent(by_name[name]['accuracy'], interval=False)}**",
                verdict(f"within {goal} point(s)", by_name[name]["gap"]["points"] <= goal),
            ]


def _attacked(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Yield what the strongest attack on releases alone gets of the paper's scheme and of ours."""
    by_name = {
        row["config"]["evaluation"]: {
            entry["protection"]: entry["releases"] for entry in row["values"]["protections"]
        }
        for row in rows
    }
    for name, metric, what, goal in (
        (
            "hardened",
            "block_brightness_correlation",
            "correlation with the brightness of blocks, 100 releases of a key, 224 px",
            0.2,
        ),
        ("faces", "reid_rank1", "people recognized in reconstructions", None),
    ):
        if name not in by_name:
            continue
        broken, found = (by_name[name][label][metric] for label in ("orthogonal-8", "hardened"))
        chance = found["trivial"]
        yield [
            f"{what}; left: `orthogonal`, right: `hardened`",
            f"{broken['value']:.2f}",
            f"**{found['value']:.2f}** [{found['low']:.2f}, {found['high']:.2f}]",
            verdict(f"≤ {goal} (guessed without releases: {chance:.2f})", found["value"] <= goal)
            if goal
            else verdict(f"guessed without releases: {chance:.2f}", found["low"] <= chance),
        ]


def _is_equal(ratio: float) -> bool:
    return ratio <= 1.02
