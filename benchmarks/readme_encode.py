"""The README's lines on what leaves a camera: bottlenecks, and the streams that carry them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.readme_search import verdict
from benchmarks.record import Row

__all__ = ["fuzzed", "splits"]

_LOST, _BELOW, _SAVED = 1.0, 3.0, 0.3  # points, dB, share of the bits


def splits(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Of each cut: plain features, and the bottleneck that tells the strongest attacker least.

    Only those within a point of accuracy are taken, where there are some.
    """
    cuts = dict.fromkeys((row["config"]["model"], row["config"]["at"]) for row in rows)
    for model, at in cuts:
        here = [row for row in rows if (row["config"]["model"], row["config"]["at"]) == (model, at)]
        plain = next((row["values"] for row in here if row["config"]["variant"] == "plain"), None)
        trained = [row for row in here if row["config"]["variant"] != "plain"]
        if plain is None or not trained:
            continue
        within = [r for r in trained if r["values"]["points_lost"]["points"] <= _LOST]
        row = min(within or trained, key=lambda r: float(r["values"]["strongest"]["psnr_db"]))
        values = row["values"]
        lost, told = values["points_lost"], values["strongest"]["psnr_db"]
        below = plain["strongest"]["psnr_db"] - told
        learning = ", still learning" if values["strongest"]["notes"] else ""
        saved = 1 - values["bits_per_pixel"] / plain["bits_per_pixel"]
        yield [
            f"PSNR of the strongest fresh attacker on features of {model} at `{at}` "
            f"(n = {row['n']}); left: plain features, right: *{row['config']['variant']}*",
            f"{plain['strongest']['psnr_db']:.1f} dB",
            f"**{told:.1f} dB**{learning}, {100 * saved:.0f} % of the bits saved, "
            f"{lost['points']:.1f} points lost [{lost['low']:.1f}, {lost['high']:.1f}]",
            verdict(
                f"≥ {_BELOW:g} dB lower, ≥ {100 * _SAVED:g} % saved, ≤ {_LOST:g} point",
                below >= _BELOW and saved >= _SAVED and lost["points"] <= _LOST,
            ),
        ]


def fuzzed(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Yield how many bad streams did harm."""
    if rows:
        n = sum(row["n"] for row in rows)
        bad = sum(
            row["values"][key]
            for row in rows
            for key in ("accepted", "unexpected", "crashed", "hung")
        )
        yield [
            "damaged or foreign bitstreams that were believed, crashed or hung the reader",
            "",
            f"**{bad} of {n:,}**",
            verdict("0", bad == 0),
        ]
